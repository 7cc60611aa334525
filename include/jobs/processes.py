"""The processes of a local job: found, measured, ended. Needs psutil; light to import otherwise."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

from include.jobs.guard import ALL


def of_job(job_id: str) -> list[psutil.Process]:
    """All processes of this machine that carry the job's id in their environment, except this one.

    A process that has left its group, session and parent still carries it.
    """
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(ALL) == job_id:
                found.append(process)
        except (psutil.Error, OSError):  # it ended meanwhile, or is somebody else's
            continue
    return found


def tree(pid: int) -> list[psutil.Process]:
    """A process and all that it has started, directly or not, as far as their parents live; empty if it is gone."""
    try:
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def memory_mb(processes: Iterable[psutil.Process], limit_mb: float) -> float:
    """Memory of processes together, in MiB.

    Resident sizes count what forks share once for each of them: where they come to more than the limit, proportional
    sizes are added up instead, which take longer to read and exist on Linux only.
    """
    processes = list(processes)
    resident = _sum(processes, lambda process: float(process.memory_info().rss))
    if resident <= limit_mb:
        return resident
    return _sum(processes, _proportional)


def _proportional(process: psutil.Process) -> float:
    full = process.memory_full_info()
    return float(getattr(full, "pss", full.rss))


def _sum(processes: Iterable[psutil.Process], size: Callable[[psutil.Process], float]) -> float:
    total = 0.0
    for process in processes:
        try:
            total += size(process)
        except psutil.Error:  # it ended meanwhile
            continue
    return total / 2**20


def kill(processes: Iterable[psutil.Process]) -> None:
    """Kill those that still run; a process id that is somebody else's by now is left alone (psutil compares ages)."""
    for process in processes:
        try:
            process.kill()
        except psutil.Error:  # it ended meanwhile
            continue


def wait(processes: Iterable[psutil.Process], seconds: float) -> None:
    """Until they have ended, or so long. A zombie has: its parent may take long to notice, or never."""
    processes, until = list(processes), time.monotonic() + seconds
    while running(processes) and time.monotonic() < until:
        time.sleep(0.02)


def running(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended."""
    left = []
    for process in processes:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                left.append(process)
        except psutil.NoSuchProcess:
            continue
    return left


def oom_kills() -> int:
    """How often the kernel has killed a process of this control group for its memory; 0 where it does not tell."""
    for file in _oom_files():
        try:
            lines = file.read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _oom_files() -> list[Path]:
    root, files = Path("/sys/fs/cgroup"), []
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            files.append(root / path.lstrip("/") / "memory.events")
        elif "memory" in controllers.split(","):  # version 1; in a container the group is mounted as the root
            files += [root / "memory" / path.lstrip("/") / "memory.oom_control", root / "memory" / "memory.oom_control"]
    return files
