"""What several processes of one test run need, made by whichever of them comes first."""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

_VARIABLE = "TESTS_SHARED_FOLDER"


def share() -> None:
    """Make the folder for this run, unless this process was started by the one that made it."""
    if _VARIABLE not in os.environ:
        os.environ[_VARIABLE] = folder = tempfile.mkdtemp(prefix="fmops-tests-shared-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """A folder that make() filled, in this process or in another, which is waited for; nobody may change it."""
    folder = Path(os.environ[_VARIABLE]) / name
    made = folder.with_suffix(".made")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of an attempt that failed
            folder.mkdir()
            make(folder)
            made.touch()
    return folder
