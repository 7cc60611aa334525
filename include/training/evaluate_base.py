"""Evaluates a pre-trained model: makes the release's folder, loads that by plain transformers, and measures it.

Channels: `model`, the last segment's output; `corpus`, as include/training/packing.py leaves it. Output: `model/` (see
export.py), `per_document.json`, by which the gate tells how sure a difference is, and `evaluation.json`, last.

To run it by hand:

    FMOPS_ML_ROOT=/tmp/ml SM_CHANNEL_MODEL=MODEL SM_CHANNEL_CORPUS=CORPUS \\
      FMOPS_HYPERPARAMETERS='{"fmops_script": "include.training.evaluate_base"}' \\
      .venv-jobs/bin/python -c 'from include.jobs.harness import main; main()'
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from include.jobs.checkpoints import write_json
from include.jobs.harness import BadInput, Job
from include.training import measures
from include.training.export import export, read_record
from include.training.held_out import read_documents
from include.training.loader import open_corpus
from include.training.measures import Meter, Scene
from include.training.presets import PRESETS
from include.training.threads import set_waiting

SCHEMA_VERSION = 1
EVALUATION, PER_DOCUMENT, MODEL = "evaluation.json", "per_document.json", "model"
MAX_HELD_OUT_TOKENS = 50_000
"""A model of 2 million weights reads them in 10 seconds on one core."""


def main(job: Job) -> dict[str, Any]:
    """Export, reload, measure; the figures that the job's page shows.

    Hyper-parameters: max_held_out_tokens, max_ngram_tokens, ngram_order (3), seed (0), threads (0: all cores).
    """
    set_waiting()
    import torch

    torch.set_num_threads(job.parameter("threads", 0) or len(os.sched_getaffinity(0)))
    scene = _open(job)
    meter = Meter(job, measures.num_computed(scene))
    measured, rows = (measures.decoder if scene.is_decoder else measures.encoder_decoder)(scene, meter)
    evaluation = {
        "schema_version": SCHEMA_VERSION,
        **{name: scene.record[name] for name in ("architecture", "size", "step")},
        "parameters": scene.model.num_parameters(),
        "tokens_seen": scene.record["tokens"],
        "corpus_digest": scene.corpus.digest,
        "tokenizer_digest": scene.corpus.tokenizer_digest,
        "config_digest": scene.record.get("config_digest"),
        "seed": scene.seed,
        **measured,
        "zero_shot": measures.zero_shot(scene, meter),
        "samples": measures.samples(scene, meter),
        "curve": scene.record["curve"],
    }
    write_json(job.model_dir / PER_DOCUMENT, {"schema_version": SCHEMA_VERSION, "documents": rows})
    write_json(job.model_dir / EVALUATION, evaluation)
    return _figures(evaluation)


def _open(job: Job) -> Scene:
    """Check both channels, export the model and load it again."""
    import torch
    from tokenizers import Tokenizer

    max_tokens = job.parameter("max_held_out_tokens", MAX_HELD_OUT_TOKENS)
    if max_tokens < 1000:
        raise BadInput(f"hyper-parameter max_held_out_tokens={max_tokens} must be at least 1000")
    seed = job.parameter("seed", 0)
    folder, corpus_folder = job.channel("model"), job.channel("corpus")
    _check_final(folder / "mark.json")
    corpus, record = open_corpus(corpus_folder), read_record(folder / "state")
    target = job.model_dir / MODEL
    export(folder / "state", corpus_folder, target)
    tokenizer = Tokenizer.from_file(str(target / "tokenizer.json"))
    documents = read_documents(corpus, tokenizer, max_tokens, seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load(target, record["architecture"]).to(device)
    return Scene(
        job=job,
        model=model,
        tokenizer=tokenizer,
        corpus=corpus,
        documents=documents,
        record=record,
        context=_context(record),
        seed=seed,
        device=device,
    )


def _check_final(file: Path) -> None:
    if not file.is_file():
        raise BadInput(
            "channel model: it holds no mark.json, which is written last: the segment has not come to its end"
        )
    mark = json.loads(file.read_bytes())
    if mark.get("schema_version") != 1:
        raise BadInput(f"channel model: schema_version {mark.get('schema_version')!r} of mark.json is not 1")
    if mark["step"] < mark["steps"]:
        raise BadInput(f"channel model: step {mark['step']} of {mark['steps']}: it is not the last segment's output")


def _context(record: Mapping[str, Any]) -> int:
    """Tokens that the model reads at once; T5's configuration does not tell, so its size does."""
    if context := record["model_config"].get("max_position_embeddings"):
        return int(context)
    if record["size"] not in PRESETS:
        raise BadInput(f"channel model: size {record['size']!r} of state.json is none of {', '.join(PRESETS)}")
    return PRESETS[record["size"]].context


def load(folder: Path, architecture: str) -> Any:
    """The model of an exported folder, as its users load it; BadInput if weights are missing or left over."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    kind = AutoModelForCausalLM if architecture == "decoder" else AutoModelForSeq2SeqLM
    try:
        model, found = kind.from_pretrained(folder, local_files_only=True, output_loading_info=True)
        AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (ValueError, RuntimeError, KeyError) as error:
        raise BadInput(f"channel model: transformers cannot load what was exported: {error}") from error
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if found[what]:
            raise BadInput(f"channel model: {what} in state.safetensors: {sorted(map(str, found[what]))[:5]}")
    return model.eval()


def _figures(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The few that a job's page has room for."""
    held_out, baselines = evaluation["held_out"], evaluation["baselines"]
    figures = {
        name: held_out[name] for name in ("loss_nats_per_token", "perplexity", "bits_per_byte") if name in held_out
    }
    figures |= {
        f"{name}_{unit}": value for name, one in baselines.items() for unit, value in one.items() if "per" in unit
    }
    return {**figures, "zero_shot_accuracy": evaluation["zero_shot"]["accuracy"]}
