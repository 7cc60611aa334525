"""Folders of local jobs as their supervisor leaves them, without one; tests/plugins/test_job_files.py has real ones."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

STARTED = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
SPEC = {"tenant": "acme", "use_case": "faq", "dag_id": "d", "run_id": "r", "task_id": "train", "map_index": -1}
OVER = {
    "succeeded": {"cause": None, "message": ""},
    "failed": {"cause": "user_code", "message": "ValueError: no line (train.py:7)"},
}


def make(jobs: Path, name: str, state: str = "running", *, dag_id: str = "d", log: str = "first\nlast\n") -> Path:
    """The folder of a job in a state."""
    folder = jobs / name
    folder.mkdir(parents=True)
    write(folder / "spec.json", {"spec": SPEC | {"dag_id": dag_id}})
    write(folder / "started.json", {"started_at": STARTED.isoformat(), "host": "here", "supervisor": 7})
    write(folder / "progress.json", {"step": 30, "of": 120, "left_s": 90, "loss": 2.25, "tokens_per_s": 2350.5})
    (folder / "heartbeat").touch()
    (folder / "owner").write_text("attempt-1")
    (folder / "log").write_text(log)
    if state in OVER:
        ended_at = (STARTED + timedelta(seconds=61)).isoformat()
        write(folder / "status.json", {"state": state, "ended_at": ended_at, "billed_s": 60.5, **OVER[state]})
    return folder


def write(file: Path, value: Any) -> None:
    """A file of JSON."""
    file.write_text(json.dumps(value))


def place(folder: Path, **changes: Any) -> dict[str, Any]:
    """What the operator tells of the job."""
    told = {"backend": "local", "kind": "training", "name": folder.name, "folder": str(folder), "lost_after_s": 60}
    return told | changes
