"""A DAG for the launcher's own tests: three mapped tasks that succeed, fail or hang, as the Params say."""

from __future__ import annotations

import subprocess
import time

from airflow.sdk import Param, dag, task


@dag(
    dag_id="tiny",
    schedule=None,
    params={"bad": Param(-1, type="integer"), "hang_s": Param(0, type="integer")},
)
def tiny():
    @task
    def numbers() -> list[int]:
        # The dags folder is on the path of DAG processor and tasks; nobody sets a PYTHONPATH.
        import include.contracts  # noqa: F401

        return [0, 1, 2]

    @task(max_active_tis_per_dagrun=1)
    def shard(number: int, params: dict[str, int]) -> int:
        if params["hang_s"]:
            # Leaves the task's process group and session, as a program with a daemon of its own does.
            subprocess.Popen(["sleep", str(params["hang_s"])], start_new_session=True)
            time.sleep(params["hang_s"])
        if number == params["bad"]:
            raise ValueError(f"number {number} is bad")
        return number

    @task
    def total(numbers: list[int]) -> dict[str, int]:
        return {"total": sum(numbers)}

    total(shard.expand(number=numbers()))


tiny()
