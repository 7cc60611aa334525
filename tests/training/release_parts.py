"""What a release is made from, planted: the output of an evaluation job, and a packed corpus."""

from __future__ import annotations

import hashlib
import math
from typing import Any

from upath import UPath

from include.storage import location, write_bytes, write_json
from include.training.corpus_manifest import CorpusManifest, PackedFile, Totals, totals
from include.training.release import Order

CORPUS_DIGEST, TOKENIZER_DIGEST = "c" * 64, "d" * 64
TOKENS, BYTES = 1000, 3000
"""Of the held-out documents that are evaluated on, together."""
DOCUMENTS = 10
MODEL_FILES = {
    "model/config.json": b"{}",
    "model/model.safetensors": bytes(range(256)) * 40,
    "model/tokenizer.json": b'{"model": {}}',
}


def evaluation(architecture: str = "decoder", bits_per_byte: float = 1.5, **other: Any) -> dict[str, Any]:
    """evaluation.json of a model of some cost on held-out text."""
    nats = bits_per_byte * math.log(2) * BYTES / TOKENS
    sums = {"documents": DOCUMENTS, "tokens": TOKENS, "bytes": BYTES, "loss_nats_per_token": nats,
            "perplexity": math.exp(nats)}  # fmt: skip
    figure = {"bits_per_byte": bits_per_byte} if architecture == "decoder" else {}
    baselines: dict[str, Any] = {"unigram": {"loss_nats_per_token": 6.0}}
    if architecture == "decoder":
        baselines = {"ngram": {"order": 3, "tokens": 5000, "bits_per_byte": 2.0}, "zlib": {"bits_per_byte": 2.5}}
    found: dict[str, Any] = {
        "schema_version": 1,
        "architecture": architecture,
        "size": "tiny",
        "step": 100,
        "parameters": 2_000_000,
        "tokens_seen": 409_600,
        "corpus_digest": CORPUS_DIGEST,
        "tokenizer_digest": TOKENIZER_DIGEST,
        "config_digest": "e" * 64,
        "seed": 0,
        "held_out": {**sums, **figure, "by_source": {"docs": {**sums, **figure}}},
        "baselines": baselines,
        "zero_shot": {"task": "which of four", "items": 40, "accuracy": 0.5, "low": 0.35, "high": 0.65, "chance": 0.25},
        "samples": [{"kind": "greedy", "prompt": "A task", "continuation": " is run by a worker."}],
        "curve": [point(step) for step in range(10, 110, 10)],
    }
    if architecture != "decoder":
        found["span_denoising"] = {"loss_nats_per_token": nats, "loss_with_sentinels": nats / 2}
    return {**found, **other}


def point(step: int) -> dict[str, float]:
    """Of a curve."""
    loss = 2 + 6 * math.exp(-step / 30)
    found = {"step": step, "loss": loss, "bits_per_byte": loss / 2, "grad_norm": 1 + 1 / step, "learning_rate": 1e-3}
    return found | ({"held_out_loss": loss + 0.1} if step % 50 == 0 else {})


def per_document(bits_per_byte: float = 1.5, spread: float = 0.0) -> dict[str, Any]:
    """per_document.json that goes with it."""
    size, tokens = BYTES // DOCUMENTS, TOKENS // DOCUMENTS
    rows = [
        {"source": "docs", "number": number, "bytes": size, "tokens": tokens,
         "model_bits": (bits_per_byte + spread * (-1) ** number) * size, "baseline_bits": 2.0 * size}
        for number in range(DOCUMENTS)
    ]  # fmt: skip
    return {"schema_version": 1, "documents": rows}


def plant_output(place: str, evaluated: dict[str, Any] | None = None, **files: Any) -> str:
    """The output of an evaluation job; `files` replaces or adds some, by path, before the manifest is written."""
    folder = location(place)
    evaluated = evaluated or evaluation()
    for path, data in MODEL_FILES.items():
        write_bytes(folder / path, data)
    write_json(folder / "evaluation.json", evaluated)
    write_json(folder / "per_document.json", per_document(evaluated["held_out"].get("bits_per_byte", 1.5)))
    for path, value in files.items():
        write_bytes(folder / path, value) if isinstance(value, bytes) else write_json(folder / path, value)
    write_manifest(folder, sorted({*MODEL_FILES, "evaluation.json", "per_document.json", *files}))
    return place


def write_manifest(folder: UPath, paths: list[str]) -> None:
    """What a job's harness writes last."""
    files = []
    for path in paths:
        data = (folder / path).read_bytes()
        files.append({"path": path, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    write_json(folder / "manifest.json", {"schema_version": 1, "files": files, "metrics": {}})


def plant_corpus(place: str, licences: tuple[str, ...] = ("Apache-2.0",), **report: Any) -> str:
    """A packed corpus of zeros."""
    folder = location(place)
    files = []
    for path, split, source in (("train-00000.bin", "train", None), ("held_out-docs.bin", "held_out", "docs")):
        tokens = 100 * len(licences)
        write_bytes(folder / path, bytes(2 * tokens))
        values: Any = {
            "path": path,
            "split": split,
            "source": source,
            "tokens": tokens,
            "documents": 4,
            "bytes": 900,
            "sha256": hashlib.sha256(bytes(2 * tokens)).hexdigest(),
            "sources": {"docs": tokens},
            "licences": dict.fromkeys(licences, 100),
        }
        files.append(PackedFile(**values))
        write_bytes(folder / files[-1].table, b"")
    manifest = CorpusManifest(
        corpus_digest=CORPUS_DIGEST,
        tokenizer_digest=TOKENIZER_DIGEST,
        vocab_size=500,
        end_id=0,
        pad_id=1,
        sentinels=(400, 100),
        files=tuple(files),
        train=totals(one for one in files if one.split == "train"),
        held_out=Totals.model_validate(totals(one for one in files if one.split == "held_out").model_dump()),
    )
    for name in ("tokenizer.json", "tokenizer_report.json"):
        write_json(folder / name, {})
    write_json(folder / "report.json", {"schema_version": 1, "steps": [], **report})
    write_bytes(folder / "manifest.json", manifest.model_dump_json().encode())
    return place


def an_order(root: str, **other: Any) -> Order:
    """What a DAG asks for; its output and corpus are planted unless they are named."""
    if "output_uri" not in other:
        plant_output(f"{root}/output")
    if "corpus_uri" not in other:
        plant_corpus(f"{root}/corpus")
    values: dict[str, Any] = {
        "tenant": "acme",
        "use_case": "docs",
        "name": "base",
        "output_uri": f"{root}/output",
        "corpus_uri": f"{root}/corpus",
        "config": {"steps": 100, "learning_rate": 4e-3, "schedule": "cosine"},
        "code_digest": "abc123",
        "jobs": ("train-1-g1", "evaluate-1-g1"),
        "instance_seconds": 240.0,
        "hardware": "this machine, 2 cores",
        "dag_id": "pretraining",
        "run_id": "manual__2030-01-01",
    }
    return Order(**{**values, **other})
