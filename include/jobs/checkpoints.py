"""Checkpoints of a job: folders that are whole or not there, the newest whole one found again, old ones removed.

Part of what runs inside a job: the standard library alone, Python 3.10 or newer.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

RECORD = "checkpoint.json"
"""In each checkpoint, written last: its files with sizes and digests."""
PARTIAL = ".partial-"


class Checkpoints:
    """The checkpoints below a folder, which all generations of one job share.

    A service that copies the folder elsewhere may have copied a part of one when the machine went: so a checkpoint
    counts only if every file has the digest that its record tells.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep
        self._saved_at = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        self._next = 1 + max(map(_saved, folder.glob("step-*")), default=0)
        """The number of the next one, over all generations."""
        for left in folder.glob(f"{PARTIAL}*"):  # of a generation that was killed while it saved
            shutil.rmtree(left)

    def due(self, every_s: float) -> bool:
        """Whether so many seconds have passed since the last checkpoint, or since the start."""
        return time.monotonic() - self._saved_at >= every_s

    @contextmanager
    def save(self, step: int) -> Iterator[Path]:
        """A folder to fill, which becomes the checkpoint of this step when the block ends without an error."""
        partial = self.folder / f"{PARTIAL}{step:012d}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
            record = {"schema_version": 1, "step": step, "saved": self._next, "files": list_files(partial)}
            write_json(partial / RECORD, record)
            target = self.folder / f"step-{step:012d}"
            if target.exists():  # the same step, found corrupt at the start
                shutil.rmtree(target)
            partial.rename(target)
            sync(self.folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        self._saved_at = time.monotonic()
        self._next += 1
        for old in self._newest_first()[self.keep :]:
            shutil.rmtree(old)

    def last(self) -> tuple[int, Path] | None:
        """Step and folder of the newest whole checkpoint; None if there is none to go on from. Others are removed."""
        for folder in self._newest_first():
            fault = _fault(folder)
            if not fault:
                return int(folder.name.removeprefix("step-")), folder
            log.warning("checkpoint %s is left out: %s", folder.name, fault)
            shutil.rmtree(folder)  # else it would count among those that are kept
        return None

    def _newest_first(self) -> list[Path]:
        """By when they were saved: a script that began anew saves steps below those that are there."""
        return sorted(self.folder.glob("step-*"), key=_saved, reverse=True)


def list_files(folder: Path) -> list[dict[str, Any]]:
    """Path below the folder, bytes and SHA-256 of each file in it, by path; each is flushed to disk."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        sync(path)
        name = path.relative_to(folder).as_posix()
        found.append({"path": name, "bytes": path.stat().st_size, "sha256": sha256(path)})
    return found


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file, read in parts."""
    state = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            state.update(part)
    return state.hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write JSON that takes its place at once, flushed to disk; ValueError for NaN and infinities."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8") as file:
            json.dump(value, file, allow_nan=False, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file or a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _saved(folder: Path) -> int:
    """The how manieth a checkpoint is; 0 if it does not tell, so that it goes first."""
    try:
        return int(json.loads((folder / RECORD).read_bytes())["saved"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _fault(folder: Path) -> str:
    """What is wrong with a checkpoint; empty if it is whole."""
    try:
        record = json.loads((folder / RECORD).read_bytes())
        for file in record["files"]:
            path = folder / file["path"]
            if path.stat().st_size != file["bytes"] or sha256(path) != file["sha256"]:
                return f"{file['path']} is not what was written"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""
