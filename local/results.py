"""Print what an ingestion run left behind, and what to do with it."""

from __future__ import annotations

from include.config import load_settings
from include.contracts import IngestionManifest
from include.rag.quality import QualityReport
from include.rag.quality_report import summary
from include.rag.versions import Live, Versions, version_name
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
    versions = Versions(load_settings().root, manifest.tenant, manifest.index)
    index = f" INDEX={manifest.index}" if manifest.index != "docs" else ""
    print(f"""
index {manifest.index}, from {manifest.source_uri}
  documents   {counts.found} found: {found}
              {counts.deleted} deleted since the last run, {counts.skipped} files skipped
  chunks      {counts.chunks_written} written, {counts.chunks_embedded} embedded by {manifest.embedder}
  in all      {counts.documents_total} documents, {counts.chunks_total} chunks
  version     {_state(manifest.index_version, versions.live())}
{_quarantined(manifest.quarantine_uri)}quality
  {summary(report).replace(chr(10), chr(10) + "  ")}
where
  {manifest.store:<11} {manifest.store_uri}
  ledger      {manifest.ledger_uri} (version {manifest.ledger_version})
  quarantine  {manifest.quarantine_uri or "none"}
  quality     {folder / "retrieval.html"}
  manifest    {manifest_uri}
next
{_next(manifest.index_version, versions, index)}
  make up     opens the UI, with this run in it""")


def _state(number: int, live: Live) -> str:
    """Whether readers have the run's version."""
    if live.version == number:
        return f"{version_name(number)}, live"
    read = "no version" if live.version is None else version_name(live.version)
    return f"{version_name(number)}, waiting; {read} is live"


def _next(number: int, versions: Versions, index: str) -> str:
    """What to do with the run's version; `index` is the argument that names the index."""
    live, there = versions.live(), {one.number for one in versions.all()}
    if live.version != number:
        return f"  make versions{index}   the log of the task live.switch says what {version_name(number)} waits for"
    lines = [f'  make ask Q="How do I retry a failed task?"{index}']
    if former := [one for one in live.former if one in there]:
        lines.append(f"  make rollback{index}   goes back to {version_name(former[-1])}")
    return "\n".join(lines)


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
