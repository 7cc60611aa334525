"""Runs one local job to its end: python -m include.jobs.supervisor [--detach] FOLDER LOST_AFTER_S

It alone starts the script; it beats while it lives, obeys the stop file, keeps time and memory, ends all that the
script has started, and says in status.json how it ended (see include/jobs/verdict.py). Others may have declared the job
lost while it was held up: then it ends the job and says nothing. It imports the standard library and psutil.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from include.jobs import guard, processes
from include.jobs.verdict import ROOM, decide, is_decided, verdict

BEAT_S = 1.0
GRACE_S = 10.0
"""Between SIGTERM and SIGKILL."""
WRITE_AGAIN_S = 600.0
"""How long the end of a job is tried to be written down, on a disk that refuses."""
CLASSES = {"BadInput": "bad_input", "OutOfMemory": "out_of_memory", "UserCode": "user_code"}
"""First word of the file `failure` -> cause."""
EXIT_CODES = {64: "bad_input", 137: "out_of_memory"}


class Supervisor:
    """One job, from its start to its end."""

    def __init__(self, folder: Path, lost_after_s: float) -> None:
        self.folder, self.lost_after_s = folder, lost_after_s
        spec = json.loads((folder / "spec.json").read_bytes())["spec"]
        self.max_runtime_s = float(spec["max_runtime_s"])
        self.memory_mb: float | None = spec["resources"]["memory_mb"]
        self.job_id = os.environ[guard.ALL]
        self.started_at = datetime.now(UTC)
        self.started = self.beaten = time.monotonic()
        self.oom_kills = processes.oom_kills()
        self.signal = ""
        self.script: subprocess.Popen[bytes] | None = None
        self.seen: set[psutil.Process] = set()
        """What runs of all that the script has started, as far as it was there at a beat."""

    def run(self) -> None:
        """Start the script, watch it, end what is left of it, and say how it ended."""
        if is_decided(self.folder):
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note_signal)
        self.beat()
        reading, writing = os.pipe()  # the writing end stays here alone: the guard in the job reads its end
        try:
            found = self._supervise(reading)
        except Exception as error:
            traceback.print_exc()
            self._end()
            found = verdict("failed", "lost", f"its supervisor failed: {type(error).__name__}: {error}")
        finally:
            os.close(writing)
        self.conclude(found)

    def _supervise(self, reading: int) -> dict[str, Any]:
        write_json(self.folder / "started.json", self._started())
        if found := self._reason():  # asked to stop before it began
            return found
        self.script = self._start(reading)
        os.close(reading)
        why = self._watch(self.script)
        code = self._end()
        if code and why is None:  # a script that fails after it was asked to stop was stopped
            why = self._reason()
        return why or self._judge(code)

    def beat(self) -> None:
        """Show that this process lives, unless it was declared lost: the last beat tells when. Needs no room."""
        with suppress(OSError):  # it is judged by its age, here and by those who look
            if not is_decided(self.folder):
                os.utime(self.folder / "heartbeat")
            self.beaten = time.monotonic()

    def conclude(self, found: dict[str, Any]) -> None:
        """Say how it ended, unless somebody has; a disk that refuses is tried again for a while, beating on."""
        found |= {
            "ended_at": datetime.now(UTC).isoformat(),
            "billed_s": round(time.monotonic() - self.started, 3),
            **self._started(),
        }
        until = time.monotonic() + WRITE_AGAIN_S
        while not is_decided(self.folder):
            try:
                decide(self.folder, found, ROOM)
                return
            except OSError as error:
                if time.monotonic() >= until or not self.folder.exists():
                    raise
                _say(f"status.json is not written yet: {error}")
                self.beat()
                time.sleep(BEAT_S)

    def _start(self, reading: int) -> subprocess.Popen[bytes]:
        source = self.folder / "source"
        environment = os.environ | {"PYTHONPATH": str(source), guard.PIPE: str(reading)}
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, str(source / "fmops_job.py")],
                cwd=self.folder / "work",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[reading],
                start_new_session=True,
            )

    def _watch(self, script: subprocess.Popen[bytes]) -> dict[str, Any] | None:
        """Beat until the script ends (None), or until there is a reason to end it."""
        while True:
            try:
                script.wait(BEAT_S)
                return None
            except subprocess.TimeoutExpired:
                self.beat()
            if is_decided(self.folder) or not self.folder.exists():
                return verdict("failed", "lost", "declared lost while its supervisor was held up")
            if time.monotonic() - self.beaten > self.lost_after_s:  # whoever looks takes it for lost by now
                return verdict("failed", "lost", f"its heartbeat could not be set for {self.lost_after_s:g} s")
            if found := self._reason() or self._over_memory(script.pid):
                return found

    def _reason(self) -> dict[str, Any] | None:
        """Why the job must end now."""
        if (self.folder / "stop").exists():
            return verdict("stopped", "stopped", "it was asked to stop")
        if self.signal:
            return verdict("stopped", "stopped", f"its supervisor got {self.signal}")
        if time.monotonic() - self.started > self.max_runtime_s:
            return verdict("stopped", "timed_out", f"it took longer than max_runtime_s={self.max_runtime_s:g}")
        return None

    def _over_memory(self, pid: int) -> dict[str, Any] | None:
        together = processes.tree(pid)
        self.seen = set(processes.running(self.seen.union(together)))
        if self.memory_mb is None:
            return None
        taken = processes.memory_mb(together, self.memory_mb)
        if taken <= self.memory_mb:
            return None
        processes.kill(together)  # without grace: it would take more meanwhile
        return verdict(
            "failed", "out_of_memory", f"it took {taken:,.0f} MiB, more than resources.memory_mb={self.memory_mb}"
        )

    def _end(self) -> int:
        """End the script's group, with grace, then all that the script has started; the script's exit code."""
        script, until = self.script, time.monotonic() + GRACE_S
        if script is None:
            return 0
        if script.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(script.pid, signal.SIGTERM)
        while script.poll() is None and time.monotonic() < until:
            self.beat()
            with suppress(subprocess.TimeoutExpired):
                script.wait(min(BEAT_S, max(0.0, until - time.monotonic())))
        self._kill_all()
        return script.wait(BEAT_S)

    def _kill_all(self) -> None:
        until = time.monotonic() + GRACE_S
        while left := processes.running({*processes.of_job(self.job_id), *self.seen}):
            if time.monotonic() > until:
                _say(f"cannot be killed: {', '.join(str(process) for process in left)}")
                return
            processes.kill(left)
            self.beat()
            processes.wait(left, BEAT_S)

    def _judge(self, code: int) -> dict[str, Any]:
        """How a script ended that nobody ended."""
        if code == 0:
            if (self.folder / "output" / "manifest.json").exists():
                return verdict("succeeded", None, "", exit_code=0)
            return verdict("failed", "user_code", "it ended without an error and without a manifest", exit_code=0)
        if code < 0:
            name = _name(-code)
            if code == -signal.SIGKILL and processes.oom_kills() > self.oom_kills:
                return verdict("failed", "out_of_memory", "the kernel killed it for its memory", signal=name)
            return verdict("failed", "user_code", f"it was ended by {name}", signal=name)
        return verdict("failed", *self._told(code), exit_code=code)

    def _told(self, code: int) -> tuple[str, str]:
        """Cause and reason as the script's harness has written them, or the exit code's."""
        try:
            text = (self.folder / "failure").read_text("utf-8", "replace").strip()
        except FileNotFoundError:
            text = ""
        kind, _, reason = text.partition(": ")
        if kind in CLASSES:
            return CLASSES[kind], reason
        free = shutil.disk_usage(self.folder).free
        disk = ", and the disk is full" if free < 2**20 else ""
        return EXIT_CODES.get(code, "user_code"), f"exit code {code} without a reason{disk}: see {self.folder / 'log'}"

    def _started(self) -> dict[str, Any]:
        return {"started_at": self.started_at.isoformat(), "host": socket.gethostname(), "supervisor": os.getpid()}

    def _note_signal(self, number: int, _: FrameType | None) -> None:
        self.signal = _name(number)


def _name(number: int) -> str:
    """Of a signal; real-time signals have none."""
    return {one.value: one.name for one in signal.Signals}.get(number, f"signal {number}")


def write_json(path: Path, value: Any) -> None:
    """Write JSON that takes its place at once."""
    partial = path.with_name(f"{path.name}.tmp")
    partial.write_text(json.dumps(value), encoding="utf-8")
    partial.replace(path)


def _say(line: str) -> None:
    sys.stderr.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {line}\n")


def detach() -> None:
    """Go on in a process that has no terminal, and whose parent is not the caller's business."""
    if os.fork():
        os._exit(0)
    os.setsid()


def main(arguments: list[str]) -> None:
    """Supervise the job of a folder, unless somebody does or has."""
    if arguments[0] == "--detach":
        arguments = arguments[1:]
        detach()
    folder = Path(arguments[0])
    with (folder / "lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"{folder} has a supervisor already")
            return
        if (folder / "started.json").exists():
            _say(f"{folder} was started before: a job runs once")
            return
        Supervisor(folder, float(arguments[1])).run()


if __name__ == "__main__":
    main(sys.argv[1:])
