"""Long jobs that run somewhere else: a process on this machine or a SageMaker job, behind one operator."""
