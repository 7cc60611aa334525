"""A DAG whose tasks fail in the ways that include/dag_defaults.py tells apart; test_dag_defaults.py runs it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from airflow.sdk import dag, task

from include.dag_defaults import default_args
from include.errors import UserError

AT_ONCE = {"retry_delay": timedelta(0), "retry_exponential_backoff": 0}


def count_try(name: str) -> int:
    """How often the task ran, this time included; a file survives the attempt, which its process need not."""
    file = Path(__file__).with_name(f"{name}.tries")
    tries = len(file.read_text()) + 1 if file.exists() else 1
    file.write_text("x" * tries)
    return tries


@dag(schedule=None, catchup=False, default_args=default_args() | AT_ONCE)
def failing_dag():
    @task
    def wrong_setting() -> None:
        count_try("wrong_setting")
        raise UserError("chunk_tokens=0:\n  must be 16 or more")

    @task
    def shaky_network() -> None:
        if count_try("shaky_network") == 1:
            raise ConnectionError("reset by peer")

    @task
    def shard(name: str) -> None:
        count_try(name)
        raise RuntimeError("nobody expected this")

    wrong_setting(), shaky_network(), shard.expand(name=["shard"])


failing = failing_dag()

if __name__ == "__main__":
    failing.test()
