"""The models that evaluation_trials.py trains and evaluates, made once for all tests."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from tests.shared import made_once
from tests.training.in_jobs import run_in_jobs


def world() -> Path:
    """The folder that the trials filled."""
    return made_once("evaluated", _fill)


def _fill(folder: Path) -> None:
    run = run_in_jobs("tests.training.evaluation_trials", folder)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    (folder / "output").write_text(run.stdout)


@cache
def found() -> dict[str, Any]:
    """What else the trials came to."""
    read: dict[str, Any] = json.loads((world() / "found.json").read_bytes())
    return read


def evaluation(name: str) -> dict[str, Any]:
    """evaluation.json of a model, such as `decoder-trained`."""
    read: dict[str, Any] = json.loads((world() / name / "evaluation" / "evaluation.json").read_bytes())
    return read


def documents(name: str) -> list[dict[str, Any]]:
    """The rows of its per_document.json."""
    rows: list[dict[str, Any]] = json.loads((world() / name / "evaluation" / "per_document.json").read_bytes())[
        "documents"
    ]
    return rows
