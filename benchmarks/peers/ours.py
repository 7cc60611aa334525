"""This project: the steps of the DAG one after the other, with ledger, dead letters, and LanceDB on disk."""

from __future__ import annotations

import importlib
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peers import common
from include.models import embeddings
from include.rag import pipeline
from include.rag.config import IngestConfig

if TYPE_CHECKING:
    from include.models.embeddings import Hashing

# Imported where they are needed, to keep a DAG's parsing light; not measured, as the peers' imports are not.
for name in ("lancedb.index", "lancedb.expr", "numpy", "pyarrow.parquet", "pyarrow.compute", "semantic_text_splitter"):
    importlib.import_module(name)


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
        "documents_per_shard": 1000,
        "on_many_deletions": "delete",
    }
    config = pipeline.prepare(params, uuid.uuid4().hex)
    for shard in pipeline.plan(config):
        pipeline.embed(config, shard, dag_id="bench", task_id=shard)
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
    common.main(ingest, contents)
