"""What ingestion and search cost, against baselines that are measured in the same run, on documents of the demo."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measuring import change, row, settle, timed, times
from include.documents.demo import build
from include.documents.loaders import load
from include.models.embeddings import MiniLM
from include.rag import pipeline
from include.rag.config import IngestConfig, demo_home
from include.rag.search import live_version, search
from include.rag.versions import Versions

QUESTIONS = [
    "How do I retry a task with exponential backoff?",
    "What limits how many tasks run at once?",
    "How do I keep XComs in object storage?",
    "What does catchup mean?",
    "How do I start a SageMaker training job?",
]


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
    pipeline.settle(config, pipeline.guard(config), None)
    step("commit", lambda: pipeline.commit(config))
    counts = step("check", lambda: pipeline.check(config))
    step("evaluate", lambda: pipeline.evaluate(config, dag_id="bench", task_id="evaluate"))
    pipeline.switch(config)
    return {**counts, "config": config, "seconds": seconds}


def texts_of(config: IngestConfig, folder: Path) -> list[list[str]]:
    """What the embedder is given, in the batches that ingestion makes."""
    chunker = config.chunker()
    batches: list[list[str]] = []
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for start in range(0, len(files), 16):
        documents = [load(path.read_bytes(), path.name) for path in files[start : start + 16]]
        batches.append([chunk.for_embedding(d.title) for d in documents for chunk in chunker.split(d)])
    return batches


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
    write_small(source, count)
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


def write_small(source: Path, count: int) -> None:
    """Write documents of one chunk, a thousand to a folder."""
    for number in range(count):
        path = source / f"{number // 1000:03d}" / f"{number:06d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"Document {number} speaks of matter {number % 97}, and of nothing else.\n")


def measure_search(root: str, model: MiniLM) -> None:
    """Median time of a search, by side and fused."""
    _, _, store = live_version(Versions(root, "default", "bench"))
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


def _unsorted(model: MiniLM, texts: list[str]) -> None:
    for start in range(0, len(texts), model.batch):
        model.embed(texts[start : start + model.batch])
