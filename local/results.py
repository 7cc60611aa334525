"""Print what an ingestion run left behind, and what to do with it."""

from __future__ import annotations

from include.contracts import IngestionManifest
from include.storage import location, read_record

_OF_THE_FOUND = ("added", "changed", "unchanged", "empty", "quarantined", "vanished")


def print_results(manifest_uri: str) -> None:
    """Print the counts and places of a run from its manifest."""
    manifest = read_record(location(manifest_uri), IngestionManifest)
    counts = manifest.counts
    found = ", ".join(f"{getattr(counts, name)} {name}" for name in _OF_THE_FOUND)
    index = f" INDEX={manifest.index}" if manifest.index != "docs" else ""
    print(f"""
index {manifest.index}, from {manifest.source_uri}
  documents   {counts.found} found: {found}
              {counts.deleted} deleted since the last run, {counts.skipped} files skipped
  chunks      {counts.chunks_written} written, {counts.chunks_embedded} embedded by {manifest.embedder}
  in all      {counts.documents_total} documents, {counts.chunks_total} chunks
where
  {manifest.store:<11} {manifest.store_uri}
  ledger      {manifest.ledger_uri} (version {manifest.ledger_version})
  quarantine  {manifest.quarantine_uri or "none"}
  manifest    {manifest_uri}
next
  make ask Q="How do I retry a failed task?"{index}
  make up     opens the UI, with this run in it""")
