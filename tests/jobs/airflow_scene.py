"""A real Airflow whose parts a test kills, and the count of jobs at each moment."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from include.jobs import processes
from local.airflow import COMPONENTS, LocalAirflow
from local.client import Client
from local.home import PROJECT
from local.processes import marked
from tests.real_airflow import clear, home_with_database, job_name

DEADLINE_S = 180
"""Until a test gives up on something that should happen."""
OPTIONS = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "FMOPS_JOB_INLINE_S": "2",
    "FMOPS_JOB_LOST_AFTER_S": "6",
}
PROBE = """
from importlib.util import find_spec
from airflow.triggers.base import BaseTrigger, TriggerEvent

class ProbeTrigger(BaseTrigger):
    def serialize(self):
        return ("fmops_plugins.probe.ProbeTrigger", {})

    async def run(self):
        import asyncio, sys
        await asyncio.sleep(5)  # as our own: an event before the task is deferred fails it
        yield TriggerEvent({"include": find_spec("include") is not None, "jobs": "fmops_plugins.jobs" in sys.modules})
"""


class Scene:
    """One Airflow and its local jobs."""

    def __init__(self, airflow: LocalAirflow, client: Client, jobs: Path) -> None:
        self.airflow, self.client, self.jobs = airflow, client, jobs

    def start(self, dag_id: str, **conf: Any) -> Run:
        return Run(self, dag_id, self.client.trigger(self.client.dag(dag_id), conf))

    def kill(self, component: str) -> None:
        """SIGKILL to a component and all that it has started, but for what has left it."""
        process = self.airflow._components[component]
        for one in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
            one.kill()
        process.wait()

    def restart(self, component: str) -> None:
        self.airflow._components[component] = self.airflow._spawn(component, COMPONENTS[component])

    def until(self, condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
        deadline = time.monotonic() + deadline_s
        while not (found := condition()):
            assert time.monotonic() < deadline, f"{what}: not within {deadline_s} s"
            time.sleep(0.1)
        return found

    def folders(self) -> list[Path]:
        return sorted(self.jobs.glob("[!.]*-g*"))

    def processes(self) -> list[psutil.Process]:
        """Of all jobs, by the folder in their environment."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("FMOPS_ML_ROOT", "").startswith(str(self.jobs)):
                    found.append(process)
            except (psutil.Error, OSError):  # it ended meanwhile, or is somebody else's
                continue
        return [one for one in found if one.status() != psutil.STATUS_ZOMBIE]

    def none_left(self) -> None:
        """No job is active, and no process of one lives."""
        self.until(lambda: not self.processes(), "the end of all processes")
        assert [folder.name for folder in self.folders() if not (folder / "status.json").exists()] == []

    @contextmanager
    def never_two(self) -> Iterator[None]:
        """AssertionError if at any moment of the block two generations of one job worked."""
        ended, found = threading.Event(), []

        def look() -> None:
            while not ended.is_set():
                working = Counter(job for job in map(self._works, self.folders()) if job)
                found.extend(job for job, number in working.items() if number > 1)
                ended.wait(0.05)

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        assert not found

    @staticmethod
    def _works(folder: Path) -> str:
        """The job that a generation is of, while its script may work."""
        if (folder / "started.json").exists() and not (folder / "status.json").exists():
            return folder.name.rpartition("-g")[0]
        return ""


class Run:
    """A DAG run with one task `job`."""

    def __init__(self, scene: Scene, dag_id: str, run_id: str) -> None:
        self.scene, self.dag_id, self.run_id = scene, dag_id, run_id

    def task(self, task_id: str = "job") -> dict[str, Any]:
        tasks = self.scene.client.task_instances(self.dag_id, self.run_id)
        return next(task for task in tasks if task["task_id"] == task_id)

    def until(self, *states: str, attempt: int = 1) -> dict[str, Any]:
        """Once the task is in one of these states."""

        def look() -> dict[str, Any] | None:
            task = self.task()
            return task if task["state"] in states and task["try_number"] >= attempt else None

        found: dict[str, Any] = self.scene.until(look, f"{' or '.join(states)} of {self.dag_id}")
        return found

    def until_triggered(self) -> None:
        """Once the task waits without a slot, and a triggerer looks at its job."""
        self.until("deferred")
        logs = self.scene.airflow.home.path / "logs" / f"dag_id={self.dag_id}" / f"run_id={self.run_id}"
        self.scene.until(lambda: list(logs.glob("task_id=job/*.trigger.*")), "the trigger's start")

    def job(self) -> str:
        """Name of its job, once there is one."""
        client = self.scene.client
        return str(self.scene.until(lambda: job_name(client, self.dag_id, self.run_id, "job"), "a job"))

    def at_step(self, step: int) -> Path:
        """The folder of its job, once the script has come so far."""
        folder = self.scene.jobs / self.job()

        def look() -> bool:
            file = folder / "progress.json"
            return file.exists() and json.loads(file.read_text())["step"] >= step

        self.scene.until(look, f"step {step}")
        assert not (folder / "status.json").exists(), "it is over already"
        return folder

    def end(self, deadline_s: float = DEADLINE_S) -> str:
        """The run's state once it is over."""

        def look() -> str | None:
            state = self.scene.client.run_state(self.dag_id, self.run_id)
            return state if state in ("success", "failed") else None

        return str(self.scene.until(look, "the end", deadline_s))

    def result(self) -> dict[str, Any]:
        return dict(self.scene.client.xcom(self.dag_id, self.run_id, "job"))

    def generations(self) -> int:
        """How many jobs it has made."""
        return sum(self.run_id in (folder / "spec.json").read_text() for folder in self.scene.folders())

    def clear(self) -> None:
        clear(self.scene.client, self.dag_id, self.run_id, "job", downstream=False)

    def mark(self, state: str) -> None:
        client, place = self.scene.client, f"/dags/{self.dag_id}/dagRuns/{self.run_id}/taskInstances/job"
        client._checked(client._send("PATCH", place, json={"new_state": state}))

    def log(self) -> str:
        return "\n".join(self.scene.client.log_end(self.task(), 500))


@contextmanager
def scene(folder: Path, **options: str) -> Iterator[Scene]:
    """An Airflow on the DAGs of jobs_dags.py, with the layout of Amazon MWAA; nothing of it is left afterwards."""
    dags, plugins, root = folder / "dags", folder / "plugins", folder / "storage"
    dags.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("jobs_dags.py"), dags)
    shutil.copy(PROJECT / "dags" / ".airflowignore", dags)
    shutil.copy(PROJECT / "dags" / "operations" / "janitor.py", dags)
    (dags / "include").symlink_to(PROJECT / "include")
    shutil.copytree(PROJECT / "plugins", plugins)
    (plugins / "fmops_plugins" / "probe.py").write_text(PROBE)
    options = {**OPTIONS, "FMOPS_STORAGE_ROOT": root.as_uri(), **options}
    with (
        LocalAirflow(
            home=home_with_database(folder / "airflow"), dags=dags, plugins=plugins, port=0, options=options
        ) as airflow,
        airflow.client() as client,
    ):
        found = Scene(airflow, client, root / "jobs")
        yield found
    processes.kill(found.processes())  # of a test that failed
    assert not marked(airflow.running.mark)
