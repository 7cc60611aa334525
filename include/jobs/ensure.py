"""See that a job's output is there, whatever happened before: the one way by which a task starts a job."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from upath import UPath

from include.contracts import UsageEvent, now
from include.jobs.base import Backend
from include.jobs.output import JobOutput, known_output, publish, read_manifest
from include.jobs.source import read_source
from include.jobs.spec import JobSpec, Named, name_spec
from include.jobs.states import ERRORS, JobExistsError, OutputError, Status
from include.storage import digest, location, read_json, size_of, write_json

log = logging.getLogger(__name__)

GENERATIONS = 50
"""Tries of one job, of all attempts together, until somebody has to look."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """A job that this attempt owns, or the output that makes one unnecessary."""

    name: str = ""
    taken: Literal["", "active", "stopping"] = ""
    """What a job was when it was taken over from another attempt; empty if this one started it, or it had ended."""
    output: JobOutput | None = None


def named_spec(spec: JobSpec) -> Named:
    """The spec with its digests."""
    return name_spec(spec, read_source(spec.script))


def ensure(
    backend: Backend,
    named: Named,
    *,
    root: str,
    owner: str,
    on_submit: Callable[[str], object] = lambda name: None,
) -> Held:
    """The output that is there; else the job that makes it: one that runs, one that has ended well, or a new one.

    At most one job is started; on_submit is told its name before. A generation that ended badly is never looked at
    again: its name is spent.
    """
    kind = named.spec.kind
    _stop_outdated(backend, named, root)
    if not named.spec.force and (output := known_output(root, named)):
        log.info("nothing to run: %s made the output of these inputs, %s", output.job, output.output_uri)
        return Held(output=output)
    backend.check(named)
    for generation in range(1, GENERATIONS + 1):
        name = named.job_name(generation)
        status = backend.describe(kind, name)
        if status is None:
            try:
                on_submit(name)
                backend.submit(named, name, owner)
                log.info("started %s (%s)", name, backend.name)
                return Held(name=name)
            except JobExistsError:  # an answer was lost, or another attempt was faster
                status = backend.describe(kind, name)
        if status is not None and is_usable(status):
            backend.claim(kind, name, owner)
            log.info("%s is %s already (%s): not started again", name, status.state, backend.name)
            taken: Literal["", "active", "stopping"] = "stopping" if status.state == "stopping" else "active"
            return Held(name=name, taken="" if status.is_over else taken)
        log.info("%s is spent: %s", name, _told(status))
    raise OutputError(f"{named.job_name(1)} and {GENERATIONS - 1} generations after it ended badly")


def is_usable(status: Status) -> bool:
    """Whether a job runs, or has ended well and left all that it should.

    One that is stopping still runs: nobody knows whether it writes on, so it is waited for before another is started.
    """
    if status.state != "succeeded":
        return not status.is_over
    try:
        read_manifest(status.output_uri)
    except OutputError:
        return False
    return True


def result(backend: Backend, named: Named, name: str, status: Status | None, *, root: str) -> JobOutput:
    """What a job that is over has left, noted for whoever needs the same; a JobError by cause if it ended badly."""
    if status is None or not status.is_over:
        raise ERRORS["lost"](f"{name}: {_told(status)}, though it was said to be over")
    if status.state != "succeeded":
        raise ERRORS[status.cause or "lost"](f"{name} {_told(status)}")
    manifest = read_manifest(status.output_uri)
    output = JobOutput(
        tenant=named.spec.tenant,
        use_case=named.spec.use_case,
        name=named.spec.name,
        job=name,
        kind=named.spec.kind,
        backend=backend.name,
        inputs_digest=named.inputs_digest,
        output_uri=status.output_uri,
        bytes=sum(file.bytes for file in manifest.files),
        metrics=manifest.metrics,
        billed_s=status.billed_s,
        instance_type=status.instance_type,
    )
    publish(root, named, output)
    return output


def stop_if_owned(backend: Backend, kind: str, name: str, owner: str) -> bool:
    """Ask a job to end if it is still this attempt's; whether it was asked."""
    if backend.owner(kind, name) != owner:
        log.info("%s belongs to another attempt by now: left alone", name)
        return False
    backend.stop(kind, name)
    log.info("asked %s to stop", name)
    return True


def usage(spec: JobSpec, status: Status, backend: str) -> UsageEvent:
    """What the job used, to be priced; the same event however often its end is looked at."""
    return UsageEvent(
        event_id=digest(backend, status.name)[:32],
        tenant=spec.tenant,
        use_case=spec.use_case,
        kind="job",
        model=status.instance_type or "local",
        status="ok" if status.state == "succeeded" else "error",
        instance_seconds=status.billed_s,
        dag_id=spec.dag_id,
        run_id=spec.run_id,
        task_id=spec.task_id,
        error=status.message or None,
        created_at=status.ended_at or now(),
    )


def _stop_outdated(backend: Backend, named: Named, root: str) -> None:
    """Stop the job that an earlier attempt of the same task started from other inputs: nobody waits for it any more.

    A code release or a changed channel in the middle of a run gives a retried task another digest, and so another name.
    """
    file = _task_file(root, named.spec)
    mine = {"backend": backend.name, "kind": named.spec.kind, "job": f"{named.spec.name}-{named.job_digest}"}
    is_noted = size_of(file) is not None
    before: dict[str, Any] = read_json(file) if is_noted else mine
    if before != mine and before["backend"] == backend.name:
        for generation in range(1, GENERATIONS + 1):
            name = f"{before['job']}-g{generation}"
            status = backend.describe(before["kind"], name)
            if status is None:
                break
            if not status.is_over:
                log.warning("%s was started from other inputs than the task has now: it is stopped", name)
                backend.stop(before["kind"], name)
    if not is_noted or before != mine:
        write_json(file, mine)


def _task_file(root: str, spec: JobSpec) -> UPath:
    """Where a task notes which job it starts."""
    task = digest(spec.dag_id, spec.run_id, spec.task_id, str(spec.map_index))[:32]
    return location(root) / spec.tenant / "jobs" / "tasks" / f"{task}.json"


def _told(status: Status | None) -> str:
    if status is None:
        return "is not there"
    why = f" ({status.cause})" if status.cause else ""
    return f"{status.state}{why}: {status.message}" if status.message else f"{status.state}{why}"
