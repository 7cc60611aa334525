"""The supervisor when something is wrong with it, its folder or its disk; verdicts; what is known of processes."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from include.jobs import processes, verdict
from include.jobs.guard import ALL
from include.jobs.local import LocalBackend
from include.jobs.verdict import LOST, ROOM, ROOM_BYTES, STATUS, decide, decide_lost, is_decided
from tests.jobs.trials import Trials, inject, trials, until

__all__ = ["trials"]


def supervise(folder: Path) -> str:
    """What another supervisor of the folder says, run in the foreground until it ends."""
    run = subprocess.run(
        [sys.executable, "-m", "include.jobs.supervisor", str(folder), "2"],
        env=os.environ | {ALL: "another", "PYTHONPATH": str(Path.cwd())}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert run.returncode == 0
    return run.stderr


def test_a_job_has_one_supervisor_and_runs_once(trials: Trials) -> None:
    name = trials.start(parameters={"hold_at": 1})
    trials.at_step(name)
    assert "has a supervisor already" in supervise(trials.folder / name)
    assert len(trials.processes(name)) == 3  # it, the script and its guard
    trials.script(name).kill()
    status = trials.end(name)
    trials.none_left(name)
    assert "a job runs once" in supervise(trials.folder / name)
    assert trials.status(name) == status


def test_a_job_that_is_over_before_its_supervisor_comes_does_not_start(
    trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalBackend, "_start", lambda *_: None)
    folder = trials.folder / trials.start()
    assert decide_lost(folder)
    assert supervise(folder) == ""
    assert not (folder / "started.json").exists() and not (folder / "log").exists()


FULL = "s.decide = lambda *a, d=s.decide, n=[0]: d(*a) if n.append(0) or len(n) > {after} else s.os.read(-1, 1)"
"""Writing the verdict fails with an OSError, so many times less one."""


def test_a_disk_that_is_full_at_the_end_is_tried_again(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    inject(monkeypatch, FULL.format(after=4))
    name = trials.start()
    assert trials.end(name).state == "succeeded"
    assert (trials.folder / name / "supervisor.log").read_text().count("status.json is not written yet") == 3


def test_one_that_stays_so_is_lost_at_last(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    inject(monkeypatch, FULL.format(after=10_000) + "; s.WRITE_AGAIN_S = 0.5")
    name = trials.start()
    assert trials.end(name).cause == "lost"
    trials.none_left(name)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("s.write_json = lambda *a: s.os.read(-1, 1)", "its supervisor failed: OSError"),
        ("s.Supervisor._watch = lambda *a: 1 / 0", "its supervisor failed: ZeroDivisionError: division by zero"),
        ("s.os.utime = lambda *a: s.os.read(-1, 1)", "its heartbeat could not be set for 2 s"),
    ],
)
def test_a_supervisor_that_fails_ends_its_job_and_says_so(
    trials: Trials, monkeypatch: pytest.MonkeyPatch, fault: str, message: str
) -> None:
    inject(monkeypatch, fault)
    name = trials.start(parameters={"hold_at": 1})
    until(lambda: is_decided(trials.folder / name))  # nobody describes it, who might find its heartbeat silent
    status = trials.status(name)
    assert (status.state, status.cause) == ("failed", "lost")
    assert status.message.startswith(message)
    trials.none_left(name)


def test_a_job_whose_folder_is_deleted_ends(trials: Trials) -> None:
    name = trials.start(parameters={"hold_at": 1})
    trials.at_step(name)
    (trials.folder / name).rename(trials.folder.parent / "bin")
    trials.none_left(name)
    assert not trials.processes(name)


@pytest.mark.parametrize(("kills", "cause"), [("[0, 1]", "out_of_memory"), ("[1, 1]", "user_code")])
def test_a_kill_is_the_kernels_if_it_counted_one_for_memory(
    trials: Trials, monkeypatch: pytest.MonkeyPatch, kills: str, cause: str
) -> None:
    inject(monkeypatch, f"s.processes.oom_kills = lambda n={kills}: n.pop(0)")
    name = trials.start(parameters={"hold_at": 1})
    trials.at_step(name)
    trials.script(name).kill()
    assert trials.end(name).cause == cause


def test_a_script_that_ends_without_a_word_is_judged_by_its_exit_code(trials: Trials) -> None:
    name = trials.start("leave", parameters={"code": 64})
    status = trials.end(name)
    assert status.cause == "bad_input" and status.message.startswith("exit code 64 without a reason: see ")


# Verdicts


def folder_of(path: Path) -> Path:
    (path / ROOM).write_text(" " * ROOM_BYTES)
    (path / LOST).write_text(json.dumps(verdict.verdict("failed", "lost", "silent")))
    return path


def test_the_first_verdict_counts_whoever_comes(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / str(number)).mkdir()
        folder = folder_of(tmp_path / str(number))
        made: list[str] = []
        barrier = threading.Barrier(3)

        def judge(
            name: str, folder: Path = folder, made: list[str] = made, barrier: threading.Barrier = barrier
        ) -> None:
            barrier.wait()
            if name == "lost":
                won = decide_lost(folder)
            else:
                won = decide(folder, verdict.verdict(name, None, ""), ROOM if name == "succeeded" else name)
            made.extend([name] * won)

        threads = [threading.Thread(target=judge, args=(name,)) for name in ("lost", "succeeded", "stopped")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (winner,) = made
        state = json.loads((folder / STATUS).read_text())["state"]
        assert state == ("failed" if winner == "lost" else winner)


def test_a_verdict_needs_no_more_room_than_was_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, inode = folder_of(tmp_path), (tmp_path / ROOM).stat().st_ino
    message = "\N{SNOWMAN}" * 5000
    assert decide(folder, verdict.verdict("failed", "user_code", message), ROOM)
    status = folder / STATUS
    assert (status.stat().st_ino, status.stat().st_size) == (inode, ROOM_BYTES)
    assert json.loads(status.read_text())["message"] == message[:300]


def test_a_verdict_that_could_not_be_written_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = folder_of(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            decide(folder, verdict.verdict("succeeded", None, ""), ROOM)
    assert not is_decided(folder)
    assert decide(folder, verdict.verdict("succeeded", None, ""), ROOM) and is_decided(folder)


def test_a_message_is_one_line() -> None:
    assert verdict.verdict("failed", "lost", "a\n  b\tc")["message"] == "a b c"
    assert len(verdict.verdict("failed", "lost", "x" * 5000)["message"]) == verdict.MESSAGE_CHARACTERS


# Processes


@pytest.mark.parametrize(
    ("text", "kills"),
    [("low 0\noom 3\noom_kill 2\n", 2), ("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n", 5), ("low 0\n", 0)],
)
def test_the_kernels_count_is_read_of_either_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, kills: int
) -> None:
    (tmp_path / "events").write_text(text)
    monkeypatch.setattr(processes, "_oom_files", lambda: [tmp_path / "missing", tmp_path / "events"])
    assert processes.oom_kills() == kills


def test_without_a_count_there_were_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_oom_files", list)
    assert processes.oom_kills() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="proportional sizes exist on Linux only")
def test_memory_that_forks_share_counts_once() -> None:
    code = (
        "import os, sys\nkept = b'x' * (80 << 20)\n"
        "if os.fork() == 0 or os.fork() == 0: sys.stdin.read(); os._exit(0)\n"
        "print('ready', flush=True); sys.stdin.read(); os.wait(); os.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == b"ready\n"
        together = processes.tree(parent.pid)
        assert len(together) == 3
        assert processes.memory_mb(together, limit_mb=1000) > 240
        assert 80 < processes.memory_mb(together, limit_mb=160) < 160
    assert processes.running(together) == [] == processes.tree(parent.pid)
    assert processes.memory_mb(together, limit_mb=1) == 0
    processes.kill(together)


def test_processes_of_a_job_carry_its_id() -> None:
    environment = os.environ | {ALL: "this"}
    with subprocess.Popen([sys.executable, "-c", "input()"], env=environment, stdin=subprocess.PIPE) as child:
        assert until(lambda: processes.of_job("this")) == [psutil.Process(child.pid)]
        assert processes.of_job("that") == []
        processes.kill(processes.of_job("this"))
