"""What the page makes of what a job wrote."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fmops_plugins.job_view import NUM_LINES, JobView, one_line, read_json, read_time, split_log

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def test_the_log_is_split_into_its_last_lines_and_the_last_progress() -> None:
    lines = ["begin", 'fmops-progress {"step": 1}', "middle", 'algo-1: fmops-progress {"step": 2}', "end"]
    assert split_log(lines) == (["begin", "middle", "end"], 3, {"step": 2})
    assert split_log(["begin"]) == (["begin"], None, {})
    many = [str(number) for number in range(NUM_LINES + 1)]
    assert split_log(many)[0] == many[1:]


def test_what_only_looks_like_progress_is_a_line() -> None:
    for line in ("fmops-progress {", "fmops-progress [1]", "fmops-progress NaN", "fmops-progress " + "[" * 100_000):
        lines, index, progress = split_log([line])
        assert (lines, index, progress) == ([line[:2000]], None, {})


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("\x1b[1;32mgreen\x1b[0m", "green"),
        ("10%\r 50%\r100%", "100%"),
        ("end\r", "end"),
        ("a\tb", "a\tb"),
        ("nul\x00 bell\x07 back\x08", "nul\ufffd bell\ufffd back\ufffd"),
        ("\u202egnp.exe", "\ufffdgnp.exe"),
        ("x" * 5000, "x" * 2000),
    ],
)
def test_a_line_is_shown_as_a_terminal_would_leave_it(line: str, shown: str) -> None:
    assert split_log([line])[0] == [shown]


@pytest.mark.parametrize(
    ("progress", "steps"),
    [
        ({"step": 30, "of": 120}, (30.0, 120.0)),
        ({"step": 0, "of": 1}, (0.0, 1.0)),
        ({"step": 1.5, "of": 1.5}, (1.5, 1.5)),
        ({"step": 2, "of": 1}, None),
        ({"step": 0, "of": 0}, None),
        ({"step": -1, "of": 3}, None),
        ({"step": True, "of": 3}, None),
        ({"step": "1", "of": 3}, None),
        ({"step": 1, "of": 10**400}, None),
        ({"step": 1, "of": float("inf")}, None),
        ({"step": 1}, None),
        ({}, None),
    ],
)
def test_steps_are_two_numbers_or_nothing(progress: dict[str, Any], steps: tuple[float, float] | None) -> None:
    assert JobView(name="n", state="running", progress=progress).steps == steps


def test_the_time_left_runs_down_from_when_it_was_told() -> None:
    told = {"progress": {"left_s": 90}, "told_at": NOW - timedelta(seconds=30)}
    assert JobView(name="n", state="running", **told).left_s(NOW) == 60
    assert JobView(name="n", state="running", **told).left_s(NOW + timedelta(hours=1)) == 0
    assert JobView(name="n", state="failed", **told).left_s(NOW) is None
    assert JobView(name="n", state="running", progress={"left_s": 90}).left_s(NOW) is None
    for left in ("soon", None, 10**400):
        assert JobView(name="n", state="running", **told | {"progress": {"left_s": left}}).left_s(NOW) is None


def test_what_is_no_json_object_is_an_empty_one() -> None:
    assert read_json(b'{"step": 1}') == {"step": 1}
    for text in ("", "[1]", '{"a": Infinity}', "[" * 100_000, b"\xff\xfe", "1" * 5000):
        assert read_json(text) == {}


def test_a_time_is_in_utc_whatever_it_says() -> None:
    assert read_time("2026-01-01T12:00:00") == NOW
    assert read_time("2026-01-01T13:00:00+01:00") == NOW
    for text in (None, 7, "", "yesterday", "0001-01-01T00:00:00+14:00"):
        assert read_time(text) is None


def test_a_text_becomes_one_line_that_can_be_sent() -> None:
    assert one_line("a\n  b\t c") == "a b c"
    assert one_line(None) == ""
    assert one_line({"a": 1}) == "{'a': 1}"
    assert one_line("half \ud83d").encode() == b"half ?"
    assert len(one_line("x" * 9000)) == 2000
