"""What a plan over a million unchanged files takes: `python -m benchmarks.scale [--files N] [--scratch FOLDER]`.

The files are real, and so are their stamps: the listing that a run makes gives them. Ledger, stamps and store are
filled by the project's own writers, but not by ingesting the files, which would take an hour: every chunk has the same
vector, and full text is not indexed. A plan reads neither. A million files take 5 GB of disk, and an inode each.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.ingestion import write_small
from benchmarks.measuring import settle
from benchmarks.step import run
from include.contracts import now
from include.documents.source import document_id
from include.models.embeddings import get_embedder
from include.rag import pipeline
from include.rag.config import IngestConfig
from include.rag.embed import chunk_id
from include.rag.ledger import STAMP_COLUMNS, Entry, Keyed, Ledger, Pointer, Snapshot
from include.rag.plan import pipeline_name, read_plan
from include.rag.stores import chunk_schema

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_WRITE = 100_000
RUN = "before"


def main() -> int:
    """Build the state, plan, print; 1 if the plan finds anything to do."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale")
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument(
        "--scratch", type=Path, help="a folder to work in; the system's own for temporary files if none"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        os.environ["FMOPS_STORAGE_ROOT"] = (Path(folder) / "storage").as_uri()
        source = Path(folder) / "source"
        started = time.monotonic()
        write_small(source, options.files)
        settle()
        params = {"source": str(source), "index": "scale", "embedder": "hashing", "documents_per_shard": 1000}
        params |= {"chunk_tokens": 200, "overlap_tokens": 30}
        fill(IngestConfig(**pipeline.prepare(params, RUN)))
        print(
            f"{options.files:,} files, ledger, stamps and store made in {time.monotonic() - started:.0f} s", flush=True
        )
        config = pipeline.prepare(params, "again")
        found = run("plan", config)
        plan = read_plan(IngestConfig(**config))
    print(f"plan: {found['wall_s']:.0f} s ({found['cpu_s']:.0f} CPU-s), peak {found['peak_mb']:,.0f} MiB; ", end="")
    print(f"found {plan.found:,}, unchanged {plan.unchanged:,}, {len(found['result'])} shards")
    return 0 if (plan.unchanged, found["result"]) == (options.files, []) else 1


def fill(config: IngestConfig) -> None:
    """Ledger, stamps and store as if the source had been ingested."""
    store, ledger = config.open_store(), Ledger(config.home)
    listing = _listed(config)
    entries: list[pa.Table] = []
    stamps: list[pa.Table] = []
    while batch := list(islice(listing, ROWS_PER_WRITE)):
        kept, stamped, chunks = _rows(config, batch)
        store.replace([row["doc_id"] for row in batch], chunks)
        entries.append(kept)
        stamps.append(stamped)
    pointer = Pointer(version=1, run_id=RUN)
    ledger.commit(Snapshot(_sorted(entries)), pointer, expected_version=0)
    ledger.write_stamps(Keyed(_sorted(stamps)))


def _listed(config: IngestConfig) -> Iterator[dict[str, Any]]:
    """Id, path, stamp and digest of each file."""
    source = config.open_source()
    for found in source.list():
        yield {
            "doc_id": document_id(config.source, found.path),
            "path": found.path,
            "stamp": found.stamp,
            "source_version": found.stamp,
            "content_digest": source.digest(found.path),
        }


def _rows(config: IngestConfig, batch: list[dict[str, Any]]) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Of some files: rows of the ledger, of the stamps, and of the store, one chunk each."""
    import numpy as np
    import pyarrow as pa

    model, made_by = get_embedder(config.embedder), pipeline_name(config)
    own = {"source": config.source, "use_case": config.use_case, "run_id": RUN}
    entry = {**own, "pipeline": made_by, "title": "", "chunks": 1, "ingested_at": now().isoformat()}
    entries = pa.Table.from_pylist([{**_of(Entry.__dataclass_fields__, row), **entry} for row in batch])
    stamps = pa.Table.from_pylist([_of(STAMP_COLUMNS, row) for row in batch])
    chunk = {**own, "tenant": config.tenant, "text": "text", "ordinal": 0, "start": 0, "end": 4, "ingested_at": now()}
    chunk |= {"chunker": config.spec.chunker, "embedder": model.name}
    schema = chunk_schema(model.dimension)
    plain = pa.schema([field for field in schema if field.name != "vector"])
    chunks = [
        {"id": chunk_id(config.tenant, row["doc_id"], made_by, 0, "text"), **_of(schema.names, row), **chunk}
        for row in batch
    ]
    vectors = np.full(len(batch) * model.dimension, model.dimension**-0.5, dtype=np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors), model.dimension)
    table = pa.Table.from_pylist(chunks, schema=plain).append_column(schema.field("vector"), column)
    return entries, stamps, table.select(schema.names)


def _of(names: Any, row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in names if name in row}


def _sorted(tables: list[pa.Table]) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables(tables).sort_by("doc_id")


if __name__ == "__main__":
    sys.exit(main())
