"""What a script tells of how far it is, read from its log and written for a person."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from include.jobs.harness import PROGRESS

PREFIX = f"{PROGRESS} "
"""What a line of a log begins with if it is progress."""


def read_progress(line: str) -> dict[str, Any] | None:
    """The progress that a line of a log tells; None for any other line. What a script writes may be anything."""
    _, found, text = line.partition(PREFIX)
    if not found:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def progress_line(progress: Mapping[str, Any]) -> str:
    """One line, such as `step 30 of 100, loss 2.1, 40 s left`."""
    rest = {name: value for name, value in progress.items() if name not in ("step", "of", "left_s")}
    step = f"step {progress['step']}" if "step" in progress else ""
    step += f" of {progress['of']}" if step and "of" in progress else ""
    figures = [f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in rest.items()]
    left = f"{progress['left_s']} s left" if "left_s" in progress else ""
    return ", ".join(part for part in (step, *figures, left) if part)[:500]
