"""Where a passage comes from: which version of which document, and which run put it into the index.

    python -m include.rag.trace CHUNK --index docs

A chunk's id is in every passage that search() finds, and `make ask` prints it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from include.config import Settings, load_settings
from include.errors import DriftError, UserError
from include.names import checked
from include.rag.ledger import Entry, Ledger
from include.rag.search import live_version
from include.rag.versions import Versions, version_name
from include.storage import run_key


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """What the live version of an index knows of one of its chunks."""

    chunk: dict[str, Any]
    """The stored row, without its vector."""
    entry: Entry
    """Its document in the ledger: path, digest of the bytes, the source's own version mark, run and time."""
    index_version: str
    ledger_version: int
    manifest_uri: str
    """Of the run that put it there."""
    history: tuple[tuple[int, Entry], ...]
    """The document at each version of the ledger that changed it, oldest first."""


def trace(chunk_id: str, *, index: str, tenant: str | None = None, settings: Settings | None = None) -> Origin:
    """The origin of a chunk of the live version; UserError if there is none, DriftError if the ledger denies it."""
    import numpy as np

    settings = settings or load_settings()
    versions = Versions(settings.root, checked("tenant", tenant or settings.tenant), checked("index", index))
    number, embedder, store = live_version(versions)
    if adopted := versions.get(number).adopted:
        raise UserError(
            f"the live {version_name(number)} of index {index!r} was adopted from {adopted.place}: no run of ours "
            "built it, and no ledger knows where its chunks are from"
        )
    # Any vector will do: the filter leaves one row, whatever the store.
    found = store.dense(np.eye(1, embedder.dimension, dtype=np.float32)[0], 1, {"id": chunk_id})
    if not found:
        raise UserError(f"the live {version_name(number)} of index {index!r} holds no chunk {chunk_id!r}")
    row = found[0].row
    ledger = Ledger(versions.home_of(number))
    current = ledger.version()
    history = tuple(ledger.history(row["doc_id"]))
    entry = history[-1][1] if history else None
    if entry is None or entry.content_digest != row["content_digest"]:
        raise DriftError(f"the ledger does not know chunk {chunk_id!r} of {row['path']}: run rag_ingestion, it repairs")
    return Origin(
        chunk=row,
        entry=entry,
        index_version=version_name(number),
        ledger_version=current,
        manifest_uri=str(versions.home / "runs" / run_key(entry.run_id) / "manifest.json"),
        history=history,
    )


def lines(origin: Origin) -> list[str]:
    """The origin as lines for a terminal."""
    row, entry = origin.chunk, origin.entry
    place = f"characters {row['start']} to {row['end']}" + (f", page {row['page']}" if row["page"] else "")
    pairs = {
        "document": f"{entry.source}/{entry.path}" + (f" ({row['locator']})" if row["locator"] else ""),
        "place": place,
        "content": f"sha256 {entry.content_digest}",
        "source's mark": entry.source_version or "none: the file was being written when it was read",
        "made by": entry.pipeline,
        "put there by": f"run {entry.run_id}, {entry.ingested_at}",
        "manifest": origin.manifest_uri,
        "in": f"{origin.index_version} of the index, ledger version {origin.ledger_version}",
    }
    history = [f"  ledger {number}: {one.content_digest[:12]} by run {one.run_id}" for number, one in origin.history]
    return [*(f"{name:<14}{value}" for name, value in pairs.items()), "history", *history]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the origin; 0, or 2 with one line if there is none."""
    parser = argparse.ArgumentParser(prog="python -m include.rag.trace")
    parser.add_argument("chunk")
    parser.add_argument("--index", default="docs")
    parser.add_argument("--tenant")
    options = parser.parse_args(arguments)
    try:
        origin = trace(options.chunk, index=options.index, tenant=options.tenant)
    except (UserError, DriftError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write("\n".join(lines(origin)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
