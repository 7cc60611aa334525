"""Processes are found by their mark wherever they hide, and ended whether they want or not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

import pytest

from local.processes import MARK, Ended, alive, end_marked, ending_on_signals, marked, signals_held_off

# A parent that starts a child in a session of its own, with an empty environment, and goes on; says when both stand.
FAMILY = """
import subprocess, time
subprocess.Popen(["sleep", "600"], start_new_session=True, env={})
print("ready", flush=True)
time.sleep(600)
"""
ORPHAN = """
import subprocess
subprocess.Popen(["sleep", "600"], start_new_session=True)
print("ready", flush=True)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def mark() -> Iterator[str]:
    mark = uuid.uuid4().hex
    yield mark
    end_marked(mark, grace_s=0)


def start(mark: str, code: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, MARK: mark}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def test_descendants_without_the_mark_are_found(mark: str) -> None:
    with start(mark, FAMILY) as parent:
        found = marked(mark)
        assert len(found) == 2
        assert end_marked(mark) == []
        assert parent.wait() == -signal.SIGTERM
    assert not any(alive(process) for process in found)


def test_orphans_are_found(mark: str) -> None:
    with start(mark, ORPHAN) as parent:
        parent.wait()
    limit = time.monotonic() + 10
    while not (found := marked(mark)):  # while it is loading its program, its environment cannot be read
        assert time.monotonic() < limit
    (orphan,) = found
    assert end_marked(mark) == []
    assert not alive(orphan)


def test_what_ignores_sigterm_is_killed(mark: str) -> None:
    with start(mark, STUBBORN) as process:
        assert end_marked(mark, grace_s=0.5) == []
        assert process.wait() == -signal.SIGKILL


def test_others_are_left_alone(mark: str) -> None:
    other = uuid.uuid4().hex
    with start(other, STUBBORN) as process:
        try:
            assert end_marked(mark) == []
            assert process.poll() is None
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_become_an_orderly_end(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Ended) as ended, ending_on_signals():
        signal.raise_signal(number)
    assert ended.value.status == 128 + number
    assert signal.getsignal(number) is before


def test_a_second_signal_does_not_disturb_the_putting_away() -> None:
    done = []
    with pytest.raises(Ended, match="SIGINT"), ending_on_signals():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGTERM)
            done.append(True)
    assert done == [True]


def test_a_first_signal_does_not_disturb_it_either() -> None:
    with ending_on_signals():
        with signals_held_off():
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(Ended):
            signal.raise_signal(signal.SIGINT)
