"""The pools that DAGs name, in a database with the table of pools alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from airflow import settings
from airflow.jobs.job import Job
from airflow.models.pool import Pool
from airflow.sdk.execution_time.task_runner import TaskRunnerMarker
from fmops_plugins.pools import JOBS, ensure_pool, first_slots, on_starting
from sqlalchemy import create_engine, select
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import StaticPool


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What opens sessions of the database."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Pool.__table__.create(engine)
    maker = sessionmaker(engine)
    monkeypatch.setattr(settings, "NonScopedSession", maker)
    yield maker
    engine.dispose()


def pools(sessions: Any) -> list[tuple[str, int, bool]]:
    with sessions() as session:
        return [(pool.pool, pool.slots, pool.include_deferred) for pool in session.scalars(select(Pool))]


def test_a_component_with_a_database_makes_it_and_a_task_does_not(sessions: Any) -> None:
    on_starting(component=TaskRunnerMarker())
    assert pools(sessions) == []
    Job()  # what a scheduler, a triggerer and a DAG processor start with: it calls the listeners
    assert pools(sessions) == [("jobs", 2, True), ("registry", 1, True)], "2 is what airflow.env says"


def test_one_that_is_there_is_left_as_it_is(sessions: Any) -> None:
    with sessions.begin() as session:
        session.add(Pool(pool=JOBS, slots=7, description="mine", include_deferred=False))
    ensure_pool(JOBS, 2, "")
    assert pools(sessions) == [("jobs", 7, False)]


def test_one_that_another_process_makes_meanwhile_stays(
    sessions: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def looked(session: Any, statement: Any) -> None:
        """Finds none; before it is made, another process makes one."""
        with sessions.begin() as other:
            other.add(Pool(pool=JOBS, slots=5, description="", include_deferred=True))

    monkeypatch.setattr("sqlalchemy.orm.Session.scalar", looked)
    with caplog.at_level(logging.WARNING):
        ensure_pool(JOBS, 2, "")
    assert pools(sessions) == [("jobs", 5, True)]
    assert caplog.messages == []


def test_a_database_that_refuses_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(settings, "NonScopedSession", sessionmaker(create_engine("sqlite://")))
    ensure_pool(JOBS, 2, "")
    assert len(caplog.messages) == 1
    assert "pool jobs cannot be made" in caplog.messages[0]
    assert "no such table" in caplog.messages[0]


@pytest.mark.parametrize("text", ["0", "-1", "2.5", "many", "2 3", "1e3", "9999999999", "²"])
def test_a_size_that_is_none_is_said_in_one_line_and_16_is_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    monkeypatch.setenv("AIRFLOW__FMOPS__JOB_SLOTS", text)
    assert first_slots() == 16
    assert caplog.messages == [f"setting job_slots={text!r} must be a whole number from 1: 16 is taken"]


@pytest.mark.parametrize(("text", "slots"), [("1", 1), (" 40 ", 40), ("", 16), (None, 16)])
def test_a_size_is_taken_and_none_is_16_without_a_word(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, text: str | None, slots: int
) -> None:
    monkeypatch.delenv("AIRFLOW__FMOPS__JOB_SLOTS")
    if text is not None:
        monkeypatch.setenv("AIRFLOW__FMOPS__JOB_SLOTS", text)
    assert first_slots() == slots
    assert caplog.messages == []


def test_the_projects_variable_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMOPS_JOB_SLOTS", "3")
    assert first_slots() == 3
