"""The one operator that runs a job, wherever it runs; the only module of include/ that imports Airflow at its top.

    start -> output there? -> done
               | no: attach, take, or the next generation
               v
             waits inline, then frees its slot: a trigger looks at the job -> back here -> describe, judge, done

Whoever kills the task stops the job, if it is still this attempt's. docs/jobs.md has the table of what follows what.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from include.config import Settings, load_settings
from include.errors import PermanentError, UserError
from include.jobs.base import Backend, default_backend, open_backend
from include.jobs.ensure import ensure, named_spec, result, stop_if_owned, usage
from include.jobs.output import JobOutput
from include.jobs.progress import progress_line, read_progress
from include.jobs.spec import Named, deployment_id, read_spec
from include.jobs.states import ERRORS, Status
from include.models.metering import Caller, Meter

if TYPE_CHECKING:
    from airflow.sdk import Context

STARTING_S = 7200.0
"""Beyond its maximum runtime, what a job may take to get a machine, its inputs, and to store its outputs."""
TAKEN_OVER_S = {"": 0.0, "active": 60.0, "stopping": 24 * 3600.0}
"""A stop that hits a job within this time of its being taken over, by what it was then, was meant for the attempt
before: clearing a task and its clean-up are not ordered. It runs again."""
KILL_S = 4.0
"""What a killed task waits for its stop to be said: Airflow kills it for good five seconds after the first signal."""
LOG_PARTS = 40
"""Of some hundred lines each, that are shown of what a job wrote while its task waited without a slot."""
XCOM_KEY = "fmops_job"
"""Under it lies which job the task waits for, for the page behind the task's button (fmops_plugins)."""


