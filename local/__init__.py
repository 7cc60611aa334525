"""The launcher: set-up, a local Airflow, and the client that triggers and watches runs."""
