"""The parts of a run's page, which include.rag.quality_report puts together; all text in them is escaped."""
