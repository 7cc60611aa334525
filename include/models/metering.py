"""Every model call is metered: one usage event per call or batch, whoever calls.

Object stores cannot append, so a meter keeps its events in memory and writes them as one object when its block ends,
also when the block fails. Readers deduplicate by event id.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from include.contracts import UsageEvent
from include.storage import digest, location, run_key, write_bytes

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Who uses a model: what usage is reported by."""

    tenant: str
    use_case: str
    dag_id: str | None = None
    run_id: str | None = None
    task_id: str | None = None
    """With its map index and try number, so that each attempt writes an object of its own."""


@dataclass(kw_only=True)
class Meter(AbstractContextManager["Meter"]):
    """Collects usage events and writes them under `<root>/<tenant>/usage/<date>/` when its block ends."""

    root: str
    caller: Caller
    events: list[UsageEvent] = field(default_factory=list)

    def record(self, **what: Any) -> UsageEvent:
        """Add one event; the fields of UsageEvent but those that the caller gives."""
        who = self.caller
        event = UsageEvent(
            tenant=who.tenant,
            use_case=who.use_case,
            dag_id=who.dag_id,
            run_id=who.run_id,
            task_id=who.task_id,
            **what,
        )
        self.events.append(event)
        return event

    def flush(self) -> None:
        """Write what was collected as one JSON lines object named by its events; nothing if there is nothing."""
        if not self.events:
            return
        first = self.events[0]
        name = digest(*(event.event_id for event in self.events))[:16]
        run = run_key(first.run_id) if first.run_id else "interactive"
        folder = location(self.root) / first.tenant / "usage" / first.created_at.date().isoformat()
        lines = "".join(event.model_dump_json() + "\n" for event in self.events)
        write_bytes(folder / f"{run}-{name}.jsonl", lines.encode())
        self.events.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the events; if the block failed already, a failing write is logged and does not hide its error."""
        try:
            self.flush()
        except Exception:
            if error is None:
                raise
            log.exception("usage events of %s could not be written", self.caller)