class JobOperator(BaseOperator):
    """Runs the job that `spec` describes (a dict: see include/jobs/spec.py; what names the task is added here).

    `channels`: more of the spec's, by name: a URI, or what an earlier JobOperator has returned, whose output it is.
    Returns {"job", "output_uri", "bytes", "billed_s", "metrics"}. Raises UserError for a spec that cannot be meant,
    before anything starts, and a JobError by cause. `backend`: local or sagemaker; None: the target's own.
    `deferrable=False` waits in the worker.
    """

    template_fields = ("spec", "channels")
    ui_color = "#e8f0d8"

    def __init__(
        self,
        *,
        spec: Mapping[str, Any] | Any,
        channels: Mapping[str, Any] | None = None,
        backend: str | None = None,
        deferrable: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.spec = spec
        self.channels = channels or {}
        self.backend = backend
        self.deferrable = deferrable
        self._held: _Held | None = None
        self._is_killed = False
        self._log_fault = ""

    def execute(self, context: Context) -> dict[str, Any]:
        """Start, attach to, or take the job; wait for it as long as a slot may be held."""
        ti = context["ti"]
        place = {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": ti.map_index}
        settings = load_settings()
        defaults = {"tenant": settings.tenant, "use_case": settings.use_case}
        place["deployment"] = deployment_id(settings.root)
        given = {name: one["output_uri"] if isinstance(one, Mapping) else one for name, one in self.channels.items()}
        channels = {**self.spec.get("channels", {}), **given}
        named = named_spec(read_spec({**defaults, **self.spec, **place, "channels": channels}))
        limit = self.execution_timeout.total_seconds() if self.execution_timeout else float("inf")
        deadline = time.time() + min(limit, named.spec.max_runtime_s + STARTING_S)
        return self._ensure(context, settings, named, deadline)

    def resume(self, context: Context, event: dict[str, Any], **kept: Any) -> dict[str, Any]:
        """Go on after the trigger fired, in whatever worker."""
        held = _Held(**{**kept, "named": Named.model_validate(kept["named"])})
        settings = load_settings()
        return self._judge(context, settings, open_backend(held.backend, settings), held, inline_s=0.0)

    def on_kill(self) -> None:
        """Stop the job; called within a signal's handler, so by a thread with clients of its own."""
        self._is_killed = True  # of a job that is being started just now: _judge() looks at it
        if self._held is None:
            return
        thread = threading.Thread(target=_stop, args=(load_settings(), self._held))
        thread.start()
        thread.join(KILL_S)

    def _ensure(self, context: Context, settings: Settings, named: Named, deadline: float) -> dict[str, Any]:
        backend = open_backend(self.backend or default_backend(settings), settings)
        owner = str(context["ti"].id)

        def hold(name: str, taken: str = "") -> _Held:
            ours_from = time.time() + TAKEN_OVER_S[taken]
            self._held = _Held(
                named=named, name=name, backend=backend.name, owner=owner, deadline=deadline, ours_from=ours_from
            )
            return self._held

        found = ensure(backend, named, root=settings.root, owner=owner, on_submit=hold)
        if found.output:
            return _told(found.output)
        held = hold(found.name, found.taken)
        _, place = backend.watch(named.spec.kind, found.name)
        value = {"backend": backend.name, "kind": named.spec.kind, "name": found.name, **place}
        context["ti"].xcom_push(XCOM_KEY, value)
        inline_s = settings.job_inline_s if self.deferrable else float("inf")
        return self._judge(context, settings, backend, held, inline_s=inline_s)

    def _judge(
        self, context: Context, settings: Settings, backend: Backend, held: _Held, *, inline_s: float
    ) -> dict[str, Any]:
        """Wait as long as this process may, then finish, defer, or end what took too long."""
        self._held = held
        if self._is_killed:
            _stop(settings, held)
        try:
            status = self._watch(backend, held, settings, until=min(held.deadline, time.time() + inline_s))
        except (UserError, PermanentError, PermissionError):  # not retried: nobody would wait for the job any more
            self._try_to_stop(settings, held)
            raise
        if status is not None and not status.is_over:
            if time.time() < held.deadline:
                return self._defer(backend, held)
            stop_if_owned(backend, held.named.spec.kind, held.name, held.owner)
            raise ERRORS["timed_out"](f"{held.name}: its time was up (max_runtime_s or execution_timeout)")
        if status is not None and not self._is_killed and _was_meant_for_another(status, held):
            self.log.warning("%s was stopped by the clean-up of an earlier attempt: the next one runs", held.name)
            self._held = None
            return self._ensure(context, settings, named_spec(held.named.spec), held.deadline)
        return self._finish(backend, held, status, settings)

    def _try_to_stop(self, settings: Settings, held: _Held) -> None:
        """Stop it while another error is on its way."""
        try:
            _stop(settings, held)
        except Exception:
            self.log.exception("%s could not be stopped: the DAG janitor tries again", held.name)

    def _watch(self, backend: Backend, held: _Held, settings: Settings, until: float) -> Status | None:
        """Show log and progress until the job is over or the time is up; the last status."""
        kind, begun, said = held.named.spec.kind, time.time(), ""
        while True:
            status = backend.describe(kind, held.name)
            is_last = status is None or status.is_over or time.time() >= until
            told = self._show_log(backend, held, parts=LOG_PARTS if is_last else 1)
            progress = told or (status.progress if status is not None else {})
            if progress and (line := progress_line(progress)) != said:
                self.log.info("%s: %s", held.name, said := line)
            if is_last:
                return status
            wait_s = backend.inline_poll_s if time.time() - begun < settings.job_inline_s else backend.poll_s
            time.sleep(max(0.0, min(wait_s, until - time.time())))

    def _show_log(self, backend: Backend, held: _Held, parts: int) -> dict[str, Any] | None:
        """Show new lines of the job's log; the last progress among them. A log that is out of reach fails nothing."""
        progress = None
        for _ in range(parts):
            try:
                lines, held.log_place = backend.log(held.named.spec.kind, held.name, held.log_place)
            except Exception as error:
                held.log_place = None  # a place in it expires after a day: the next look begins anew
                if str(error) != self._log_fault:
                    self._log_fault = str(error)
                    self.log.warning("the log of %s cannot be read: %s", held.name, error)
                break
            for line in lines:
                if (found := read_progress(line)) is not None:
                    progress = found
                else:
                    self.log.info("| %s", line)
            if not lines:
                break
        return progress

    def _defer(self, backend: Backend, held: _Held) -> dict[str, Any]:
        path, place = backend.watch(held.named.spec.kind, held.name)
        module, _, name = path.rpartition(".")
        trigger = getattr(import_module(module), name)(
            name=held.name,
            owner=held.owner,
            deadline=held.deadline,
            poll_s=backend.poll_s,
            made_at=time.time(),
            **place,
        )
        self.log.info("%s runs on; this task waits for it without a slot", held.name)
        self._held = None  # from here on the trigger stops it
        # Without a time-out: Airflow would fail the task by it, and leave the job.
        self.defer(trigger=trigger, method_name="resume", kwargs=held.kept(), timeout=None)

    def _finish(self, backend: Backend, held: _Held, status: Status | None, settings: Settings) -> dict[str, Any]:
        spec = held.named.spec
        if status is not None:
            with Meter(root=settings.root, caller=Caller(tenant=spec.tenant, use_case=spec.use_case)) as meter:
                meter.events.append(usage(spec, status, backend.name))
        output = result(backend, held.named, held.name, status, root=settings.root)
        self.log.info("%s succeeded after %.0f s: %s", output.job, output.billed_s, output.output_uri)
        return _told(output)


class _Held:
    """A job that an attempt waits for, and what it has to know of it after it was deferred."""

    def __init__(
        self,
        *,
        named: Named,
        name: str,
        backend: str,
        owner: str,
        deadline: float,
        ours_from: float,
        log_place: Any = None,
    ) -> None:
        self.named, self.name, self.backend = named, name, backend
        self.owner, self.deadline = owner, deadline
        self.ours_from = ours_from
        """A stop before this time (Unix, seconds) was meant for another attempt."""
        self.log_place = log_place
        """Where the log is to be read on."""

    def kept(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**vars(self), "named": self.named.model_dump(mode="json")}


def _stop(settings: Settings, held: _Held) -> None:
    """Ask the job to end if it is still this attempt's."""
    stop_if_owned(open_backend(held.backend, settings), held.named.spec.kind, held.name, held.owner)


def _was_meant_for_another(status: Status, held: _Held) -> bool:
    """Whether the job was stopped too early for the stop to be meant for this attempt."""
    asked = status.stop_asked_at or status.ended_at or datetime.now(UTC)
    return (status.state, status.cause) == ("stopped", "stopped") and asked.timestamp() < held.ours_from


def _told(output: JobOutput) -> dict[str, Any]:
    """What the task hands on, small enough for an XCom."""
    return {
        "job": output.job,
        "output_uri": output.output_uri,
        "bytes": output.bytes,
        "billed_s": output.billed_s,
        "metrics": output.metrics,
    }
