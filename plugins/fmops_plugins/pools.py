"""Makes the pools that DAGs name, where they are not there yet.

`jobs` says how many jobs run at once, those of deferred tasks counted; its first size is the setting job_slots.
`registry` has one slot: what releases models and shows them in MLflow has one writer. From then on they belong to
whoever changes them in the UI.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from airflow.listeners import hookimpl

log = logging.getLogger(__name__)

JOBS, REGISTRY = "jobs", "registry"
DEFAULT_SLOTS = 16


@hookimpl
def on_starting(component: Any) -> None:
    """Called in each process that starts, a task's too; what a task starts with is no airflow.jobs.job.Job.

    A Job is a scheduler, a triggerer or a DAG processor: it is not told yet which, and all of them have the database.
    """
    if type(component).__name__ == "Job":
        ensure_pool(JOBS, first_slots(), "Jobs at once, each until it ends (FMOps)")
        ensure_pool(REGISTRY, 1, "Writers of the model registry (FMOps)")


def ensure_pool(name: str, slots: int, description: str) -> None:
    """Make a pool unless there is one; what prevents it is logged in a line, and stops nothing."""
    from airflow.models.pool import Pool
    from airflow.utils.session import create_session
    from sqlalchemy import select
    from sqlalchemy.exc import IntegrityError, SQLAlchemyError

    try:
        with create_session(scoped=False) as session:
            if session.scalar(select(Pool.id).where(Pool.pool == name)) is None:
                session.add(Pool(pool=name, slots=slots, description=description, include_deferred=True))
    except IntegrityError:
        log.debug("pool %s was made by another process meanwhile", name)
    except SQLAlchemyError as error:
        log.warning("pool %s cannot be made: %s", name, str(error).partition("\n")[0])


def first_slots() -> int:
    """The setting job_slots; DEFAULT_SLOTS if it is not set, or, with a line in the log, if it is no size."""
    from fmops_plugins.settings import setting

    text = setting("job_slots").strip()
    if re.fullmatch("[1-9][0-9]{0,8}", text):
        return int(text)
    if text:
        log.warning("setting job_slots=%r must be a whole number from 1: %d is taken", text, DEFAULT_SLOTS)
    return DEFAULT_SLOTS
