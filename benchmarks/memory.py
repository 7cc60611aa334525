"""The peak memory of each step's process, for some documents and for many: it shall not grow with their number."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from benchmarks.ingestion import write_small
from benchmarks.measuring import settle
from benchmarks.step import run
from include.rag import pipeline

PER_SHARD = 1000
ALLOWED = 1.1


def measure_memory(scratch: Path, counts: tuple[int, int]) -> dict[str, float]:
    """Print a line for each step; by how much its peak grows from the smaller to the larger number of documents."""
    few, many = (peaks(scratch / f"memory-{count}", count) for count in counts)
    print(f"\nPeak MiB of each step's process, documents of one chunk, {PER_SHARD:,} a shard\n")
    print(f"{'':24}{f'{counts[0]:,}':>12}{f'{counts[1]:,}':>12}{'ratio':>9}")
    for step in few:
        print(f"{step:24}{few[step]:12,.0f}{many[step]:12,.0f}{many[step] / few[step]:9.2f}")
    return {step: many[step] / few[step] for step in few}


def peaks(scratch: Path, count: int) -> dict[str, float]:
    """The peak of each step: cold, then of the steps of a run that finds nothing changed."""
    source = scratch / "source"
    write_small(source, count)
    settle()
    found = _ingest(source, f"memory-{count}", "cold")
    again = _ingest(source, f"memory-{count}", "again")
    shutil.rmtree(scratch)
    return found | {f"{step}, unchanged": again[step] for step in again if step != "embed"}


def _ingest(source: Path, index: str, run_id: str) -> dict[str, float]:
    params = {"source": str(source), "index": index, "embedder": "hashing", "documents_per_shard": PER_SHARD}
    config: dict[str, Any] = pipeline.prepare({"chunk_tokens": 200, "overlap_tokens": 30, **params}, run_id)
    planned = run("plan", config)
    found = {"plan": planned["peak_mb"]}
    found["embed"] = max((run("embed", config, shard)["peak_mb"] for shard in planned["result"]), default=0.0)
    pipeline.settle(config, pipeline.guard(config), None)
    return found | {step: run(step, config)["peak_mb"] for step in ("commit", "check", "evaluate")}
