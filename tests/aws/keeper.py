"""Sees to it that nothing is left of a server, however it ended: a process that outlives it, kills and removes.

Run with the server's mark and its folder; it waits for the end of its standard input, which the server holds open.
"""

from __future__ import annotations

import shutil
import sys
import time

import psutil

MARK = "FMOPS_AWS_SERVER"
JOB = "FMOPS_AWS_JOB"


def marked(mark: str) -> list[tuple[psutil.Process, str]]:
    """Each living process that a job of this server started, directly or not, with the job's name."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except (psutil.Error, OSError):  # of somebody else, or gone
            continue
        if environment.get(MARK) == mark:
            found.append((process, environment.get(JOB, "")))
    return found


def kill(mark: str, job: str | None = None) -> None:
    """End all of them, or those of one job; returns when none is left."""
    while left := [process for process, name in marked(mark) if job in (None, name)]:
        for process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.02)  # to wait for each would reap the server's own children, whose end it waits for itself


def main() -> None:
    mark, folder = sys.argv[1:]
    sys.stdin.buffer.read()
    kill(mark)
    time.sleep(0.1)  # a process that the server was just about to start
    kill(mark)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
