"""A compose stack of the test's own: a copy of the project, its own names, ports and volumes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

PROJECT = Path(__file__).resolve().parents[2]
SECRETS = "/run/fmops"
ONE_SHOT = {"secrets", "airflow-init"}

T = TypeVar("T")


def copy_project(target: Path) -> None:
    """What a clone would hold: every file that git does not ignore, links as links."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listing.split("\0")):
        if os.path.lexists(PROJECT / name):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, target / name, follow_symlinks=False)


def compose_command() -> list[str]:
    """`docker compose` where the plugin is installed, else the older `docker-compose`."""
    if shutil.which("docker") is None:
        pytest.fail("these tests need Docker: there is no program `docker`")
    if (info := subprocess.run(["docker", "info"], capture_output=True, text=True)).returncode:
        pytest.fail(f"these tests need a Docker that answers: {info.stderr.strip()}")
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True)
    return ["docker", "compose"] if plugin.returncode == 0 else ["docker-compose"]


def wait_until(what: str, found: Callable[[], T | None], timeout_s: float) -> T:
    """The first result that is not None; AssertionError after timeout_s seconds."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if (result := found()) is not None:
            return result
        time.sleep(1)
    raise AssertionError(f"not within {timeout_s:.0f} s: {what}")


@dataclass(frozen=True)
class Stack:
    """One project of docker compose; every call raises CalledProcessError if it fails."""

    folder: Path
    name: str
    port: int
    compose: list[str]

    def run(self, *arguments: str, timeout_s: float = 900, check: bool = True) -> str:
        """A compose command; what it wrote to standard output."""
        # Nothing of the caller's environment may stand in for what a fresh clone lacks.
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("FMOPS_", "AIRFLOW_", "AWS_"))}
        names = ("FMOPS_PORT", "FMOPS_OPENSEARCH_PORT", "FMOPS_MLFLOW_PORT")
        ports = {name: str(self.port + number) for number, name in enumerate(names)}
        done = subprocess.run(
            [*self.compose, "--project-name", self.name, *arguments],
            cwd=self.folder,
            env=environment | ports,
            stdout=subprocess.PIPE,
            text=True,
            timeout=timeout_s,
            check=check,
        )
        return done.stdout

    def exec(self, service: str, *command: str, user: str | None = None) -> str:
        """What a command in a service's (first) container prints."""
        return self.run("exec", "-T", *(["--user", user] if user else []), service, *command)

    def containers(self) -> list[dict[str, Any]]:
        """`docker inspect` of each container of the project, ended ones too."""
        ids = _docker("ps", "-aq", "--filter", f"label=com.docker.compose.project={self.name}").split()
        return list(json.loads(_docker("inspect", *ids))) if ids else []

    def kill(self, *ids: str) -> None:
        """End containers at once, with all their processes; they stay down."""
        _docker("kill", "--signal", "KILL", *ids)

    def processes(self) -> Iterable[tuple[str, int, str]]:
        """(service, user id, command line) of every process of the running containers."""
        for container in self.containers():
            if container["State"]["Running"]:
                for line in _docker("top", container["Id"], "-eo", "pid,uid,args").splitlines()[1:]:
                    _pid, uid, command = line.split(maxsplit=2)
                    yield service_of(container), int(uid), command

    def wait_healthy(self, timeout_s: float) -> None:
        """Until the one-shots have ended well and every other container is healthy."""
        try:
            wait_until("all containers healthy", lambda: None if self._unready() else True, timeout_s)
        except AssertionError as error:
            unready = sorted(set(self._unready()))
            raise AssertionError(f"{error}: {unready}\n{self.run('logs', '--tail', '30', *unready)}") from None

    def _unready(self) -> list[str]:
        return [service_of(c) for c in self.containers() if not _is_ready(c)]

    def secrets(self) -> dict[str, str]:
        """Every secret by its file's name, read as root."""
        names = self.exec("postgres", "ls", SECRETS).split()
        return {name: self.exec("postgres", "cat", f"{SECRETS}/{name}") for name in names}


def service_of(container: dict[str, Any]) -> str:
    """The compose service that a container belongs to."""
    return str(container["Config"]["Labels"]["com.docker.compose.service"])


def _is_ready(container: dict[str, Any]) -> bool:
    state = container["State"]
    if service_of(container) in ONE_SHOT:
        return state["Status"] == "exited" and state["ExitCode"] == 0
    return bool(state["Health"]["Status"] == "healthy")


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout
