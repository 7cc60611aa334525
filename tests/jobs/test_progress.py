"""What a script tells of how far it is."""

from __future__ import annotations

from typing import Any

import pytest
from fmops_plugins.job_view import PROGRESS
from fmops_plugins.jobs import _line

from include.jobs import harness
from include.jobs.progress import PREFIX, progress_line, read_progress

LINES: list[tuple[dict[str, Any], str]] = [
    ({"step": 3, "of": 10, "left_s": 40, "loss": 2.12345}, "step 3 of 10, loss 2.123, 40 s left"),
    ({"step": 3}, "step 3"),
    ({"of": 3, "records": 7}, "records 7"),
    ({}, ""),
    ({"note": "x" * 900}, "note " + "x" * 495),
]


@pytest.mark.parametrize(("progress", "line"), LINES)
def test_a_line_for_a_person(progress: dict[str, Any], line: str) -> None:
    assert progress_line(progress) == line
    assert _line(dict(progress)) == line, "the triggerer writes the same, without include/"


@pytest.mark.parametrize(
    ("text", "progress"),
    [
        ('fmops-progress {"step": 1}', {"step": 1}),
        ('algo-1: fmops-progress {"step": 1}', {"step": 1}),
        ("fmops-progress [1]", None),
        ("fmops-progress {torn", None),
        ("step 1", None),
        ("", None),
    ],
)
def test_a_line_of_a_log(text: str, progress: dict[str, Any] | None) -> None:
    assert read_progress(text) == progress


def test_all_know_the_same_prefix() -> None:
    assert f"{harness.PROGRESS} " == PREFIX == PROGRESS
