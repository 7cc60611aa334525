"""End jobs that nobody waits for any more: what a triggerer or a worker that died has left behind.

A task that is killed stops its job by itself. Where it could not, the job's tags still tell which task it was for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from include.config import Settings
from include.jobs.base import Backend, default_backend, open_backend
from include.jobs.spec import DEPLOYMENT_TAG, OWNER_TAG

log = logging.getLogger(__name__)

WAITING = frozenset(
    {"running", "deferred", "queued", "scheduled", "restarting", "up_for_retry", "up_for_reschedule", "awaiting_input"}
)
"""States of a task that waits for its job, or will take it over."""
TASK_TAGS = ("fmops:dag", "fmops:run", "fmops:task", "fmops:map-index")

TaskState = Callable[[str, str, str, int], str | None]
"""(dag, run, task, map index) to the task's state; "cleared" if it has none yet, None if there is no such task."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """A job that nobody waits for."""

    kind: str
    name: str
    reason: str


def backends(settings: Settings) -> list[Backend]:
    """Those that this deployment can have jobs on: the default one, and each other that its settings suffice for."""
    names = {default_backend(settings): None}
    if settings.job_folder or settings.root.startswith("file://"):
        names["local"] = None
    if settings.sagemaker_role:
        names["sagemaker"] = None
    return [open_backend(name, settings) for name in names]


def sweep(backend: Backend, deployment: str, task_state: TaskState, *, dry_run: bool = False) -> list[Left]:
    """Stop each active job of this deployment whose task is over or gone, and tell which; with dry_run, only tell.

    A job whose tags do not tell its task is left alone, as is one that another attempt takes over meanwhile.
    """
    found = []
    for kind, name, tags in list(backend.find({DEPLOYMENT_TAG: deployment})):
        reason = _reason(tags, task_state)
        if reason is None:
            log.info("%s: its task waits for it", name)
            continue
        if not reason:
            log.warning("%s: its tags do not tell its task: look at it yourself", name)
            continue
        if backend.owner(kind, name) != tags.get(OWNER_TAG):
            log.info("%s was taken over just now", name)
            continue
        log.warning("%s: %s%s", name, reason, "" if dry_run else ": it is stopped")
        if not dry_run:
            backend.stop(kind, name)
        found.append(Left(kind=kind, name=name, reason=reason))
    return found


def _reason(tags: Mapping[str, str], task_state: TaskState) -> str | None:
    """Why nobody waits for a job; None if somebody does, empty if it cannot be told."""
    if any(tag not in tags for tag in TASK_TAGS):
        return ""
    dag, run, task, index = (tags[tag] for tag in TASK_TAGS)
    state = task_state(dag, run, task, int(index))
    if state in WAITING or state == "cleared":
        return None
    place = f"task {task} of run {run} of {dag}"
    return f"{place} is gone" if state is None else f"{place} is {state}"
