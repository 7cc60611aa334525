"""Measure what ingestion and search cost: `make bench`.

Prints ratios against baselines that are measured in the same run, on documents of the demo. Shared cores make absolute
times differ from run to run; what counts: the machine is whatever it is, and both sides of a ratio run on it one after
the other. Rates are per second of processor time, the reading process's included, so that a busy machine moves them
less. How good search is, is measured by `python -m benchmarks.retrieval`.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
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
from include.rag.loaders import load
from include.rag.plan import make_chunker
from include.rag.search import search
from include.rag.source import SETTLED_S
from include.rag.stores import open_store

QUESTIONS = [
    "How do I retry a task with exponential backoff?",
    "What limits how many tasks run at once?",
    "How do I keep XComs in object storage?",
    "What does catchup mean?",
    "How do I start a SageMaker training job?",
]
STEPS = ("plan", "embed", "commit", "check", "evaluate")


def processor_s() -> float:
    """Seconds of this process and of its ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Processor seconds, wall seconds, result."""
    cpu, wall = processor_s(), time.perf_counter()
    result = work()
    return processor_s() - cpu, time.perf_counter() - wall, result


def ingest(run_id: str, source: Path, index: str, **params: Any) -> dict[str, Any]:
    """All steps of the DAG in this process, one shard after the other; the counts, and wall seconds by step."""
    values = {"source": str(source), "index": index, "chunk_tokens": 200, "overlap_tokens": 30, **params}
    config = pipeline.prepare({"documents_per_shard": 50, "embedder": "minilm", **values}, run_id)
    seconds: dict[str, float] = {}

    def step(name: str, work: Callable[[], Any]) -> Any:
        _, seconds[name], result = timed(work)
        return result

    shards = step("plan", lambda: pipeline.plan(config))
    step("embed", lambda: [pipeline.embed(config, shard, dag_id="bench", task_id=shard) for shard in shards])
    step("commit", lambda: pipeline.commit(config))
    counts = step("check", lambda: pipeline.check(config))
    step("evaluate", lambda: pipeline.evaluate(config, dag_id="bench", task_id="evaluate"))
    return {**counts, "config": config, "seconds": seconds}


def texts_of(config: IngestConfig, folder: Path) -> list[list[str]]:
    """What the embedder is given, in the batches that ingestion makes."""
    chunker = make_chunker(config)
    batches: list[list[str]] = []
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for start in range(0, len(files), 16):
        documents = [load(path.read_bytes(), path.name) for path in files[start : start + 16]]
        batches.append([chunk.for_embedding(d.title) for d in documents for chunk in chunker.split(d)])
    return batches


def main() -> int:
    """Print the tables; the numbers of documents may be given."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--documents", type=int, default=160, help="of the demo's, embedded by the default model")
    parser.add_argument("--many", type=int, default=10_000, help="small ones, embedded by hashing")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["FMOPS_STORAGE_ROOT"] = (Path(scratch) / "storage").as_uri()
        print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; one task at a time")
        measure(Path(scratch), options.documents)
        measure_many(Path(scratch), options.many)
    return 0


def measure(scratch: Path, count: int) -> None:
    """Cold, unchanged and little changed ingestion of some of the demo's documents, then search."""
    root = os.environ["FMOPS_STORAGE_ROOT"]
    build(demo_home(root), "demo")
    source = scratch / "source"
    files = sorted(p for p in Path(demo_home(root).path).rglob("*") if p.is_file())
    for path in files[:: max(1, len(files) // count)][:count]:
        target = source / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    settle()

    cold_cpu, cold_wall, cold = timed(lambda: ingest("cold", source, "bench"))
    batches = texts_of(IngestConfig(**cold["config"]), source)
    chunks = sum(map(len, batches))
    model = MiniLM()
    model.embed(["warm"])
    sorted_cpu, _, _ = timed(lambda: [model.embed(batch) for batch in batches])
    unsorted_cpu, _, _ = timed(lambda: [_unsorted(model, batch) for batch in batches])
    _, again_wall, again = timed(lambda: ingest("again", source, "bench"))
    changed = change(source, max(1, count // 100))
    _, changed_wall, few = timed(lambda: ingest("changed", source, "bench"))

    print(f"\n{cold['added']} documents, {chunks} chunks of at most 200 tokens, default embedder\n")
    row("embedder alone, texts as they come", chunks / unsorted_cpu, "chunks/CPU-s", "baseline 1")
    row("embedder alone, sorted by length", chunks / sorted_cpu, "chunks/CPU-s", times(unsorted_cpu, sorted_cpu, 1))
    evaluating = cold["seconds"]["evaluate"]
    own_rate = f"{sorted_cpu / (cold_cpu - evaluating):.0%} of the embedder's own rate"
    row("ingestion, cold", chunks / (cold_cpu - evaluating), "chunks/CPU-s", own_rate)
    row("ingestion, cold", cold_wall - evaluating, "s", "baseline 2")
    row("evaluation of the index", evaluating, "s", times(evaluating, cold_wall - evaluating, 2))
    nothing = f"embedded {again['chunks_embedded']}, written {again['chunks_written']}"
    row("unchanged, evaluation included", again_wall, "s", f"{again_wall / cold_wall:.1%} of cold; {nothing}")
    exact = f"{few['changed']} of {changed} changed read again, {few['chunks_embedded']} chunks embedded"
    row(f"{changed} documents changed", changed_wall, "s", exact)
    measure_search(root, model)


def measure_many(scratch: Path, count: int) -> None:
    """What a document costs beside its embedding, cold and unchanged."""
    source = scratch / "many"
    for number in range(count):
        path = source / f"{number // 1000:03d}" / f"{number:06d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"Document {number} speaks of matter {number % 97}, and of nothing else.\n")
    settle()
    options = {"embedder": "hashing", "documents_per_shard": 1000}
    _, cold_wall, _ = timed(lambda: ingest("cold", source, "many", **options))
    _, again_wall, again = timed(lambda: ingest("again", source, "many", **options))
    changed = change(source, count // 100)
    _, changed_wall, few = timed(lambda: ingest("changed", source, "many", **options))
    print(f"\n{count} documents of one chunk, embedded by hashing words\n")
    row("cold", cold_wall / count * 1000, "ms/document", "baseline 4")
    plan = again["seconds"]["plan"]
    row(
        "unchanged",
        again_wall,
        "s",
        f"{again_wall / cold_wall:.1%} of cold; {plan / count * 1e6:.0f} us/document to plan",
    )
    exact = f"{few['changed']} of {changed} changed read again, {few['chunks_embedded']} chunks embedded"
    row("1 % changed", changed_wall, "s", f"{changed_wall / cold_wall:.1%} of cold; {exact}")


def change(source: Path, count: int) -> int:
    """Add a sentence to the first texts in the order of their names; how many."""
    files = sorted(path for path in source.rglob("*") if path.suffix in (".md", ".txt"))[:count]
    for path in files:
        path.write_text(path.read_text() + "\nThis sentence was added.\n")
    return len(files)


def settle() -> None:
    """Let the files rest, as a user's mostly have: the stamps of files that just changed are not relied on."""
    time.sleep(SETTLED_S + 0.5)


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
