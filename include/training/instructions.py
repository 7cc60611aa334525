"""What a training script is asked to do, read out of a job's hyper-parameters and checked."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, cast

import torch

from include.errors import UserError
from include.jobs.harness import BadInput, Job
from include.training.loader import Corpus
from include.training.presets import ARCHITECTURES, Architecture, get_preset, learning_rate_of
from include.training.schedule import SCHEDULES, Schedule

PARALLELISM = ("auto", "single", "ddp", "fsdp")
COMPILE = ("auto", "on", "off")


@dataclass(frozen=True, kw_only=True, slots=True)
class Instructions:
    """One segment of a run."""

    architecture: Architecture
    size: str
    steps: int
    """Of the whole run, by which the learning rate goes."""
    from_step: int
    """Where the segment before ended; 0 for the first."""
    until_step: int
    batch_tokens: int
    """Of one step, over all processes."""
    micro_batch_tokens: int
    """That one process computes at once."""
    learning_rate: float
    schedule: Schedule
    precision: str
    parallelism: str
    processes: int
    """On each host; 0: one for each GPU, else as many as the preset has on a CPU."""
    threads: int
    """Of one process; 0: all cores, divided by the processes."""
    compile: str
    seed: int
    checkpoint_every_s: float

    def micro_rows(self, context: int, world: int) -> int:
        """Rows that a process computes at once: the most that divide its share; BadInput if there is no share."""
        rows = self.batch_tokens // context
        if rows < world or rows % world:
            raise BadInput(
                f"batch_tokens={self.batch_tokens} are {rows} rows of {context} tokens, which {world} processes cannot"
                f" share: write a multiple of {world * context}"
            )
        share = rows // world
        return max(n for n in range(1, share + 1) if share % n == 0 and n <= max(1, self.micro_batch_tokens // context))

    def is_compiled(self, device: torch.device) -> bool:
        """Whether torch.compile is used; `auto` does on GPUs alone: on a CPU it takes longer than it saves."""
        return self.compile == "on" or (self.compile == "auto" and device.type == "cuda")

    def about(self, corpus: Corpus, model_config: dict[str, Any]) -> dict[str, Any]:
        """What tells a run from others; a state of another one is refused."""
        decisive = {
            name: getattr(self, name)
            for name in (
                "architecture",
                "size",
                "steps",
                "batch_tokens",
                "learning_rate",
                "schedule",
                "precision",
                "seed",
            )
        }
        text = json.dumps({**decisive, "corpus": corpus.digest, "model": model_config}, sort_keys=True)
        return {
            "architecture": self.architecture,
            "size": self.size,
            "steps": self.steps,
            "vocab_size": corpus.vocab_size,
            "model_config": model_config,
            "corpus_digest": corpus.digest,
            "tokenizer_digest": corpus.tokenizer_digest,
            "config_digest": hashlib.sha256(text.encode()).hexdigest(),
        }


def read_instructions(job: Job) -> Instructions:
    """The job's instructions, with the preset's values where there are none; BadInput names what is wrong."""
    try:
        preset = get_preset(job.parameter("size", "tiny"))
    except UserError as error:
        raise BadInput(str(error)) from None
    steps = job.parameter("steps", preset.steps)
    architecture = cast(Architecture, job.parameter("architecture", "decoder"))
    orders = Instructions(
        architecture=architecture,
        size=preset.name,
        steps=steps,
        from_step=job.parameter("from_step", 0),
        until_step=job.parameter("until_step", steps),
        batch_tokens=job.parameter("batch_tokens", preset.batch_tokens),
        micro_batch_tokens=job.parameter("micro_batch_tokens", preset.micro_batch_tokens),
        learning_rate=job.parameter("learning_rate", learning_rate_of(preset, architecture)),
        schedule=cast(Schedule, job.parameter("schedule", "cosine")),
        precision=job.parameter("precision", "auto"),
        parallelism=job.parameter("parallelism", "auto"),
        processes=job.parameter("processes", 0),
        threads=job.parameter("threads", 0),
        compile=job.parameter("compile", "auto"),
        seed=job.parameter("seed", 0),
        checkpoint_every_s=job.parameter("checkpoint_every_s", 60.0),
    )
    _check(orders)
    return orders


def _check(orders: Instructions) -> None:
    choices = {"architecture": ARCHITECTURES, "schedule": SCHEDULES, "parallelism": PARALLELISM, "compile": COMPILE}
    for name, allowed in choices.items():
        if getattr(orders, name) not in allowed:
            raise BadInput(f"{name}={getattr(orders, name)!r} must be one of {', '.join(allowed)}")
    if not 0 <= orders.from_step < orders.until_step <= orders.steps:
        raise BadInput(
            f"from_step={orders.from_step}, until_step={orders.until_step} and steps={orders.steps} must rise"
        )
    for name in ("batch_tokens", "micro_batch_tokens", "learning_rate", "checkpoint_every_s"):
        if not getattr(orders, name) > 0:
            raise BadInput(f"{name}={getattr(orders, name)} must be above 0")
