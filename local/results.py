"""Print what an ingestion run left behind, and what to do with it."""

from __future__ import annotations

from include.contracts import IngestionManifest
from include.rag.quality import QualityReport
from include.rag.quality_report import summary
from include.storage import location, read_jsonl, read_record

_OF_THE_FOUND = ("added", "changed", "unchanged", "empty", "quarantined", "still_quarantined", "vanished")
_LETTERS = 5


def print_results(manifest_uri: str) -> None:
    """Print the counts, the places and the quality of a run from its manifest and the report beside it."""
    manifest = read_record(location(manifest_uri), IngestionManifest)
    folder = location(manifest_uri).parent
    report = read_record(folder / "retrieval.json", QualityReport)
    counts = manifest.counts
    found = ", ".join(
        f"{number} {name.replace('_', ' ')}" for name in _OF_THE_FOUND if (number := getattr(counts, name))
    )
    index = f" INDEX={manifest.index}" if manifest.index != "docs" else ""
    print(f"""
index {manifest.index}, from {manifest.source_uri}
  documents   {counts.found} found: {found}
              {counts.deleted} deleted since the last run, {counts.skipped} files skipped
  chunks      {counts.chunks_written} written, {counts.chunks_embedded} embedded by {manifest.embedder}
  in all      {counts.documents_total} documents, {counts.chunks_total} chunks
{_quarantined(manifest.quarantine_uri)}quality
  {summary(report).replace(chr(10), chr(10) + "  ")}
where
  {manifest.store:<11} {manifest.store_uri}
  ledger      {manifest.ledger_uri} (version {manifest.ledger_version})
  quarantine  {manifest.quarantine_uri or "none"}
  quality     {folder / "retrieval.html"}
  manifest    {manifest_uri}
next
  make ask Q="How do I retry a failed task?"{index}
  make up     opens the UI, with this run in it""")


def _quarantined(uri: str | None) -> str:
    """The first reasons why something was set aside."""
    if uri is None:
        return ""
    letters = list(read_jsonl(location(uri)))
    shown = [
        f"  {letter['path']}{', ' + letter['locator'] if letter['locator'] else ''}: {letter['reason']}"
        for letter in letters[:_LETTERS]
    ]
    if len(letters) > _LETTERS:
        shown.append(f"  and {len(letters) - _LETTERS} more")
    return "\n".join(["set aside", *shown, ""])
