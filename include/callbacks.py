"""What happens when a task has failed for good: one readable line in its log, then the notifiers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

log = logging.getLogger(__name__)

Context = Mapping[str, Any]
"""Airflow's context of the failed task; not by its own type, since this module imports without Airflow."""

NOTIFIERS: tuple[Callable[[Context], None], ...] = ()
"""Called in order with the context of each failed task; notifiers for SNS, Slack and the like join here."""

_LONGEST_MESSAGE = 1000


def log_failure(context: Context) -> None:
    """Log one line that says what failed, then call every notifier; one that raises hides nothing.

    Airflow calls this in the task's own process after the last try. For a task that died without a word
    (killed, out of memory, machine lost) the DAG processor calls it, and then the context has no exception.
    """
    log.error("%s", failure_line(context))
    for notify in NOTIFIERS:
        try:
            notify(context)
        except Exception:
            log.exception("notifier %s failed; the task's own failure stands above", notify)


def failure_line(context: Context) -> str:
    """DAG, run, task, map index, try, error and where the log is, on one line."""
    ti = context.get("ti")
    place = f"{_of(ti, 'dag_id')} run {_of(ti, 'run_id')} task {_of(ti, 'task_id')}"
    map_index = getattr(ti, "map_index", None)
    if map_index is not None and map_index >= 0:
        place += f"[{map_index}]"
    return f"FAILED {place}, try {_of(ti, 'try_number')}: {_error(context)}; log: {_of(ti, 'log_url')}"


def _of(ti: object, name: str) -> str:
    value = getattr(ti, name, None)
    return "unknown" if value is None else str(value)


def _error(context: Context) -> str:
    error = context.get("exception")
    if error is None:
        return "no exception was reported (the process was killed or lost)"
    message = " ".join(str(error).split())[:_LONGEST_MESSAGE]
    return f"{type(error).__name__}: {message}" if isinstance(error, BaseException) else message
