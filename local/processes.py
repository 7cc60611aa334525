"""Find and end every process of one Airflow, also those that left its process group or lost their parent.

Airflow puts each task into a process group of its own, and a task may start programs in a session of their own. What
they keep is the environment: each Airflow that we start carries a mark of its own in it.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import psutil

MARK = "FMOPS_AIRFLOW_MARK"
END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(KeyboardInterrupt):
    """A signal asked this program to end; `status` is the exit status that a shell expects."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


def marked(mark: str) -> list[psutil.Process]:
    """The living processes that carry a mark, and all their descendants; never this process."""
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.update([process, *process.children(recursive=True)])
        except (psutil.Error, OSError):
            continue  # it ended meanwhile, or belongs to another user
    return [p for p in found if alive(p)]


def alive(process: psutil.Process) -> bool:
    """Whether a process still runs; one that only waits for its parent to take notice does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def end_marked(mark: str, grace_s: float = 6.0) -> list[psutil.Process]:
    """End all processes that carry a mark: SIGTERM, after grace_s seconds SIGKILL; returns those that outlive that.

    Looks again until none is left, since a dying parent may start one more.
    """
    start = time.monotonic()
    told: set[psutil.Process] = set()
    while processes := marked(mark):
        waited = time.monotonic() - start
        if waited > grace_s + 10:
            break
        for process in processes:
            if waited > grace_s:
                _signal(process, signal.SIGKILL)
            elif process not in told:
                _signal(process, signal.SIGTERM)
        told.update(processes)
        time.sleep(0.1)  # not psutil.wait_procs: that takes our own children's exit status from their Popen
    return processes


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return  # gone, or another user's: the caller hears of it if it stays


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into Ended while the body runs, so that everything is put away on the way out.

    Python runs handlers in its main thread only; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    ending = False

    def handler(number: int, _frame: FrameType | None) -> None:
        nonlocal ending
        if not ending:  # one is enough: a second would break into what the first has begun to put away
            ending = True
            raise Ended(number)

    with _handlers(handler):
        yield


@contextmanager
def signals_held_off() -> Iterator[None]:
    """Ignore signals while the body puts away after an orderly end; the body must be bounded in time."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _handlers(lambda _number, _frame: None):
        yield


@contextmanager
def _handlers(handler: object) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in END_SIGNALS}  # type: ignore[arg-type]
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
