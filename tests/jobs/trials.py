"""Local jobs that tests start: a backend with short times, whose scripts are tests/jobs/trial.py and the project's."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

import include
from include.config import Settings
from include.jobs import local, source
from include.jobs.ensure import named_spec
from include.jobs.guard import ALL
from include.jobs.local import LocalBackend
from include.jobs.spec import JobSpec, Named
from include.jobs.states import Status

T = TypeVar("T")

INCLUDE = Path(include.__file__).parent
SHORT = (
    "from include.jobs import supervisor as s; import sys; s.BEAT_S, s.GRACE_S = 0.2, 0.6; {more}; s.main(sys.argv[1:])"
)
DEADLINE_S = 30.0


class Trials:
    """A backend, and what a test asks of it again and again."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder / "jobs"
        self.texts = folder / "texts"
        self.texts.mkdir(exist_ok=True)
        (self.texts / "a.txt").write_text("a line\n")
        self.settings = Settings(storage_root=folder.as_uri(), job_lost_after_s=2, **settings)
        self.backend = LocalBackend(self.settings)

    def named(self, act: str = "count", **values: Any) -> Named:
        parameters = {"act": act, **values.pop("parameters", {})}
        spec = {
            "name": "trial", "script": "include.trial", "hyperparameters": parameters, "max_runtime_s": 120,
            "channels": {"texts": f"file://{self.texts}"}, "tenant": "t", "use_case": "u",
            "dag_id": "d", "run_id": "r", "task_id": str(self.folder),
        }  # fmt: skip
        return named_spec(JobSpec.model_validate(spec | values))

    def start(self, act: str = "count", generation: int = 1, **values: Any) -> str:
        named = self.named(act, **values)
        name = named.job_name(generation)
        self.backend.submit(named, name, "me")
        return name

    def status(self, name: str) -> Status:
        status = self.backend.describe("training", name)
        assert status is not None
        return status

    def end(self, name: str) -> Status:
        """The status once it is over."""
        return until(lambda: status if (status := self.status(name)).is_over else None)

    def none_left(self, name: str) -> None:
        """Once a job that is over has no process: its supervisor ends right after it has said so."""
        until(lambda: not self.processes(name))

    def at_step(self, name: str, step: int = 1) -> None:
        """Once the script has told that step."""
        until(lambda: self.status(name).progress.get("step") == step)

    def processes(self, name: str | None = None) -> dict[int, psutil.Process]:
        """Of one job, or of all here, found by another way than the product's: its folder in their environment."""
        folder = str(self.folder / name) if name else str(self.folder)
        return {process.pid: process for process in psutil.process_iter() if folder in _place(process)}

    def supervisor(self, name: str) -> psutil.Process:
        return next(process for process in self.processes(name).values() if "--detach" in process.cmdline())

    def script(self, name: str) -> psutil.Process:
        """The script's own process; its guard is a fork of it, and no group's leader."""
        found = [p for p in self.processes(name).values() if p.cmdline()[-1].endswith("fmops_job.py")]
        return next(process for process in found if os.getpgid(process.pid) == process.pid)


def until(look: Callable[[], T | None]) -> T:
    """What `look` finds, once it finds something."""
    limit = time.monotonic() + DEADLINE_S
    while not (found := look()):
        assert time.monotonic() < limit, "nothing came of it"
        time.sleep(0.02)
    return found


def inject(monkeypatch: pytest.MonkeyPatch, more: str = "0") -> None:
    """Give the supervisors that are started from now on short times, and a fault."""
    monkeypatch.setattr(local, "SUPERVISOR", ("-c", SHORT.format(more=more)))


@pytest.fixture
def trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trials]:
    copy = tmp_path / "project" / "include"
    shutil.copytree(INCLUDE / "jobs", copy / "jobs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(INCLUDE / "__init__.py", copy)
    shutil.copy(Path(__file__).with_name("trial.py"), copy)
    monkeypatch.setattr(source, "FOLDER", copy)
    monkeypatch.setattr(local, "CONFIRM_S", 1.0)
    inject(monkeypatch)
    trials = Trials(tmp_path)
    yield trials
    for process in trials.processes().values():
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _place(process: psutil.Process) -> str:
    try:
        environment = process.environ()
        return environment.get("FMOPS_ML_ROOT", "") if ALL in environment and process.pid != os.getpid() else ""
    except psutil.Error:
        return ""
