"""What tests do with the trainer in the jobs environment, where torch is.

`python -m tests.training.pretrain_trials FOLDER NAME...` runs the trials, each in a folder of its own, and prints what
came out as JSON by their names, in the last line.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from include.jobs import harness
from include.jobs.harness import Job
from include.training import presets, pretrain, state, trainer
from include.training.loader import Batch
from include.training.trainer import Trainer
from tests.training.toy import write_toy_corpus

STEPS = 8
presets.PRESETS["micro"] = dataclasses.replace(
    presets.PRESETS["tiny"],
    name="micro",
    layers=2,
    width=64,
    kv_heads=1,
    context=32,
    batch_tokens=128,
    micro_batch_tokens=64,
    steps=STEPS,
)
EACH_STEP = 1e-9
"""Seconds between two checkpoints that make one due after each step."""


def make_job(folder: Path, previous: Path | None = None, **parameters: Any) -> Job:
    """A job in its own folder, on a toy corpus that several jobs can share."""
    corpus = folder.parent / "corpus"
    if not corpus.is_dir():
        write_toy_corpus(corpus)
    environment = {
        "FMOPS_ML_ROOT": str(folder),
        "SM_MODEL_DIR": str(folder / "model"),
        "SM_CHANNEL_CORPUS": str(corpus),
        harness.HYPERPARAMETERS: json.dumps(
            {
                "fmops_script": "include.training.pretrain",
                "size": "micro",
                "threads": 1,
                "processes": 1,
                "precision": "fp32",
                **parameters,
            }
        ),
    }
    if previous:
        environment["SM_CHANNEL_PREVIOUS"] = str(previous)
    os.environ |= environment  # what processes of its own inherit
    return Job(environment)


def train(folder: Path, previous: Path | None = None, **parameters: Any) -> dict[str, Any]:
    """Run the script; what it came to."""
    job = make_job(folder, previous, **parameters)
    metrics = pretrain.main(job)
    return {"metrics": metrics, **outcome(job.model_dir)}


def outcome(model: Path) -> dict[str, Any]:
    """The parts of a state that a resumed run must have in common with one that was never interrupted."""
    record = json.loads((model / "state" / state.RECORD).read_bytes())
    curve = [{name: value for name, value in point.items() if name != "tokens_per_s"} for point in record["curve"]]
    kept = {name: record[name] for name in ("step", "position", "tokens", "skipped", "rewinds", "recent")}
    return {
        "digest": hashlib.sha256((model / "state" / state.TENSORS).read_bytes()).hexdigest(),
        "curve": curve,
        **kept,
    }


class Interrupted(Exception):
    """Stands for the end of a process."""


def interrupt_after(step: int, act: Any) -> Any:
    """Make the trainer act after a step, before or after the checkpoint that may follow; what undoes it."""
    original = Trainer._step

    def stepping(self: Trainer) -> tuple[str, float]:
        if self.progress.step == step:
            act()
        return original(self)

    Trainer._step = stepping  # type: ignore[method-assign]
    return original


def stop_anywhere(folder: Path) -> dict[str, Any]:
    """Each architecture interrupted at each step, and at each second one with older checkpoints; against the whole."""

    def raise_it() -> None:
        raise Interrupted

    found: dict[str, Any] = {}
    for architecture in presets.ARCHITECTURES:
        whole = train(folder / architecture, architecture=architecture)
        resumed = []
        for step in range(1, STEPS):
            place, every = folder / f"{architecture}-{step}", EACH_STEP if step % 2 else 1e9
            original = interrupt_after(step, raise_it)
            try:
                train(place, architecture=architecture, checkpoint_every_s=every)
            except Interrupted:
                Trainer._step = original  # type: ignore[method-assign]
            resumed.append(train(place, architecture=architecture, checkpoint_every_s=1e9))
        found[architecture] = {"whole": whole, "resumed": resumed}
    return found


def kill(folder: Path) -> dict[str, Any]:
    """Dies by SIGKILL in the middle of step 5 if it has not got there before."""
    if not (folder / "job" / "checkpoints").is_dir():
        interrupt_after(5, lambda: os.kill(os.getpid(), signal.SIGKILL))
    return train(folder / "job", checkpoint_every_s=EACH_STEP)


def segments(folder: Path) -> dict[str, Any]:
    """Four segments one after the other, against the whole in one."""
    whole, last, ends = train(folder / "whole"), None, [0, 2, 4, 6, 8]
    for begin, end in zip(ends, ends[1:], strict=False):
        parts = train(folder / f"until-{end}", last, from_step=begin, until_step=end)
        last = folder / f"until-{end}" / "model"
    return {"whole": whole, "segments": parts}


def broken(folder: Path) -> dict[str, Any]:
    """No number at one place of the data, then a jump at one, then no number anywhere."""
    original = Trainer._loss

    def losing(at: int, value: float) -> None:
        def loss(self: Trainer, model: Any, batch: Batch) -> torch.Tensor:
            found = original(self, model, batch)
            return found * value if torch.is_grad_enabled() and self.progress.position == at else found

        Trainer._loss = loss  # type: ignore[method-assign]

    losing(20, float("nan"))
    result = {"nan": train(folder / "nan", checkpoint_every_s=EACH_STEP)}
    losing(0, float("nan"))  # before there is any checkpoint
    result["nan_at_once"] = train(folder / "nan-at-once", checkpoint_every_s=1e9)
    trainer.RECENT = 3
    losing(24, 100.0)
    result["jump"] = train(folder / "jump", checkpoint_every_s=EACH_STEP)

    def always(self: Trainer, model: Any, batch: Batch) -> torch.Tensor:
        return original(self, model, batch) * float("inf")

    Trainer._loss = always  # type: ignore[method-assign]
    try:
        train(folder / "always", checkpoint_every_s=EACH_STEP)
    except RuntimeError as error:
        result["always"] = str(error)
    return result


def corrupt(folder: Path) -> dict[str, Any]:
    """The last checkpoint damaged: the one before is taken."""
    whole = train(folder / "whole")

    def raise_it() -> None:
        raise Interrupted

    original = interrupt_after(6, raise_it)
    try:
        train(folder / "job", checkpoint_every_s=EACH_STEP)
    except Interrupted:
        Trainer._step = original  # type: ignore[method-assign]
    last = max((folder / "job" / "checkpoints").glob("step-*"))
    damaged = bytearray((last / state.TENSORS).read_bytes())
    damaged[-5] ^= 1
    (last / state.TENSORS).write_bytes(damaged)
    return {"whole": whole, "last": last.name, "resumed": train(folder / "job")}


def full_disk(folder: Path) -> dict[str, Any]:
    """The disk gets full while the second checkpoint is written."""
    original, calls = state.save, []

    def save(place: Path, *rest: Any) -> None:
        calls.append(place)
        if len(calls) == 2:
            (place / state.TENSORS).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        original(place, *rest)

    state.save = save
    try:
        train(folder / "job", checkpoint_every_s=EACH_STEP)
    except OSError as error:
        said = str(error)
    state.save = original
    left = sorted(path.name for path in (folder / "job" / "checkpoints").iterdir())
    released = sorted(path.name for path in (folder / "job" / "model").rglob("*"))
    return {
        "said": said,
        "left": left,
        "released": released,
        "resumed": train(folder / "job"),
        "whole": train(folder / "w"),
    }


def refuse(folder: Path) -> dict[str, str]:
    """What is said to instructions and channels that cannot be meant."""
    train(folder / "first", until_step=4)
    first = folder / "first" / "model"
    (folder / "empty").mkdir()
    said = {}
    for name, previous, parameters in (
        ("size", None, {"size": "huge"}),
        ("architecture", None, {"architecture": "mamba"}),
        ("precision", None, {"precision": "fp8"}),
        ("steps", None, {"until_step": 9}),
        ("batch", None, {"batch_tokens": 100_000_000}),
        ("rate", None, {"learning_rate": 0.0}),
        ("share", None, {"batch_tokens": 96, "processes": 2}),
        ("single", None, {"parallelism": "single", "processes": 2}),
        ("no mark", folder / "empty", {"from_step": 4}),
        ("other step", first, {"from_step": 2}),
        ("other run", first, {"from_step": 4, "learning_rate": 0.5}),
    ):
        try:
            train(folder / name.replace(" ", "-"), previous, **parameters)
            said[name] = "nothing"
        except Exception as error:
            said[name] = f"{type(error).__name__}: {error}"
    return said


def two_processes(folder: Path) -> dict[str, Any]:
    """One process, two by DDP, two by FSDP."""
    found = {"one": train(folder / "one")}
    for parallelism in ("ddp", "fsdp"):
        found[parallelism] = train(folder / parallelism, parallelism=parallelism, processes=2)
    return found


def two_processes_in_segments(folder: Path) -> dict[str, Any]:
    """Two processes from begin to end, and in two segments."""
    found: dict[str, Any] = {}
    for parallelism in ("ddp", "fsdp"):
        arguments = {"parallelism": parallelism, "processes": 2}
        found[parallelism] = train(folder / parallelism, **arguments)
        train(folder / f"{parallelism}-half", until_step=4, **arguments)
        half = folder / f"{parallelism}-half" / "model"
        found[f"{parallelism} in two"] = train(folder / f"{parallelism}-rest", half, from_step=4, **arguments)
    return found


TRIALS = {
    trial.__name__: trial
    for trial in (
        stop_anywhere,
        kill,
        segments,
        broken,
        corrupt,
        full_disk,
        refuse,
        two_processes,
        two_processes_in_segments,
    )
}


def run(folder: Path, name: str) -> dict[str, Any]:
    """One trial; what it replaced in the trainer is put back."""
    kept = Trainer._step, Trainer._loss, trainer.RECENT, state.save
    try:
        place = folder / name
        place.mkdir(exist_ok=True)
        return TRIALS[name](place)
    finally:
        Trainer._step, Trainer._loss, trainer.RECENT, state.save = kept  # type: ignore[method-assign]


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(levelname)s %(message)s")
    results = {name: run(Path(sys.argv[1]), name) for name in sys.argv[2:]}
    sys.stdout.write(json.dumps(results) + "\n")
