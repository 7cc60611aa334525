"""Measure RAG ingestion against baselines taken in the same run: `make bench`.

Ratios are what counts: the machine is whatever it is, and both sides of a ratio run on it one after the other. Rates
are per second of processor time, so that a busy machine moves them less.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from include.models.embeddings import MiniLM
from include.rag import pipeline
from include.rag.config import IngestConfig, demo_home, index_home
from include.rag.demo import build
from include.rag.load import load
from include.rag.plan import make_chunker
from include.rag.search import search
from include.rag.stores import open_store

QUESTIONS = [
    "How do I retry a task with exponential backoff?",
    "What limits how many tasks run at once?",
    "How do I keep XComs in object storage?",
    "What does catchup mean?",
    "How do I start a SageMaker training job?",
]


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Processor seconds, wall seconds, result."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    return time.process_time() - cpu, time.perf_counter() - wall, result


def ingest(run_id: str, index: str) -> dict[str, Any]:
    """All steps of the DAG in this process, one shard after the other."""
    config = pipeline.prepare({"source": os.environ["BENCH_SOURCE"], "index": index, **PARAMS}, run_id)
    for shard in pipeline.plan(config):
        pipeline.embed(config, shard, dag_id="bench", task_id=shard)
    pipeline.commit(config)
    return {**pipeline.check(config), "config": config}


PARAMS = {"chunk_tokens": 200, "overlap_tokens": 30, "documents_per_shard": 50, "embedder": "minilm"}


def texts_of(config: IngestConfig, folder: Path, count: int) -> list[list[str]]:
    """What the embedder is given, in the batches that ingestion makes."""
    chunker = make_chunker(config)
    batches: list[list[str]] = []
    files = sorted(path for path in folder.rglob("*") if path.is_file())[:count]
    for start in range(0, len(files), 16):
        documents = [load(path.read_bytes(), path.name) for path in files[start : start + 16]]
        batches.append([chunk.for_embedding(d.title) for d in documents for chunk in chunker.split(d)])
    return batches


def main() -> int:
    """Print the table; the number of documents may be given."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--documents", type=int, default=160)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measure(Path(scratch), options.documents)
    return 0


def measure(scratch: Path, count: int) -> None:
    """Run everything below a scratch folder and print as it goes."""
    os.environ["FMOPS_STORAGE_ROOT"] = (scratch / "storage").as_uri()
    root = os.environ["FMOPS_STORAGE_ROOT"]
    build(demo_home(root), "demo")
    source = scratch / "source"
    files = sorted(p for p in Path(demo_home(root).path).rglob("*") if p.is_file())
    for path in files[:: max(1, len(files) // count)][:count]:
        target = source / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    os.environ["BENCH_SOURCE"] = str(source)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; one process, one thread")

    cold_cpu, cold_wall, cold = timed(lambda: ingest("cold", "bench"))
    config = IngestConfig(**cold["config"])
    batches = texts_of(config, source, count)
    chunks = sum(map(len, batches))
    model = MiniLM()
    model.embed(["warm"])
    sorted_cpu, _, _ = timed(lambda: [model.embed(batch) for batch in batches])
    unsorted_cpu, _, _ = timed(lambda: [_unsorted(model, batch) for batch in batches])
    again_cpu, again_wall, again = timed(lambda: ingest("again", "bench"))

    print(f"\n{cold['added']} documents, {chunks} chunks of at most {config.chunk_tokens} tokens\n")
    row("embedder alone, texts as they come", chunks / unsorted_cpu, "chunks/CPU-s", "baseline 1")
    row("embedder alone, sorted by length", chunks / sorted_cpu, "chunks/CPU-s", times(unsorted_cpu, sorted_cpu, 1))
    own_rate = f"{sorted_cpu / cold_cpu:.0%} of the embedder's own rate"
    row("ingestion, cold", chunks / cold_cpu, "chunks/CPU-s", own_rate)
    row("ingestion, cold", cold_wall, "s", "baseline 2")
    nothing = f"embedded {again['chunks_embedded']}, written {again['chunks_written']}"
    row("ingestion, unchanged", again_wall, "s", f"{again_wall / cold_wall:.1%} of baseline 2; {nothing}")
    measure_search(root, model)


def measure_search(root: str, model: MiniLM) -> None:
    """Median time of a search, by side and fused."""
    store = open_store("lancedb", index_home(root, "default", "bench"), model.dimension)
    vectors = model.embed(QUESTIONS)
    where = {"tenant": "default"}
    base = median_ms(lambda n: store.full_text(QUESTIONS[n], 100, where))
    dense = median_ms(lambda n: store.dense(vectors[n], 100, where))
    both = median_ms(lambda n: search(QUESTIONS[n], index="bench"))
    row("search, full text", base, "ms", "baseline 3")
    row("search, by meaning (exact)", dense, "ms", times(dense, base, 3))
    row("search, question to passages", both, "ms", times(both, base, 3))


def median_ms(work: Callable[[int], Any]) -> float:
    """Median wall time of one call over 25, after one that loads what is loaded once."""
    work(0)
    return statistics.median(timed(partial(work, n % len(QUESTIONS)))[1] for n in range(25)) * 1000


def times(value: float, base: float, baseline: int) -> str:
    """A ratio in words."""
    return f"{value / base:.2f} x baseline {baseline}"


def _unsorted(model: MiniLM, texts: list[str]) -> None:
    for start in range(0, len(texts), model.batch):
        model.embed(texts[start : start + model.batch])


def row(name: str, value: float, unit: str, note: str) -> None:
    """One line of the table."""
    print(f"{name:36} {value:9.1f} {unit:13} {note}")


if __name__ == "__main__":
    sys.exit(main())
