"""All that a run has come to, on disk: two files, tensors in safetensors and the rest in JSON, nothing pickled.

Random numbers need no place in it: the order of rows is drawn from the seed and the epoch, each step draws anew from
the seed and its number. So a run that goes on here equals one that was never interrupted, bit for bit on a CPU with the
same number of threads.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from include.jobs.checkpoints import write_json
from include.jobs.harness import BadInput

TENSORS, RECORD = "state.safetensors", "state.json"
SCHEMA_VERSION = 1


@dataclass(kw_only=True)
class Progress:
    """Where a run is; plain values."""

    step: int = 0
    """Optimiser steps that are done."""
    position: int = 0
    """Rows that were taken, those that were skipped included."""
    tokens: int = 0
    """That the model has learnt from."""
    skipped: list[list[int]] = field(default_factory=list)
    """First position and number of rows that are left out, since they broke the run."""
    rewinds: int = 0
    useful_s: float = 0.0
    """Time of the steps that are part of the run."""
    begun_at: float = 0.0
    """Unix time; of the first step of all, waiting and lost work from then on included."""
    recent: list[float] = field(default_factory=list)
    """Losses of the last steps, by which a jump is told."""
    curve: list[dict[str, Any]] = field(default_factory=list)


def save(folder: Path, tensors: dict[str, torch.Tensor], progress: Progress, about: dict[str, Any]) -> None:
    """Write both files; `about` says what the run is (architecture, size, digests, ...)."""
    from safetensors.torch import save_file

    save_file(tensors, folder / TENSORS)
    write_json(folder / RECORD, {"schema_version": SCHEMA_VERSION, **about, **asdict(progress)})


def load(folder: Path, about: dict[str, Any]) -> tuple[dict[str, torch.Tensor], Progress]:
    """Tensors and progress; BadInput if the state is of another run than `about` says."""
    from safetensors.torch import load_file

    record = json.loads((folder / RECORD).read_bytes())
    if record.get("schema_version") != SCHEMA_VERSION:
        raise BadInput(f"{folder}: state of schema_version {record.get('schema_version')}, not {SCHEMA_VERSION}")
    for name, value in about.items():
        if record.get(name) != value:
            raise BadInput(f"{folder}: state of a run with {name}={record.get(name)!r}, not {value!r}")
    known = Progress.__dataclass_fields__
    return load_file(folder / TENSORS), Progress(**{name: record[name] for name in known})


def gather(model: nn.Module, optimiser: torch.optim.Optimizer, *, is_sharded: bool) -> dict[str, torch.Tensor]:
    """Weights under `model.` and AdamW's moments under `optimiser.`, by the weights' names, on the CPU.

    A sharded model is put together on the first process (all must call it); others get nothing of it.
    """
    if is_sharded:
        from include.training.distributed import gather_sharded

        return gather_sharded(model, optimiser)
    names = {id(weight): name for name, weight in model.named_parameters()}
    tensors = {f"model.{name}": weight.detach() for name, weight in model.named_parameters()}
    for group in optimiser.param_groups:
        for weight in group["params"]:
            for kind, value in optimiser.state[weight].items():
                tensors[f"optimiser.{kind}.{names[id(weight)]}"] = value
    return {name: value.cpu().contiguous() for name, value in tensors.items()}


def restore(
    model: nn.Module, optimiser: torch.optim.Optimizer, tensors: dict[str, torch.Tensor], *, is_sharded: bool
) -> None:
    """Put back what gather() gave; KeyError if a weight is not there."""
    if is_sharded:
        from include.training.distributed import restore_sharded

        restore_sharded(model, optimiser, tensors)
        return
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(tensors[f"model.{name}"])
            optimiser.state[weight] = {
                kind: tensors[f"optimiser.{kind}.{name}"].to(weight.device, copy=True)
                for kind in ("step", "exp_avg", "exp_avg_sq")
                if f"optimiser.{kind}.{name}" in tensors
            }
