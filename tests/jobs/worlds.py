"""A place where jobs run, as a test of whole task attempts sees it: this machine, and the AWS endpoint."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from airflow.sdk.exceptions import TaskDeferred
from fmops_plugins import jobs as triggers

from include.config import load_settings
from include.jobs import processes
from include.jobs.base import open_backend
from include.jobs.ensure import named_spec
from include.jobs.local import LocalBackend
from include.jobs.operator import JobOperator
from include.jobs.spec import read_spec
from include.jobs.states import Status
from include.storage import location
from tests.aws.endpoint import AwsEndpoint
from tests.jobs.trials import Trials, inject, until

BUCKET = "worlds"
T = TypeVar("T")


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run it in a loop of its own, and close what triggers keep open as long as their process."""

    async def run() -> T:
        try:
            return await work
        finally:
            for client in triggers._CLIENTS.pop(asyncio.get_running_loop(), {}).values():
                await (await client).close()

    return asyncio.run(run())


def place(run_id: str) -> dict[str, Any]:
    """The task instance that attempts are of."""
    return {"dag_id": "d", "run_id": run_id, "task_id": "job", "map_index": -1}


class Attempt:
    """One attempt of a task with a JobOperator, driven step by step as Airflow drives it."""

    def __init__(self, values: dict[str, Any], run_id: str, **arguments: Any) -> None:
        self.id = str(uuid.uuid4())
        self.run_id = run_id
        self.xcoms: dict[str, Any] = {}
        self.operator = JobOperator(task_id="job", spec=values, **arguments)
        ti = SimpleNamespace(id=self.id, xcom_push=self.xcoms.__setitem__, **place(run_id))
        self.context: Any = {"ti": ti}
        self.deferred: TaskDeferred | None = None

    def run(self) -> dict[str, Any] | None:
        """Until it is done (its result), or waits without a slot (None)."""
        return self._step(lambda: self.operator.execute(self.context))

    def resume(self, event: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any] | None:
        """As if the trigger had fired; changes are those of what was kept."""
        assert self.deferred is not None and self.deferred.method_name == "resume"
        kept = {**(self.deferred.kwargs or {}), **changes}
        return self._step(lambda: self.operator.resume(self.context, event or {"why": "over"}, **kept))

    def wait(self) -> dict[str, Any] | None:
        """Until the trigger fires, then go on."""
        return self.resume(self.fire())

    def fire(self, **changes: Any) -> dict[str, Any]:
        """The trigger's event; the trigger is made anew from what Airflow stores of it, as in a triggerer."""

        async def first() -> dict[str, Any]:
            async for event in self.trigger(**changes).run():
                return dict(event.payload)
            raise AssertionError("no event")

        return run_async(asyncio.wait_for(first(), 60))

    def trigger(self, **changes: Any) -> Any:
        assert self.deferred is not None
        path, arguments = self.deferred.trigger.serialize()
        made = getattr(triggers, path.rpartition(".")[2])(**{**arguments, **changes})
        made.task_instance = SimpleNamespace(**place(self.run_id))
        return made

    def kill(self, **changes: Any) -> None:
        """What the triggerer does once the task was cleared or marked."""
        run_async(self.trigger(**changes).on_kill())

    @property
    def job(self) -> str:
        return str(self.xcoms["fmops_job"]["name"])

    def _step(self, call: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        try:
            return call()
        except TaskDeferred as deferred:
            self.deferred = deferred
            return None


class World:
    """What a test asks of either place."""

    backend_name: str

    def __init__(self) -> None:
        self.settings = load_settings()
        self.run_id = f"run-{uuid.uuid4().hex}"  # the logs of an endpoint's jobs stay, by their names
        self.backend = open_backend(self.backend_name, self.settings)

    def values(self, act: str = "count", **changes: Any) -> dict[str, Any]:
        parameters = {"act": act, **changes.pop("parameters", {})}
        values = {"name": "trial", "script": "include.trial", "hyperparameters": parameters, "max_runtime_s": 120}
        return values | {"tenant": "t", "use_case": "u"} | changes

    def attempt(self, act: str = "count", **changes: Any) -> Attempt:
        return self.again(self.values(act, **changes))

    def finish(self, attempt: Attempt) -> dict[str, Any]:
        """What an attempt's job comes to, whether it ends before the slot is freed or after."""
        done = attempt.run()
        if done is None:
            self.until_state(attempt.job, "succeeded")
            done = attempt.resume()
        assert done is not None
        return done

    def again(self, values: dict[str, Any], **arguments: Any) -> Attempt:
        """Another attempt of the same task."""
        return Attempt(values, self.run_id, backend=self.backend_name, **arguments)

    def name(self, generation: int, act: str = "count", **changes: Any) -> str:
        return named_spec(read_spec({**self.values(act, **changes), **place(self.run_id)})).job_name(generation)

    def status(self, name: str) -> Status | None:
        return self.backend.describe("training", name)

    def state(self, name: str) -> str:
        status = self.status(name)
        return status.state if status else "none"

    def until_state(self, name: str, *states: str) -> Status:
        found = until(lambda: status if (status := self.status(name)) and status.state in states else None)
        assert found
        return found

    def at_hold(self, name: str) -> None:
        """Once a script that counts holds."""
        until(lambda: any("fmops-progress" in line for line in self.backend.log("training", name)[0]))

    def active(self) -> list[str]:
        """Names of all jobs that have not ended, found by other means than the backend's where there are any."""
        raise NotImplementedError

    def made(self) -> int:
        """How many jobs there ever were."""
        raise NotImplementedError

    def processes(self) -> int:
        """Living processes of all jobs."""
        raise NotImplementedError


class LocalWorld(World):
    backend_name = "local"

    def __init__(self, trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.trials, self.monkeypatch = trials, monkeypatch

    def active(self) -> list[str]:
        folders = [folder for folder in self.trials.folder.glob("[!.]*-g*") if not (folder / "status.json").exists()]
        return [folder.name for folder in folders]

    def made(self) -> int:
        return len(list(self.trials.folder.glob("[!.]*-g*")))

    def processes(self) -> int:
        return len(self.trials.processes())

    def hold_back(self) -> None:
        """The next job stays in its state `starting`: nobody starts its supervisor."""
        self.monkeypatch.setattr(LocalBackend, "_start", lambda *_: None)

    def start_slowly(self) -> None:
        """Jobs started from now on are not over before they have been looked at; here none is."""

    def stop_slowly(self) -> None:
        """Jobs started from now on take their time to end."""
        inject(self.monkeypatch, "s.GRACE_S = 60")

    def finish_stopping(self, name: str) -> None:
        self.trials.script(name).kill()

    def lose(self, name: str) -> None:
        """Whoever runs it is gone, as after a power cut."""
        processes.kill(self.trials.processes(name).values())

    def forget(self, name: str) -> None:
        self.lose(name)
        shutil.rmtree(self.trials.folder / name)

    def fault(self, kind: str) -> None:
        pytest.skip(f"nothing on this machine can be {kind}")


class AwsWorld(World):
    backend_name = "sagemaker"

    def __init__(self, aws: AwsEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.aws = aws

    def active(self) -> list[str]:
        return [job["name"] for job in self.aws.jobs() if job["status"] in ("InProgress", "Stopping")]

    def made(self) -> int:
        return len(self.aws.jobs())

    def processes(self) -> int:
        return len(self.aws.processes())

    def hold_back(self) -> None:
        self.aws.set_pace(phase_s=60)

    def start_slowly(self) -> None:
        self.aws.set_pace(phase_s=0.5)

    def stop_slowly(self) -> None:
        self.aws.set_pace(stop_grace_s=60)

    def finish_stopping(self, name: str) -> None:
        for process in self.aws.processes():
            if process["job"] == name:
                os.kill(process["pid"], signal.SIGKILL)

    def lose(self, name: str) -> None:
        raise NotImplementedError("the service loses a job by a fault: see fault()")

    def forget(self, name: str) -> None:
        self.aws.reset()

    def fault(self, kind: str) -> None:
        if kind == "lost":
            self.aws.plan("capacity", message="InternalServerError: We encountered an internal error.")
        else:
            self.aws.plan(kind)


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts run outside of Airflow, free their slot at once, and look often."""
    from airflow.sdk.bases.operator import ExecutorSafeguard

    monkeypatch.setattr(ExecutorSafeguard, "test_mode", True)
    monkeypatch.setattr(triggers, "NOT_BEFORE_S", 0.0)
    for name, value in {"INLINE_S": 0, "POLL_S": 0.1, "LOST_AFTER_S": 2}.items():
        monkeypatch.setenv(f"FMOPS_JOB_{name}", str(value))

    async def killed(_: Any) -> str:
        return "failed"

    monkeypatch.setattr(triggers, "task_state", killed)


@pytest.fixture(params=["local", "sagemaker"])
def world(request: pytest.FixtureRequest, attempts: None) -> Iterator[World]:
    """Each place in turn."""
    yield request.getfixturevalue(f"{request.param}_world")


@pytest.fixture
def local_world(trials: Trials, attempts: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LocalWorld:
    monkeypatch.setenv("FMOPS_STORAGE_ROOT", tmp_path.as_uri())
    return LocalWorld(trials, monkeypatch)


@pytest.fixture
def sagemaker_world(trials: Trials, attempts: None, aws: AwsEndpoint, monkeypatch: pytest.MonkeyPatch) -> AwsWorld:
    """The scripts are those of `trials`; the storage root is new for each test."""
    aws.client("s3").create_bucket(Bucket=BUCKET)
    for name, value in aws.deployment(f"s3://{BUCKET}/{uuid.uuid4().hex}").items():
        monkeypatch.setenv(name, value)
    return AwsWorld(aws, monkeypatch)


@pytest.fixture
def small_disk(local_world: LocalWorld, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The job folder lies on a disk of two MiB; needs the right to mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)], capture_output=True)
    if mount.returncode:
        pytest.skip(f"no small disk can be mounted here: {mount.stderr.decode().strip()}")
    try:
        monkeypatch.setenv("FMOPS_JOB_FOLDER", str(folder))
        local_world.trials.folder = folder
        local_world.__init__(local_world.trials, monkeypatch)  # type: ignore[misc]
        yield folder
        left = list(local_world.trials.processes().values())
        processes.kill(left)
        processes.wait(left, 10)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def delete_manifest(status: Status) -> None:
    """The output of a job is not whole any more."""
    (location(status.output_uri) / "manifest.json").unlink()
