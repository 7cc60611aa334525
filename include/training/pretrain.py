r"""Pre-trains a model, or a segment of its training: the same file on this machine and in a SageMaker container.

Channels: `corpus`, as include/training/packing.py leaves it; from the second segment on `previous`, the output of the
segment before. Output: `state/` (weights, optimiser, place, curve) and `mark.json`, without which no segment follows.

To run it by hand, 20 steps of `tiny` on a packed corpus:

    FMOPS_ML_ROOT=/tmp/ml SM_MODEL_DIR=/tmp/ml/model SM_CHANNEL_CORPUS=CORPUS \
      FMOPS_HYPERPARAMETERS='{"fmops_script": "include.training.pretrain", "steps": 20}' \
      .venv-jobs/bin/python -c 'from include.jobs.harness import main; main()'
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.jobs.checkpoints import write_json
from include.jobs.harness import HYPERPARAMETERS, BadInput, Job
from include.training.threads import set_waiting

if TYPE_CHECKING:
    from include.training.distributed import Place
    from include.training.instructions import Instructions

log = logging.getLogger(__name__)

MARK = "mark.json"


def main(job: Job) -> dict[str, Any]:
    """Train from `from_step` to `until_step`; the figures of the run so far."""
    set_waiting()
    import torch

    from include.training.distributed import Place, first_device, launch
    from include.training.instructions import read_instructions
    from include.training.presets import cpu_processes, get_preset

    orders = read_instructions(job)
    _previous(job, orders)
    preset, hosts = get_preset(orders.size), len(job.hosts)
    on_cpu = cpu_processes(preset, orders.parallelism, orders.batch_tokens, hosts)
    processes = orders.processes or torch.cuda.device_count() or on_cpu
    orders.micro_rows(preset.context, processes * hosts)
    if processes * hosts == 1 and orders.parallelism in ("auto", "single"):
        _train(job, Place(device=first_device()))
    else:
        if orders.parallelism == "single":
            raise BadInput(f"parallelism=single, but there are {processes} processes on {hosts} hosts")
        environment = {**os.environ, HYPERPARAMETERS: json.dumps(job.hyperparameters)}
        launch(work, (environment, processes), processes=processes, hosts=job.hosts)
    mark: dict[str, Any] = json.loads((job.model_dir / MARK).read_bytes()) if job.rank == 0 else {"metrics": {}}
    metrics: dict[str, Any] = mark["metrics"]
    return metrics


def work(environment: dict[str, str], processes: int) -> None:
    """What each of several processes does."""
    from include.training.distributed import join
    from include.training.instructions import read_instructions

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    job = Job(environment)
    asked = read_instructions(job).parallelism
    with join("ddp" if asked == "auto" else asked) as place:
        _train(job, place, processes)


def _train(job: Job, place: Place, processes: int = 1) -> None:
    import torch

    from include.training.instructions import read_instructions
    from include.training.loader import open_corpus
    from include.training.trainer import Trainer

    orders = read_instructions(job)
    torch.set_num_threads(orders.threads or max(1, len(os.sched_getaffinity(0)) // processes))
    corpus = open_corpus(job.channel("corpus"))
    trainer = Trainer(job, orders, corpus, place, _previous(job, orders))
    trainer.run()
    folder = job.model_dir / "state"
    folder.mkdir(exist_ok=True)
    trainer.save(folder)
    if place.is_first:
        progress = trainer.progress
        mark = {"schema_version": 1, "step": progress.step, "steps": orders.steps, "tokens": progress.tokens}
        named = {name: trainer.about[name] for name in ("architecture", "size", "corpus_digest", "config_digest")}
        write_json(job.model_dir / MARK, {**mark, **named, "metrics": trainer.figures()})
    place.wait()


def _previous(job: Job, orders: Instructions) -> Path | None:
    """The state that the segment before left; None for the first. BadInput if its mark is not there, or another."""
    if orders.from_step == 0:
        return None
    folder = job.channel("previous")
    if not (folder / MARK).is_file():
        raise BadInput(f"channel previous: {folder} holds no {MARK}: the segment before has not come to its end")
    mark = json.loads((folder / MARK).read_bytes())
    if mark["step"] != orders.from_step:
        raise BadInput(f"channel previous: its mark is of step {mark['step']}, not from_step={orders.from_step}")
    return folder / "state"
