"""What ends a local job whose supervisor is gone, from inside the job. The standard library alone, Python 3.10+."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

LOOK_S = 0.2
"""Short, since the next generation may start as soon as this one was declared lost."""
KILL_S = 10.0
ALL = "FMOPS_JOB_ID"
"""In the environment of a job's supervisor, its script and all that the script starts; the same for no two jobs."""
PIPE = "FMOPS_GUARD_FD"
"""Number of the reading end of a pipe whose other end the supervisor alone holds: it ends with the supervisor."""
ENDED = "FMOPS_ENDED_FILE"
"""A file that is there once the job counts as over, although it may not know."""


def start(environment: Mapping[str, str]) -> None:
    """Watch the supervisor, if the environment names one.

    In a process of its own, since native code may keep the interpreter's lock for hours; it is nobody's child, since
    the script may wait for all of its own.
    """
    if PIPE not in environment:
        return
    pipe, group = int(environment[PIPE]), os.getpgrp()
    if child := os.fork():
        os.waitpid(child, 0)
        os.close(pipe)
        return
    os.setsid()  # out of the group that is ended
    if os.fork():
        os._exit(0)
    try:
        _watch(pipe, Path(environment[ENDED]))
        _kill(group, environment[ALL])
    finally:
        os._exit(0)


def _watch(pipe: int, ended: Path) -> None:
    """Until the supervisor is gone, or the job was declared lost while its supervisor was held up."""
    while not select.select([pipe], [], [], LOOK_S)[0]:  # nothing is ever written: it can be read when it has ended
        with suppress(OSError):  # a shared file system that is away for a while
            if ended.exists():
                return


def _kill(group: int, job_id: str) -> None:
    """End the job's group, and what has left it but carries the job's id."""
    with suppress(ProcessLookupError):  # the script is over
        os.killpg(group, signal.SIGKILL)
    until = time.monotonic() + KILL_S
    while (left := _carriers(job_id)) and time.monotonic() < until:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(LOOK_S / 4)


def _carriers(job_id: str) -> list[int]:
    """Processes with the job's id in their environment, except this one; none on macOS, which has no /proc."""
    mark, found = f"{ALL}={job_id}".encode(), []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0") and int(entry.name) != os.getpid():
                found.append(int(entry.name))
        except OSError:  # it ended meanwhile, or is somebody else's
            continue
    return found
