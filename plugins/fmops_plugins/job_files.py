"""What the folder of a local job tells: see include/jobs/local.py and include/jobs/supervisor.py, which write it.

The folder's path comes from the database, and the script of the job could write what it likes into its folder: no
link is followed, and no more is read than a page shows.
"""

from __future__ import annotations

import os
import stat
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fmops_plugins.answers import PageError
from fmops_plugins.job_view import NAME, OVER, JobView, is_number, one_line, read_json, read_time, split_log
from fmops_plugins.settings import setting, storage_root

JSON_BYTES = 2**20
LOG_BYTES = 2**20
"""Of its end: a script that tells nothing but its progress fills as much in some hours."""
TAGS = {
    "tenant": "tenant",
    "use-case": "use_case",
    "dag": "dag_id",
    "run": "run_id",
    "task": "task_id",
    "map-index": "map_index",
}
"""Tag -> field of the spec, as include/jobs/spec.py has them."""
SILENT_S = 10.0
"""Heartbeats come each second: such a silence is worth a line."""


def read_job(place: dict[str, Any], dag_id: str) -> JobView:
    """The job whose folder the operator of this DAG named.

    PageError: 403 for a folder that cannot be a job's of this DAG, 404 if it is gone, 502 if it cannot be read.
    """
    folder = _folder(place)
    try:
        if not folder.is_dir():
            raise PageError(404, f"The folder of the job, {folder}, is gone: it was cleaned up.")
        spec = _json(folder / "spec.json").get("spec")
        if not isinstance(spec, dict) or spec.get("dag_id") != dag_id:
            raise PageError(403, f"{folder} is not the folder of a job of DAG {dag_id}, so it is not shown.")
        return _view(folder, spec, place)
    except OSError as error:
        raise PageError(502, f"The folder of the job, {folder}, cannot be read: {error}") from None


def job_folder() -> Path:
    """Where all local jobs have their folders, links followed."""
    root = setting("job_folder") or f"{storage_root().removeprefix('file://')}/jobs"
    return Path(os.path.realpath(os.path.expanduser(root)))  # noqa: PTH111 (as include/storage.py)


def _folder(place: dict[str, Any]) -> Path:
    """The folder of a job, links followed, right below that of all jobs and with the job's name."""
    name, text = place.get("name"), place.get("folder")
    if isinstance(name, str) and NAME.fullmatch(name) and isinstance(text, str) and text.isprintable():
        folder = Path(os.path.realpath(text))
        if folder == job_folder() / name:
            return folder
    raise PageError(
        403,
        f"{text!r} is not the folder of a job below {job_folder()}, so it is not shown. If jobs have their folders "
        "elsewhere, set FMOPS_JOB_FOLDER in the API server's environment too.",
    )


def _view(folder: Path, spec: dict[str, Any], place: dict[str, Any]) -> JobView:
    started, told = (_json(folder / name) for name in ("started.json", "progress.json"))
    began, beat = _changed(folder / "started.json"), _changed(folder / "heartbeat")
    verdict = _verdict(folder)
    state = verdict.get("state") or _state(folder, is_started=began is not None)
    billed_s = verdict.get("billed_s", (beat - began).total_seconds() if began and beat else 0.0)
    return JobView(
        name=folder.name,
        state=state,
        cause=one_line(verdict.get("cause")),
        message=one_line(verdict.get("message")) if verdict else _silence(beat, place.get("lost_after_s")),
        started_at=read_time(started.get("started_at")),
        ended_at=(read_time(verdict.get("ended_at")) or beat) if verdict else None,
        billed_s=billed_s if is_number(billed_s) else 0.0,
        machine=one_line(started.get("host")),
        owner=one_line(_end_of(folder / "owner", 200).decode("utf-8", "replace")),
        tags={tag: one_line(spec.get(field)) for tag, field in TAGS.items()},
        output_uri=f"file://{folder / 'output'}",
        progress=told,
        told_at=_changed(folder / "progress.json"),
        lines=_log(folder / "log"),
    )


def _verdict(folder: Path) -> dict[str, Any]:
    """How it ended; empty while it has not."""
    if not (folder / "status.json").exists():
        return {}
    found = _json(folder / "status.json")
    if found.get("state") in OVER:
        return found
    return {"state": "failed", "cause": "lost", "message": "status.json cannot be read: its disk lost it"}


def _state(folder: Path, *, is_started: bool) -> str:
    if (folder / "stop").exists():
        return "stopping"
    return "running" if is_started else "starting"


def _silence(beat: datetime | None, lost_after_s: Any) -> str:
    """A line about a supervisor that was not heard of lately, by this machine's clock."""
    silent_s = time.time() - beat.timestamp() if beat else 0.0
    if silent_s < SILENT_S:
        return ""
    lost = f"; silent for {lost_after_s:g} s, it counts as lost" if is_number(lost_after_s) else ""
    return f"no heartbeat for {silent_s:.0f} s{lost}"


def _log(file: Path) -> list[str]:
    data = _end_of(file, LOG_BYTES)
    if len(data) == LOG_BYTES:  # it begins somewhere in a line
        data = data.partition(b"\n")[2]
    lines = data.decode("utf-8", "replace").removesuffix("\n").split("\n")
    return split_log(lines)[0] if data else []


def _json(file: Path) -> dict[str, Any]:
    return read_json(_end_of(file, JSON_BYTES))


def _end_of(file: Path, num_bytes: int) -> bytes:
    """The last bytes of a file; none if it is not there. OSError for a link, a pipe, or what else is no plain file."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return b""
    with open(descriptor, "rb") as opened:  # noqa: PTH123 (a descriptor: Path.open would follow links)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{file.name} is not a plain file")
        opened.seek(max(0, found.st_size - num_bytes))
        return opened.read(num_bytes)


def _changed(file: Path) -> datetime | None:
    """When a file was changed, by its file system's clock; None if it is not there."""
    try:
        return datetime.fromtimestamp(file.stat().st_mtime, UTC)
    except FileNotFoundError:
        return None
