"""What a user reads while a run goes on."""

from __future__ import annotations

import re

import pytest

from local.home import AirflowError
from local.watch import follow
from tests.local.fake_api import FakeApi, task


def followed(api: FakeApi) -> tuple[str, list[str]]:
    """The run's final state, and the lines said on the way without their times and padding."""
    lines: list[str] = []
    with api.client() as client:
        state = follow(client, "d", "r", say=lines.append, sleep=lambda _s: None)
    return state, [re.sub(r"\s+", " ", re.sub(r"^ *[\d.]+ s  ", "", line)).rstrip() for line in lines]


def test_one_line_for_each_change_of_a_task() -> None:
    moments = [
        ("queued", []),
        ("running", [task("plan", None)]),
        ("running", [task("plan", "queued")]),
        ("running", [task("plan", "running")]),
        ("running", [task("plan", "running")]),
        ("running", [task("plan", "success"), task("check", "scheduled")]),
        ("success", [task("plan", "success"), task("check", "success")]),
    ]
    state, lines = followed(FakeApi(moments=moments))
    assert state == "success"
    assert lines == ["plan running", "plan success", "check success", "d success"]


def test_mapped_tasks_are_one_progress_line() -> None:
    def shards(*states: str | None) -> list[dict[str, object]]:
        return [task("embed.shard", state, map_index=i) for i, state in enumerate(states)]

    moments = [
        ("running", [task("embed.shard", None)]),
        ("running", shards("running", "running", "queued", None)),
        ("running", shards("success", "running", "up_for_retry", None)),
        ("success", shards("success", "success", "success", "success")),
    ]
    _, lines = followed(FakeApi(moments=moments))
    assert lines == [
        "embed.shard 0/4 done, 2 running",
        "embed.shard 1/4 done, 1 running, 1 up_for_retry",
        "embed.shard 4/4 done",
        "d success",
    ]


def test_a_repeated_try_is_told() -> None:
    moments = [
        ("running", [task("t", "up_for_retry")]),
        ("running", [task("t", "running", try_number=2)]),
        ("success", [task("t", "success", try_number=2)]),
    ]
    _, lines = followed(FakeApi(moments=moments))
    assert lines == ["t up_for_retry", "t running (try 2)", "t success (try 2)", "d success"]


def test_a_failure_shows_try_and_log_of_the_first_instance() -> None:
    tasks = [
        task("shard", "success", map_index=0),
        task("shard", "failed", map_index=2, try_number=3),
        task("shard", "failed", map_index=1, try_number=3),
        task("total", "upstream_failed", try_number=0),
    ]
    state, lines = followed(FakeApi(moments=[("failed", tasks)], logs=[{"event": "out of luck"}]))
    assert state == "failed"
    assert lines == [
        "shard 3/3 done, 2 failed",
        "total upstream_failed",
        "d failed",
        "shard[1] failed at try 3 (and 1 more like it); its log ends:",
        " out of luck",
    ]


def test_a_dead_airflow_ends_the_wait() -> None:
    def dead() -> None:
        raise AirflowError("airflow scheduler ended with status 1")

    api = FakeApi(moments=[("running", [])])
    with api.client() as client, pytest.raises(AirflowError, match="scheduler ended"):
        follow(client, "d", "r", check_alive=dead, sleep=lambda _s: None)


def test_it_looks_less_often_while_nothing_happens() -> None:
    moments = [("running", [task("plan", "running")])] * 10 + [("running", [task("plan", "success")])] * 3
    pauses: list[float] = []
    with FakeApi(moments=[*moments, ("success", [task("plan", "success")])]).client() as client:
        follow(client, "d", "r", say=lambda _line: None, sleep=pauses.append)
    assert pauses[0] == 1.0 and pauses[:10] == sorted(pauses[:10]) and pauses[9] == 4.0
    assert pauses[10] == 1.0, "after a change it looks at once"
