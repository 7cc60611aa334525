"""Scripts that run as jobs: modules with `def main(job)`; they and what they import need only a job's environment."""
