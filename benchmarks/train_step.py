"""What a training step costs, measured in the jobs environment: `python -m benchmarks.train_step WHAT CORPUS FOLDER`.

Prints one JSON object. WHAT is `speed:SIZE:PRECISION:TOKENS`, `shared:SIZE` or `characters`. The trainer, a
bare loop on the same model and the loader alone take turns, so that a busy machine slows all of them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from include.training.threads import set_waiting

set_waiting()

import torch  # noqa: E402 (after what it reads is set)

from include.jobs.harness import HYPERPARAMETERS, Job  # noqa: E402
from include.training import presets, pretrain  # noqa: E402
from include.training.distributed import Place, first_device  # noqa: E402
from include.training.instructions import read_instructions  # noqa: E402
from include.training.loader import open_corpus  # noqa: E402
from include.training.machine import matmul_flops  # noqa: E402
from include.training.model import build_model  # noqa: E402
from include.training.optimiser import make_optimiser  # noqa: E402
from include.training.trainer import CLIP, Trainer  # noqa: E402

STEPS, ROUNDS = 5, 4
"""Of each kind in a round."""
SHARED_STEPS = 100
CHARACTERS = dataclasses.replace(
    presets.PRESETS["tiny"],
    name="characters",
    layers=4,
    width=128,
    kv_heads=2,
    context=64,
    batch_tokens=12 * 64,
    micro_batch_tokens=12 * 64,
    steps=2000,
    learning_rate=2e-3,
)


class Silent(Job):
    """A job that tells nobody."""

    def tell(self) -> None:
        """Nothing."""


def environment_of(corpus: Path, folder: Path, **parameters: Any) -> dict[str, str]:
    """What a job on that corpus is started with."""
    return {
        "FMOPS_ML_ROOT": str(folder),
        "SM_MODEL_DIR": str(folder / "model"),
        "SM_CHANNEL_CORPUS": str(corpus),
        HYPERPARAMETERS: json.dumps({"checkpoint_every_s": 1e9, **parameters}),
    }


def make_trainer(corpus: Path, folder: Path, **parameters: Any) -> Trainer:
    """A trainer with all cores, at its first step."""
    job = Silent(environment_of(corpus, folder, **parameters))
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    trainer = Trainer(
        job, read_instructions(job), open_corpus(job.channel("corpus")), Place(device=first_device()), None
    )
    trainer._begin()
    return trainer


def speed(corpus: Path, folder: Path, size: str, precision: str, tokens: str) -> dict[str, Any]:
    """Seconds of a trainer's step, of a bare loop's, and of a batch; FLOPs a second of a matrix product."""
    trainer = make_trainer(corpus, folder, size=size, precision=precision, batch_tokens=int(tokens))
    model = build_model(trainer.preset, "decoder", trainer.corpus.vocab_size, 0)
    optimiser = make_optimiser(model, 1e-3, trainer.preset.weight_decay)
    times: dict[str, list[float]] = {"trainer": [], "bare": [], "loader": []}
    matmul = []
    for round_number in range(ROUNDS + 1):
        matmul.append(matmul_flops(trainer.place.device, 1024, torch.float32))
        for name, work in (
            ("trainer", trainer._step),
            ("bare", lambda: bare_step(trainer, model, optimiser)),
            ("loader", lambda: trainer.rows.batch(trainer.progress.position, trainer.rows_per_step)),
        ):
            begun = time.perf_counter()
            for _ in range(STEPS):
                work()
            if round_number:  # the first one warms up
                times[name].append((time.perf_counter() - begun) / STEPS)
    flops = trainer.orders.batch_tokens * trainer.flops_per_token
    return {
        **{f"{name}_s": statistics.median(found) for name, found in times.items()},
        "matmul_gflops": statistics.median(matmul) / 1e9,
        "step_gflop": flops / 1e9,
        "batch_tokens": trainer.orders.batch_tokens,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "threads": torch.get_num_threads(),
    }


def shared(corpus: Path, folder: Path, size: str) -> dict[str, Any]:
    """Figures of the script as it comes, with as many processes as the preset has."""
    os.environ |= environment_of(corpus, folder, size=size, until_step=SHARED_STEPS)  # for its processes too
    return pretrain.main(Silent(dict(os.environ)))


def bare_step(trainer: Trainer, model: torch.nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """What every tutorial does: forward, backward, clip, step."""
    rows, place = trainer.micro_rows, trainer.progress.position
    parts = trainer.rows_per_step // rows
    for part in range(parts):
        batch = trainer.rows.batch(place + part * rows, rows)
        tokens, positions, targets = (
            torch.from_numpy(batch[name].copy()) for name in ("tokens", "positions", "targets")
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=trainer.is_bf16):
            loss = model(tokens, positions, targets) / parts
        loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    optimiser.step()
    optimiser.zero_grad()


def characters(corpus: Path, folder: Path) -> dict[str, Any]:
    """A model of characters, 4 layers of 128, 2,000 steps of 12 x 64; what it comes to, and in which time."""
    presets.PRESETS[CHARACTERS.name] = CHARACTERS
    trainer = make_trainer(corpus, folder, size=CHARACTERS.name)
    begun = time.perf_counter()
    trainer.run()
    figures = trainer.figures()
    return {"seconds": time.perf_counter() - begun, **figures}


if __name__ == "__main__":
    what, *rest = sys.argv[1].split(":")
    found = {"speed": speed, "shared": shared, "characters": characters}[what](
        Path(sys.argv[2]), Path(sys.argv[3]), *rest
    )
    sys.stdout.write(json.dumps(found) + "\n")
