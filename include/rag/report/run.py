"""What a run did to its index: what became of the documents, what was set aside and why, what the index is now."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby

from include.contracts import DeadLetter, IngestionCounts, IngestionManifest
from include.rag.quality import QualityReport
from include.rag.report.text import plural, short, short_path, table
from include.rag.versions import version_name

SHOWN_LETTERS = 20
_DOCUMENTS = {
    "added": "added",
    "changed": "changed",
    "deleted": "deleted",
    "deletions_held": "deletions held back",
    "unchanged": "unchanged",
    "empty": "without text",
    "quarantined": "set aside",
    "still_quarantined": "set aside before, not tried again",
    "vanished": "gone while the run went on",
    "skipped": "files not read: their kind or a pattern",
}
_CHUNKS = {
    "chunks_embedded": "chunks embedded",
    "chunks_reused": "chunks that kept a vector",
    "chunks_written": "chunks written",
    "documents_total": "documents in the index",
    "chunks_total": "chunks in the index",
}
_ALARMING = ("deletions_held", "quarantined", "still_quarantined", "vanished")


def run_section(report: QualityReport, manifest: IngestionManifest, letters: Sequence[DeadLetter]) -> str:
    """Counts, quarantine and the index as it is."""
    counts = manifest.counts
    parts = [
        f"<p>{plural(counts.found, 'document')} found in {short_path(manifest.source_uri)}.</p>",
        _tiles(counts, _DOCUMENTS),
        _tiles(counts, _CHUNKS),
        _quarantine(manifest, letters),
        _index(report, manifest),
    ]
    return "\n".join(part for part in parts if part)


def live_line(report: QualityReport) -> str:
    """Which version readers have, and what comes of the run's."""
    mine, live = version_name(report.index_version), report.live_version
    refused = report.decision is not None and report.decision.verdict == "refused"
    if live == report.index_version:
        return f"{mine} is live; this run brought it up to date."
    kept = "no version is live" if live is None else f"{version_name(live)} stays live"
    if refused:
        return f"{mine} was refused and does not go live: {kept}."
    was = "no version was live" if live is None else f"{version_name(live)} was live"
    return f"When this was written {was}; {mine} goes live next, unless it lacks something of what is live."


def _tiles(counts: IngestionCounts, words: dict[str, str]) -> str:
    tiles = []
    for name, label in words.items():
        number = getattr(counts, name)
        kind = "none" if not number else "alarming" if name in _ALARMING else "some"
        tiles.append(f'<div class="{kind}"><dt>{escape(label)}</dt><dd>{number:,}</dd></div>')
    return f'<dl class="tiles">{"".join(tiles)}</dl>'


def _quarantine(manifest: IngestionManifest, letters: Sequence[DeadLetter]) -> str:
    """Faults, the most frequent first, each with its first paths and reasons."""
    if not letters:
        return "<h3>Set aside</h3><p>Nothing.</p>"
    ordered = sorted(letters, key=lambda letter: (letter.fault, letter.path, letter.locator or ""))
    groups = [(fault, list(group)) for fault, group in groupby(ordered, key=lambda letter: letter.fault)]
    groups.sort(key=lambda group: (-len(group[1]), group[0]))
    each = max(1, SHOWN_LETTERS // len(groups))
    rows = [(fault.replace("_", " "), f"{len(group):,}", _first(group, each)) for fault, group in groups]
    mine = sum(letter.run_id == manifest.run_id for letter in letters)
    records = manifest.counts.records_quarantined
    within = f", among them {plural(records, 'record')} of documents whose other records were read" if records else ""
    said = f"{plural(len(letters), 'dead letter')}; {mine:,} from this run{within}."
    where = f" All of them: {short_path(manifest.quarantine_uri)}" if manifest.quarantine_uri else ""
    return f"<h3>Set aside</h3><p>{said}{where}</p>" + table(
        ("Fault", "Number", "First of them"), rows, "stacked uneven"
    )


def _first(letters: Sequence[DeadLetter], limit: int) -> str:
    shown = "".join(
        f"<li><bdi>{short_path(letter.path)}</bdi>"
        + (f", <bdi>{short(letter.locator)}</bdi>" if letter.locator else "")
        + f" <small><bdi>{short(letter.reason)}</bdi></small></li>"
        for letter in letters[:limit]
    )
    more = f"<li>and {len(letters) - limit:,} more</li>" if len(letters) > limit else ""
    return f'<ul class="plain">{shown}{more}</ul>'


def _index(report: QualityReport, manifest: IngestionManifest) -> str:
    facts = {
        "Version": version_name(manifest.index_version),
        "Live": "none" if report.live_version is None else version_name(report.live_version),
        "Embedder": manifest.embedder,
        "Chunker": manifest.chunker,
        "Store": f"{manifest.store}, {manifest.store_uri}",
        "Ledger": f"version {manifest.ledger_version}, {manifest.ledger_uri}",
    }
    rows = "".join(f"<tr><th>{name}</th><td>{short_path(value)}</td></tr>" for name, value in facts.items())
    return f'<h3>The index</h3><div class="facts"><table><tbody>{rows}</tbody></table></div>'
