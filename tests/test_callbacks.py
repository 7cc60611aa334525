from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from include import callbacks
from include.callbacks import failure_line, log_failure


def context(map_index: int = -1, **more: Any) -> dict[str, Any]:
    ti = SimpleNamespace(
        dag_id="rag_ingestion",
        run_id="manual__1",
        task_id="embed.shard",
        map_index=map_index,
        try_number=3,
        log_url="http://localhost:8080/x",
    )
    return {"ti": ti, **more}


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            context(exception=ValueError("first\n  second")),
            "FAILED rag_ingestion run manual__1 task embed.shard, try 3: ValueError: first second; "
            "log: http://localhost:8080/x",
        ),
        (
            context(map_index=0, exception="refused by the scheduler"),
            "FAILED rag_ingestion run manual__1 task embed.shard[0], try 3: refused by the scheduler; "
            "log: http://localhost:8080/x",
        ),
        (
            context(),
            "FAILED rag_ingestion run manual__1 task embed.shard, try 3: no exception was reported "
            "(the process was killed or lost); log: http://localhost:8080/x",
        ),
        (
            {"exception": KeyError("k")},
            "FAILED unknown run unknown task unknown, try unknown: KeyError: 'k'; log: unknown",
        ),
    ],
    ids=["exception", "mapped", "killed", "no task instance"],
)
def test_failure_line(given: dict[str, Any], line: str) -> None:
    assert failure_line(given) == line


def test_a_long_message_is_cut() -> None:
    assert len(failure_line(context(exception=ValueError("x" * 100_000)))) < 1200


def test_notifiers(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Each is called with the context; one that raises hides neither the failure nor the next one."""
    heard: list[Any] = []

    def broken(given: Any) -> None:
        raise ConnectionError("the topic is gone")

    monkeypatch.setattr(callbacks, "NOTIFIERS", (heard.append, broken, heard.append))
    given = context(exception=ValueError("why"))
    with caplog.at_level(logging.ERROR, logger="include.callbacks"):
        log_failure(given)
    assert heard == [given, given]
    first, second = caplog.records
    assert "ValueError: why" in first.getMessage()
    assert "broken" in second.getMessage()
    assert second.exc_info and "the topic is gone" in str(second.exc_info[1])


def test_without_notifiers(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, logger="include.callbacks"):
        log_failure(context())
    assert len(caplog.records) == 1
