"""What every task of every DAG starts from: owner, retries by error class, and who hears of a failure."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from include.callbacks import log_failure
from include.errors import (
    BusyError,
    DocumentError,
    DriftError,
    GateError,
    PermanentError,
    StateMovedError,
    ToleranceError,
    UserError,
)

if TYPE_CHECKING:
    from airflow.sdk import ExceptionRetryPolicy

# The one table of what a second try can help. Classes, never import paths: Airflow imports a path while it
# parses the DAG, which would load the very libraries that must not be loaded then; so whoever calls such a
# library raises one of these. What is in neither list is retried too: a worker that saw half a deployment
# raises ImportError, and recovers.
RETRY_CANNOT_HELP: tuple[type[Exception], ...] = (
    UserError,
    DocumentError,
    StateMovedError,
    DriftError,
    ToleranceError,
    GateError,
    PermanentError,
    PermissionError,
)
RETRY_MAY_HELP: tuple[type[Exception], ...] = (ConnectionError, TimeoutError, BusyError)


def default_args(owner: str = "fmops") -> dict[str, Any]:
    """The `default_args` of a DAG; a task may still override each."""
    return {
        "owner": owner,
        "retries": 2,
        "retry_delay": timedelta(seconds=10),
        "retry_exponential_backoff": 3.0,  # so 10-20 s, then 30-60 s: time for a throttle to pass
        "max_retry_delay": timedelta(minutes=10),
        "retry_policy": retry_policy(),
        "on_failure_callback": [log_failure],
    }


def retry_policy() -> ExceptionRetryPolicy:
    """The table above as Airflow takes it: consulted in the task's process, with `retries` as the limit."""
    # Imported here, where a DAG file has loaded Airflow already: the rest of include/ works without it.
    from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule

    return ExceptionRetryPolicy(
        [
            RetryRule(list(RETRY_CANNOT_HELP), RetryAction.FAIL, reason="a second try cannot help"),
            RetryRule(list(RETRY_MAY_HELP), RetryAction.RETRY, reason="network or service; may pass"),
        ]
    )
