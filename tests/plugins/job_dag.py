"""A DAG for the tests of the job page: tasks that tell of a job, in each state that a task can be in, or of none."""

from __future__ import annotations

import os
import time
from pathlib import Path

from airflow.providers.standard.triggers.file import FileTrigger
from airflow.sdk import BaseOperator, dag, get_current_context, task

STORAGE = Path(os.environ.get("FMOPS_STORAGE_ROOT", "").removeprefix("file://"))
GO = STORAGE / "go"
"""Until it is there, one task runs and one is deferred."""


def tell(name):
    place = {"backend": "local", "kind": "training", "name": name, "lost_after_s": 60}
    get_current_context()["ti"].xcom_push("fmops_job", {**place, "folder": str(STORAGE / "jobs" / name)})


class Wait(BaseOperator):
    def execute(self, context):
        tell("deferred-g1")
        self.defer(trigger=FileTrigger(filepath=str(GO), poke_interval=0.5), method_name="end")

    def end(self, context, event):
        return None


@dag(dag_id="jobs", schedule=None)
def jobs():
    @task
    def running():
        tell("running-g1")
        while not GO.exists():
            time.sleep(0.2)

    @task
    def done():
        tell("done-g1")

    @task
    def failed():
        tell("failed-g1")
        raise ValueError("as its job did")

    @task
    def none():
        return {"job": "none-g1"}

    running()
    Wait(task_id="deferred")
    done()
    failed()
    none()


jobs()
