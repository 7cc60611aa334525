"""A script for jobs that tests start: it does what the hyper-parameter `act` says. Runs as include.trial in a job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from include.jobs.harness import BadInput, Job


def main(job: Job) -> Any:
    return ACTS[job.parameter("act", "count")](job)


def hold() -> None:
    while True:
        time.sleep(60)


def count(job: Job) -> dict[str, Any]:
    """Adds up 1..steps with a checkpoint at each; a first generation holds at `hold_at` until somebody ends it."""
    last = job.last_checkpoint()
    begun, total = (last[0], int((last[1] / "total").read_text())) if last else (0, 0)
    steps = job.parameter("steps", 4)
    for step in range(begun + 1, steps + 1):
        total += step
        with job.checkpoint(step) as folder:
            (folder / "total").write_text(str(total))
        sys.stdout.write(f"now at {step}\n")
        job.progress(step=step, of=steps, total=total)
        if not begun and step == job.parameter("hold_at", 0):
            job.tell()
            hold()
    (job.model_dir / "total.txt").write_text(str(total))
    return {"total": total, "begun_at": begun, "nothing": float("nan")}


def read(job: Job) -> dict[str, Any]:
    """Tells what it was given."""
    files = sorted(path.name for path in job.channel("texts").iterdir())
    secrets = sorted(name for name in os.environ if name.startswith(("AWS_", "AIRFLOW")))
    return {"files": files, "secrets": secrets, "hosts": job.hosts, "parameters": job.hyperparameters}


def fail(job: Job) -> None:
    raise ValueError("the answer\nis wrong")


def refuse(job: Job) -> None:
    raise BadInput("channel texts has no line")


def exhaust(job: Job) -> None:
    raise MemoryError


def leave(job: Job) -> None:
    os._exit(job.parameter("code", 0))


def crash(job: Job) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def grow(job: Job) -> None:
    """Takes 160 MiB, in a child, and keeps them."""
    code = "import time; kept = b'x' * (160 << 20); time.sleep(600)"
    subprocess.run([sys.executable, "-c", code], check=True)


def ignore(job: Job) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    job.progress(step=1)
    hold()


def scatter(job: Job) -> None:
    """Leaves a process behind that has another session and no parent, then holds if `stay`."""
    code = "import os, time; os.fork() and os._exit(0); os.setsid(); time.sleep(600)"
    subprocess.run([sys.executable, "-c", code], check=True)
    job.progress(step=1)
    if job.parameter("stay", False):
        hold()


def fill(job: Job) -> None:
    """Writes until the disk is full."""
    with (job.model_dir / "large").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 65_536)


def chat(job: Job) -> None:
    """Writes lines that are hard to show, then waits for the file `go` before the last ones."""
    job.progress(step=1)
    out = sys.stdout.buffer
    out.write(b"first\nbad \xff byte\n 10%\r 50%\r100%\n" + b"y" * 20_000 + b"\nhalf")
    out.flush()
    while not (Path(job.channel("texts")) / "go").exists():
        time.sleep(0.02)
    out.write(b" whole\nlast without an end")
    out.flush()


ACTS = {
    act.__name__: act
    for act in (count, read, fail, refuse, exhaust, leave, crash, grow, ignore, scatter, fill, chat)
}  # fmt: skip
