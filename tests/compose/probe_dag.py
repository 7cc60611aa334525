"""DAGs for the stack's tests alone: copied into the dags folder of a stack, never into the project's."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import urlparse

from airflow.sdk import dag, get_current_context, task

MEETING_S = 120


@dag(schedule=None, catchup=False)
def probe_long():
    @task
    def long_task() -> float:
        """Hold a worker's slot for 90 s; the seconds it took."""
        start = time.monotonic()
        time.sleep(90)
        return time.monotonic() - start

    @task
    def surroundings() -> dict:
        """Where a task runs, as MWAA would have it."""
        import os
        import sys

        import include

        return {
            "uid": os.getuid(),
            "path": [p for p in sys.path if p.startswith("/opt/airflow")],
            "pythonpath": os.environ.get("PYTHONPATH"),
            "include": include.__file__,
        }

    long_task()
    surroundings()


@dag(schedule=None, catchup=False)
def probe_meeting():
    @task
    def meet(number: int, size: int) -> str:
        """Wait until `size` of these tasks run at the same time, all seeing one data folder; the worker's name."""
        import socket

        from include.config import load_settings
        from include.storage import run_key

        table = Path(urlparse(load_settings().root).path) / run_key(get_current_context()["run_id"])
        table.mkdir(exist_ok=True)
        (table / str(number)).touch()
        deadline = time.monotonic() + MEETING_S
        while len(list(table.iterdir())) < size:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{size} tasks did not meet, only {sorted(p.name for p in table.iterdir())}")
            time.sleep(0.5)
        return socket.gethostname()

    meet.partial(size=4).expand(number=list(range(4)))


probe_long()
probe_meeting()
