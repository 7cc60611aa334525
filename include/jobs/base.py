"""What a place where jobs run must be able to do; adding one is writing a module with this interface."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, Protocol

from include.config import Settings
from include.errors import UserError
from include.jobs.spec import Named
from include.jobs.states import Status

BACKENDS = {
    "local": "include.jobs.local:LocalBackend",
    "sagemaker": "include.jobs.sagemaker:SageMakerBackend",
}
TARGET_DEFAULT = {"local": "local", "aws": "sagemaker"}


class Backend(Protocol):
    """A place where jobs run. Every call is safe to repeat, and none waits for a job.

    ConnectionError, TimeoutError and BusyError mean that a later call may do. A job is known by its kind and its name.
    """

    name: str
    inline_poll_s: float
    """Between two looks at a job that a task waits for in its slot, in seconds."""
    poll_s: float
    """Between two looks afterwards."""

    def check(self, named: Named) -> None:
        """UserError in one line if this place cannot run the job; nothing is spent."""

    def submit(self, named: Named, name: str, owner: str) -> None:
        """Start it under this name. JobExistsError if the name was used before, by whoever; a JobError if refused."""

    def describe(self, kind: str, name: str) -> Status | None:
        """What is known of it now; None if there never was such a job."""

    def claim(self, kind: str, name: str, owner: str) -> None:
        """Make it this task attempt's: nobody else's clean-up may stop it from now on."""

    def owner(self, kind: str, name: str) -> str | None:
        """Whose it is."""

    def stop(self, kind: str, name: str) -> None:
        """Ask it to end; returns at once. Nothing happens to a job that is over, or not there."""

    def log(self, kind: str, name: str, after: Any = None) -> tuple[list[str], Any]:
        """New lines of its log, some hundred at most, and where to go on; `after` is what the last call returned."""

    def watch(self, kind: str, name: str) -> tuple[str, dict[str, Any]]:
        """Class path and arguments (plain JSON) of what looks at it in the triggerer: see fmops_plugins.jobs."""

    def find(self, tags: Mapping[str, str]) -> Iterator[tuple[str, str, dict[str, str]]]:
        """(kind, name, tags) of each job that has not ended and has these tags; with OWNER_TAG, and perhaps others."""


def default_backend(settings: Settings) -> str:
    """The setting's, or the target's own."""
    return settings.job_backend or TARGET_DEFAULT[settings.target]


def open_backend(name: str, settings: Settings) -> Backend:
    """The backend of that name; UserError naming those that are known."""
    if name not in BACKENDS:
        raise UserError(f"job_backend={name!r} is not known; choose among {', '.join(BACKENDS)}")
    module, _, attribute = BACKENDS[name].partition(":")
    backend: Backend = getattr(import_module(module), attribute)(settings)
    return backend
