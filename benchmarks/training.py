"""How fast the trainer is, against this machine's matrix product and a bare loop; and what a small model comes to."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import row, times
from include.training import pipeline
from include.training.presets import PRESETS
from local.home import PROJECT
from local.setup_environment import JOBS

SIZES = ("tiny", "mini")
BATCH_TOKENS = 2048
"""Of a step: of `mini` half as many as it has by default, of which two cores do 20 steps in a minute."""
CHARACTERS_HELD_OUT = 0.1


def measure_training(scratch: Path) -> None:
    """Print the table; the corpus is the demo's documentation."""
    print("\ntraining, on the demo's documentation; a matrix product is float32, 1024 x 1024, with the same threads")
    for size in SIZES:
        corpus = pack_demo(size)
        for precision in ("fp32", "auto"):
            print_speed(size, precision, _in_jobs(f"speed:{size}:{precision}:{BATCH_TOKENS}", corpus, scratch))
        if PRESETS[size].cpu_processes > 1:
            print_shared(size, _in_jobs(f"shared:{size}", corpus, scratch))
    text_of = pack_characters(pack_demo("tiny"), scratch / "characters")
    found = _in_jobs("characters", text_of, scratch)
    name = "characters, 4 x 128, 2,000 steps"
    row(name, found["held_out_loss"], "nats", f"held out; {found['loss']:.2f} of what it trained on, one token each")
    row("", found["seconds"], "s", f"{found['tokens_per_s']:,.0f} characters a second, {found['parameters']:,} weights")


def print_speed(size: str, precision: str, found: dict[str, Any]) -> None:
    """A preset's rows; baseline 1 is the matrix product, 2 the bare loop."""
    rate, matmul = found["step_gflop"] / found["trainer_s"], found["matmul_gflops"]
    name = f"{size}, {precision}"
    weights = f"{found['parameters'] / 1e6:.1f} M weights, {found['batch_tokens']:,} tokens a step"
    row(name, rate, "GFLOP/s", f"{times(rate, matmul, 1)}; {weights}, {found['threads']} threads")
    row("  1 matrix product", matmul, "GFLOP/s", "")
    row("  steps", 60 / found["trainer_s"], "a minute", f"{times(found['bare_s'], found['trainer_s'], 2)} in speed")
    row("  2 bare loop", 60 / found["bare_s"], "a minute", "")
    row("  loader", 100 * found["loader_s"] / found["trainer_s"], "% of a step", "")


def print_shared(size: str, found: dict[str, Any]) -> None:
    """The row of a preset that several processes share the cores for; baseline 1 is as many products at a time."""
    said = f"{times(found['model_gflops'], found['matmul_gflops'], 1)}; {found['tokens_per_s']:,.0f} tokens a second"
    row(f"{size}, as it comes", found["model_gflops"], "GFLOP/s", f"{said}, {found['processes']} processes")
    row("  1 matrix product", found["matmul_gflops"], "GFLOP/s", "")


def pack_demo(size: str) -> Path:
    """The demo's documentation, packed for a preset by the DAG's own steps; the folder."""
    config = pipeline.prepare({"size": size, "batch_tokens": PRESETS[size].context}, f"bench-{size}")
    listed = pipeline.list_documents(config)
    for shard in listed["shards"]:
        pipeline.curate(config, listed, shard)
    pipeline.deduplicate(config, listed)
    pipeline.make_tokenizer(config, listed)
    for shard in listed["shards"]:
        pipeline.pack(listed, shard)
    return Path(pipeline.finish(config, listed)["uri"].removeprefix("file://"))


def pack_characters(corpus: Path, target: Path) -> Path:
    """The texts of a packed corpus, a token for each character, in a corpus of their own; about a megabyte."""
    from include.storage import local_uri, location
    from include.training.tokenizer import open_tokenizer

    manifest = json.loads((corpus / "manifest.json").read_text())
    tokenizer = open_tokenizer(location(local_uri(str(corpus))) / "tokenizer.json")
    files = [one["path"] for one in manifest["files"] if one["split"] == "train"]
    ids = np.concatenate([np.fromfile(corpus / name, "<u2") for name in files])
    text = tokenizer.decode(ids[ids != manifest["end_id"]].tolist())
    alphabet = {character: 1 + number for number, character in enumerate(sorted(set(text)))}
    tokens = np.array([alphabet[character] for character in text], "<u2")
    cut = int(len(tokens) * (1 - CHARACTERS_HELD_OUT))
    target.mkdir(parents=True)
    listed, sums = [], {}
    for split, source, name, part in (
        ("train", None, "train-00000.bin", tokens[:cut]),
        ("held_out", "text", "held_out-text.bin", tokens[cut:]),
    ):
        part.tofile(target / name)
        listed.append({"path": name, "split": split, "source": source, "tokens": len(part)})
        sums[split] = {"tokens": len(part), "documents": 1, "bytes": len(part)}
    about = {"corpus_digest": "characters", "tokenizer_digest": "characters", "vocab_size": len(alphabet) + 1}
    ids_of = {"end_id": 0, "pad_id": 0, "sentinels": [0, 1]}
    whole = {"schema_version": 1, **about, **ids_of, "files": listed, **sums}
    (target / "manifest.json").write_text(json.dumps(whole))
    return target


def _in_jobs(what: str, corpus: Path, scratch: Path) -> dict[str, Any]:
    """What benchmarks/train_step.py prints, run in the jobs environment."""
    python = JOBS.path(PROJECT, os.environ) / "bin" / "python"
    folder = scratch / what.replace(":", "-")
    command = [str(python), "-m", "benchmarks.train_step", what, str(corpus), str(folder)]
    done = subprocess.run(command, cwd=PROJECT, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
