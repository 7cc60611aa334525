"""The one operator that runs a job, wherever it runs; the only module of include/ that imports Airflow at its top.

    start -> output there? -> done
               | no: attach, take, or the next generation
               v
             waits inline, then frees its slot: a trigger looks at the job -> back here -> describe, judge, done

Whoever kills the task stops the job, if it is still this attempt's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from include.config import Settings, load_settings
from include.jobs.base import Backend, default_backend, open_backend
from include.jobs.ensure import ensure, named_spec, progress_line, result, stop_if_owned, usage
from include.jobs.output import JobOutput
from include.jobs.spec import Named, read_spec
from include.jobs.states import ERRORS, Status
from include.models.metering import Caller, Meter

if TYPE_CHECKING:
    from airflow.sdk import Context

STARTING_S = 3600.0
"""Beyond its maximum runtime, what a job may take to get a machine, its inputs, and to store its outputs."""
TAKEN_OVER_S = 60.0
"""A stop that hits a job within this time of its being taken over was meant for the attempt before: it runs again."""
INLINE_POLL_S = 1.0


class JobOperator(BaseOperator):
    """Runs the job that `spec` describes (a dict: see include/jobs/spec.py; what names the task is added here).

    Returns {"job", "output_uri", "bytes", "billed_s", "metrics"}. Raises UserError for a spec that cannot be meant,
    before anything starts, and a JobError by cause. `backend`: local or sagemaker; None: the target's own.
    `deferrable=False` waits in the worker.
    """

    template_fields = ("spec",)
    ui_color = "#e8f0d8"

    def __init__(
        self, *, spec: Mapping[str, Any] | Any, backend: str | None = None, deferrable: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.spec = spec
        self.backend = backend
        self.deferrable = deferrable
        self._stop: Callable[[], object] | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Start, attach to, or take the job; wait for it as long as a slot may be held."""
        ti = context["ti"]
        place = {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": ti.map_index}
        settings = load_settings()
        defaults = {"tenant": settings.tenant, "use_case": settings.use_case}
        named = named_spec(read_spec({**defaults, **self.spec, **place}))
        started = time.time()
        limit = self.execution_timeout.total_seconds() if self.execution_timeout else float("inf")
        deadline = started + min(limit, named.spec.max_runtime_s + STARTING_S)
        return self._ensure(settings, named, owner=str(ti.id), deadline=deadline)

    def resume(self, context: Context, event: dict[str, Any], **kept: Any) -> dict[str, Any]:
        """Go on after the trigger fired, in whatever worker."""
        held = _Held(named=Named.model_validate(kept.pop("named")), **kept)
        return self._judge(load_settings(), held, wait=False)

    def on_kill(self) -> None:
        """Stop the job while this process waits for it."""
        if self._stop:
            self._stop()

    def _ensure(self, settings: Settings, named: Named, *, owner: str, deadline: float) -> dict[str, Any]:
        backend = open_backend(self.backend or default_backend(settings), settings)
        found = ensure(backend, named, root=settings.root, owner=owner)
        if found.output:
            return _told(found.output)
        held = _Held(
            named=named, name=found.name, backend=backend.name, owner=owner, deadline=deadline, claimed=time.time()
        )
        return self._judge(settings, held, wait=True)

    def _judge(self, settings: Settings, held: _Held, *, wait: bool) -> dict[str, Any]:
        """Wait as long as this process may, then finish, defer, or end what took too long."""
        backend = open_backend(held.backend, settings)
        kind = held.named.spec.kind
        self._stop = lambda: stop_if_owned(backend, kind, held.name, held.owner)
        inline_s = settings.job_inline_s if self.deferrable else float("inf")
        status = self._watch(backend, held, until=min(held.deadline, time.time() + (inline_s if wait else 0)))
        self._stop = None
        if status is not None and not status.is_over:
            if time.time() < held.deadline:
                return self._defer(backend, held, settings)
            stop_if_owned(backend, kind, held.name, held.owner)
            raise ERRORS["stopped"](f"{held.name}: its time was up (max_runtime_s or execution_timeout)")
        if status is not None and _was_meant_for_another(status, held):
            self.log.warning(
                "%s was stopped by the clean-up of an earlier attempt: the next generation runs", held.name
            )
            return self._ensure(settings, held.named, owner=held.owner, deadline=held.deadline)
        return self._finish(backend, held, status, settings)

    def _watch(self, backend: Backend, held: _Held, until: float) -> Status | None:
        """Show log and progress until the job is over or the time is up; the last status."""
        kind, place, said = held.named.spec.kind, None, ""
        while True:
            lines, place = backend.log(kind, held.name, place)
            for line in lines:
                self.log.info("| %s", line)
            status = backend.describe(kind, held.name)
            if status is None:
                return None
            if status.progress and (line := progress_line(status.progress)) != said:
                self.log.info("%s: %s", held.name, said := line)
            if status.is_over or time.time() >= until:
                return status
            time.sleep(min(INLINE_POLL_S, max(0.0, until - time.time())))

    def _defer(self, backend: Backend, held: _Held, settings: Settings) -> dict[str, Any]:
        path, place = backend.watch(held.named.spec.kind, held.name)
        module, _, name = path.rpartition(".")
        trigger = getattr(import_module(module), name)(
            name=held.name,
            owner=held.owner,
            deadline=held.deadline,
            poll_s=settings.job_poll_s,
            made_at=time.time(),
            **place,
        )
        self.log.info("%s runs on; this task waits for it without a slot", held.name)
        # Without a time-out: Airflow would fail the task by it, and leave the job.
        self.defer(trigger=trigger, method_name="resume", kwargs=held.kept(), timeout=None)

    def _finish(self, backend: Backend, held: _Held, status: Status | None, settings: Settings) -> dict[str, Any]:
        spec = held.named.spec
        if status is not None:
            with Meter(root=settings.root, caller=Caller(tenant=spec.tenant, use_case=spec.use_case)) as meter:
                meter.events.append(usage(spec, status))
        return _told(result(backend, held.named, held.name, root=settings.root))


class _Held:
    """A job that an attempt waits for, and what it has to know of it after it was deferred."""

    def __init__(self, *, named: Named, name: str, backend: str, owner: str, deadline: float, claimed: float) -> None:
        self.named, self.name, self.backend = named, name, backend
        self.owner, self.deadline, self.claimed = owner, deadline, claimed

    def kept(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**vars(self), "named": self.named.model_dump(mode="json")}


def _was_meant_for_another(status: Status, held: _Held) -> bool:
    """Whether the job was stopped just after it was taken over: clearing a task and its clean-up are not ordered."""
    if status.state != "stopped" or status.cause != "stopped":
        return False
    ended = status.ended_at or datetime.now(UTC)
    return ended < datetime.fromtimestamp(held.claimed, UTC) + timedelta(seconds=TAKEN_OVER_S)


def _told(output: JobOutput) -> dict[str, Any]:
    """What the task hands on, small enough for an XCom."""
    return {
        "job": output.job,
        "output_uri": output.output_uri,
        "bytes": output.bytes,
        "billed_s": output.billed_s,
        "metrics": output.metrics,
    }
