"""The training loop: steps until the state is where it is to be, checkpoints on the way, a rewind if it breaks."""

from __future__ import annotations

import logging
import math
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from include.jobs.harness import BadInput, Job
from include.training import state
from include.training.distributed import Place, spread
from include.training.instructions import Instructions
from include.training.loader import Batch, Corpus, open_rows
from include.training.machine import is_bf16, reference_flops
from include.training.model import build_model, hugging_face_config
from include.training.optimiser import make_optimiser
from include.training.presets import flops_per_token, get_preset, num_parameters
from include.training.schedule import learning_rate

log = logging.getLogger(__name__)

CLIP = 1.0
"""Longest gradient, as a norm over all weights."""
RECENT = 50
JUMP_NATS = 2.0
"""Above the mean of the last RECENT steps, a loss counts as broken, as if it were no number."""
MAX_REWINDS = 5
HELD_OUT_ROWS = 32
LOOKS, POINTS = 10, 200
"""Times that the held-out loss is taken, and points of the curve, over a whole run."""


class Trainer:
    """Trains one model on this process's share of each batch; `start` is the state to go on from, None: the seed."""

    def __init__(self, job: Job, orders: Instructions, corpus: Corpus, place: Place, start: Path | None) -> None:
        self.job, self.orders, self.corpus, self.place, self.start = job, orders, corpus, place, start
        self.preset = get_preset(orders.size)
        self.is_bf16 = is_bf16(orders.precision, place.device)
        torch.set_float32_matmul_precision("high" if place.device.type == "cuda" else "highest")
        self.model = build_model(self.preset, orders.architecture, corpus.vocab_size, orders.seed).to(place.device)
        self.running = spread(self.model, place, is_bf16=self.is_bf16)
        if orders.is_compiled(place.device):
            self.running = torch.compile(self.running)
        self.optimiser = make_optimiser(self.model, orders.learning_rate, self.preset.weight_decay)
        context = self.preset.context
        self.rows = open_rows(corpus, corpus.train, orders.architecture, context, orders.seed)
        held_out = tuple(corpus.held_out.values())
        self.held_out = open_rows(corpus, held_out, orders.architecture, context, orders.seed)
        self.rows_per_step = orders.batch_tokens // context
        self.micro_rows = orders.micro_rows(context, place.world)
        if self.rows.num_rows < self.rows_per_step:
            raise BadInput(
                f"batch_tokens={orders.batch_tokens} are {self.rows_per_step} rows of {context} tokens, but the corpus"
                f" has {self.rows.num_rows}: take more documents, or a smaller batch"
            )
        config = hugging_face_config(self.preset, orders.architecture, corpus.vocab_size, corpus.end_id, corpus.pad_id)
        self.about = orders.about(corpus, config)
        self.progress = state.Progress()
        self.every = max(1, orders.steps // POINTS)
        self.reference_flops = reference_flops(place.device)
        self.flops_per_token = flops_per_token(self.preset, orders.architecture, corpus.vocab_size)

    def run(self) -> None:
        """Train to the step that is asked for."""
        self._begin()
        while self.progress.step < self.orders.until_step:
            begun = time.perf_counter()
            fault, norm = self._step()
            if fault:
                self._rewind(fault)
                continue
            self.progress.useful_s += time.perf_counter() - begun
            if self.progress.step % self.every == 0 or self.progress.step == self.orders.until_step:
                self._note(norm)
            if self.place.agreed(self.job.checkpoint_due(self.orders.checkpoint_every_s)):
                self._checkpoint()

    def figures(self) -> dict[str, Any]:
        """What the run came to so far; utilisation and goodput are shares of 1."""
        progress, last = self.progress, self.progress.curve[-1]
        rate = progress.tokens / progress.useful_s if progress.useful_s else 0.0
        return {
            "loss": last["loss"],
            "bits_per_byte": last["bits_per_byte"],
            "held_out_loss": next(
                (point["held_out_loss"] for point in reversed(progress.curve) if "held_out_loss" in point), None
            ),
            "tokens_per_s": rate,
            "model_gflops": rate * self.flops_per_token / 1e9,
            "matmul_gflops": self.reference_flops * self.place.world / 1e9,
            "utilisation": rate * self.flops_per_token / (self.reference_flops * self.place.world),
            "goodput": progress.useful_s / max(time.time() - progress.begun_at, 1e-9),
            "useful_s": progress.useful_s,
            "rewinds": progress.rewinds,
            "parameters": num_parameters(self.preset, self.orders.architecture, self.corpus.vocab_size),
            "precision": "bf16" if self.is_bf16 else "fp32",
            "threads": torch.get_num_threads(),
            "processes": self.place.world,
            "parallelism": self.place.parallelism,
            "device": self.place.device.type,
        }

    def save(self, folder: Path) -> None:
        """Write the state below a folder; every process calls it, the first one writes."""
        tensors = state.gather(self.model, self.optimiser, is_sharded=self.place.is_sharded)
        if self.place.is_first:
            state.save(folder, tensors, self.progress, self.about)

    def _begin(self) -> None:
        """Take the newest whole checkpoint, else the state to start from, else the seed."""
        last = self.job.last_checkpoint() if self.place.is_first else None
        self.place.wait()  # the first one removes what is corrupt
        last = last or self.job.last_checkpoint()
        if folder := last[1] if last else self.start:
            tensors, self.progress = state.load(folder, self.about)
            state.restore(self.model, self.optimiser, tensors, is_sharded=self.place.is_sharded)
            log.info("goes on from step %d: %s", self.progress.step, folder.name)
        else:
            fresh = build_model(self.preset, self.orders.architecture, self.corpus.vocab_size, self.orders.seed)
            weights = {f"model.{name}": weight.detach() for name, weight in fresh.named_parameters()}
            state.restore(self.model, self.optimiser, weights, is_sharded=self.place.is_sharded)
            self.progress = state.Progress(begun_at=time.time())

    def _step(self) -> tuple[str, float]:
        """One optimiser step; what is wrong with it (empty: nothing, and it is done), and its gradient norm."""
        orders, progress, place = self.orders, self.progress, self.place
        progress.position = self._past_skipped(progress.position)
        share = self.rows_per_step // place.world
        first = progress.position + place.rank * share
        parts = share // self.micro_rows
        losses = []
        for part in range(parts):
            batch = self.rows.batch(first + part * self.micro_rows, self.micro_rows)
            with self._accumulating(is_last=part == parts - 1):
                loss = self._loss(self.running, batch) / parts
                loss.backward()
            losses.append(loss.detach())
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        (loss_value,) = place.mean(torch.stack(losses).sum())
        norm_value = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
        if fault := self._fault(loss_value, norm_value):
            self.optimiser.zero_grad()
            return fault, norm_value
        rate = learning_rate(progress.step, orders.steps, orders.learning_rate, orders.schedule)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        self.optimiser.zero_grad()
        progress.step += 1
        progress.position += self.rows_per_step
        progress.tokens += self.rows_per_step * self.preset.context
        progress.recent = [*progress.recent, loss_value][-RECENT:]
        return "", norm_value

    def _loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        device = self.place.device
        arguments: dict[str, Any] = {
            name: torch.from_numpy(np.ascontiguousarray(values)).to(device, non_blocking=True)
            for name, values in batch.items()
        }
        if "positions" in batch:
            arguments["is_packed"] = bool((batch["positions"][:, 1:] == 0).any())
        with torch.autocast(device.type, torch.bfloat16, enabled=self.is_bf16 and not self.place.is_sharded):
            loss: torch.Tensor = model(**arguments)
        return loss

    def _accumulating(self, *, is_last: bool) -> AbstractContextManager[Any]:
        """Gradients are exchanged once a step, not with each part of its batch."""
        if self.place.parallelism == "ddp" and not is_last:
            exchange_later: AbstractContextManager[Any] = self.running.no_sync()
            return exchange_later
        if self.place.is_sharded:
            self.model.set_requires_gradient_sync(is_last)
        return nullcontext()

    def _fault(self, loss: float, norm: float) -> str:
        if not math.isfinite(loss) or not math.isfinite(norm):
            return f"loss {loss} and gradient norm {norm} are no numbers"
        recent = self.progress.recent
        if len(recent) == RECENT and loss > sum(recent) / RECENT + JUMP_NATS:
            return f"loss {loss:.2f} jumped from {sum(recent) / RECENT:.2f}"
        return ""

    def _rewind(self, fault: str) -> None:
        """Go back to the last state, and leave out the rows of the step that broke."""
        step, bad, rewinds = self.progress.step, self.progress.position, self.progress.rewinds + 1
        if rewinds > MAX_REWINDS:
            raise RuntimeError(
                f"step {step}: {fault}, after {MAX_REWINDS} rewinds: lower learning_rate={self.orders.learning_rate}"
            )
        skipped = [*self.progress.skipped, [bad, self.rows_per_step]]
        self._begin()
        self.progress.rewinds, self.progress.skipped = rewinds, skipped
        log.warning("step %d: %s; rewinds to step %d and leaves its rows out", step, fault, self.progress.step)

    def _past_skipped(self, position: int) -> int:
        """The next position whose rows are all to be used."""
        for first, rows in sorted(self.progress.skipped):
            if position < first + rows and first < position + self.rows_per_step:
                position = first + rows
        return position

    def _note(self, norm: float) -> None:
        """A point of the curve, told as progress too."""
        progress, corpus = self.progress, self.corpus
        losses = progress.recent[-self.every :]
        loss = sum(losses) / len(losses)
        point: dict[str, Any] = {
            "step": progress.step,
            "loss": loss,
            "bits_per_byte": loss / math.log(2) * corpus.train_tokens / corpus.train_bytes,
            "grad_norm": norm,
            "learning_rate": self.optimiser.param_groups[0]["lr"],
            "tokens_per_s": round(progress.tokens / progress.useful_s, 1),
        }
        looked = max(1, self.orders.steps // LOOKS)
        if progress.step % looked < self.every or progress.step == self.orders.until_step:
            point["held_out_loss"] = self._held_out_loss()
        progress.curve.append(point)
        shown = {name: round(value, 3) for name, value in point.items() if name not in ("step", "learning_rate")}
        if self.place.is_first:
            self.job.progress(step=progress.step, of=self.orders.until_step, **shown)

    def _held_out_loss(self) -> float:
        """Mean loss of the same few rows each time, in nats a token."""
        count = min(HELD_OUT_ROWS, self.held_out.num_rows)
        sizes = [min(self.micro_rows, count - first) for first in range(0, count, self.micro_rows)]
        with torch.no_grad():
            losses = [
                float(self._loss(self.running, self.held_out.batch(number * self.micro_rows, size))) * size
                for number, size in enumerate(sizes)
            ]
        return sum(losses) / count

    def _checkpoint(self) -> None:
        tensors = state.gather(self.model, self.optimiser, is_sharded=self.place.is_sharded)
        if self.place.is_first:
            with self.job.checkpoint(self.progress.step) as folder:
                state.save(folder, tensors, self.progress, self.about)
        self.place.wait()
