"""This project: the steps of the DAG, with ledger, dead letters, and LanceDB on disk.

One shard after the other; with FMOPS_BENCH_WORKERS as many at a time, as Airflow runs them, in processes that have
started before the clock does.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import uuid
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.peers import common
from include.models import embeddings
from include.rag import pipeline
from include.rag.config import IngestConfig

if TYPE_CHECKING:
    from include.models.embeddings import Hashing

# Imported where they are needed, to keep a DAG's parsing light; not measured, as the peers' imports are not.
for name in ("lancedb.index", "lancedb.expr", "numpy", "pyarrow.parquet", "pyarrow.compute", "semantic_text_splitter"):
    importlib.import_module(name)


WORKERS = int(os.environ.get("FMOPS_BENCH_WORKERS", "1"))
POOL: ProcessPoolExecutor | None = None


def start_workers() -> ProcessPoolExecutor:
    """Processes that have imported what they need."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(WORKERS + 1)
    pool = ProcessPoolExecutor(WORKERS, mp_context=context, initializer=ready.wait)
    for _ in range(WORKERS):
        pool.submit(os.getpid)
    ready.wait()
    return pool


def embed(config: dict[str, Any], shard: str) -> int:
    """One mapped task; how many texts it embedded."""
    return int(pipeline.embed(config, shard, dag_id="bench", task_id=shard)["chunks_embedded"])


def ingest(source: Path, home: Path, embedder: Hashing) -> None:
    """From plan to check."""
    os.environ["FMOPS_STORAGE_ROOT"] = home.resolve().as_uri()
    embeddings.EMBEDDERS["hashing"] = lambda: embedder
    params = {
        "source": str(source),
        "index": "peers",
        "embedder": "hashing",
        "chunk_tokens": common.CHUNK_TOKENS,
        "overlap_tokens": common.OVERLAP_TOKENS,
        "documents_per_shard": 700,
        "on_many_deletions": "delete",
    }
    config = pipeline.prepare(params, uuid.uuid4().hex)
    shards = pipeline.plan(config)
    if POOL:
        embedder.texts += sum(POOL.map(partial(embed, config), shards))
    else:
        for shard in shards:
            embed(config, shard)
    pipeline.settle(config, pipeline.guard(config), None)
    pipeline.commit(config)
    pipeline.check(config)
    (home / "config.json").write_text(IngestConfig(**config).model_dump_json())


def contents(home: Path) -> common.Contents:
    """Every chunk of the store."""
    store = IngestConfig.model_validate_json((home / "config.json").read_text()).open_store()
    rows = store.rows(list(store.documents())).select(["path", "text"])
    return zip(rows["path"].to_pylist(), rows["text"].to_pylist(), strict=True)


if __name__ == "__main__":
    if WORKERS > 1:
        POOL = start_workers()
    common.main(ingest, contents)
