"""Ingestion by this project and by its peers: one module each, one process each, one way of measuring.

`ours` runs in the project's environment, the others in one of their own: their requirements contradict Airflow's.
"""
