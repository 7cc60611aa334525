"""What each step of curation kept and dropped, by reason and source, with samples; counted by part, then merged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from include.errors import DriftError
from include.storage import read_json
from include.training.corpus.decontaminate import read_indexed_sets
from include.training.corpus.listing import Listing, read_listing

if TYPE_CHECKING:
    from upath import UPath

SAMPLES = 3
"""Of each reason."""
SAMPLE_CHARACTERS = 200

STEPS: dict[str, tuple[str, ...]] = {
    "length": ("empty", "too_short", "too_long"),
    "language": ("no_language", "other_language"),
    "quality": ("symbols", "duplicate_lines", "long_words"),
    "decontamination": ("contaminated",),
    "exact_duplicates": ("exact_duplicate",),
    "near_duplicates": ("near_duplicate",),
}
"""After reading, in their order: the reasons for which each drops a document. Any other reason is reading's."""


class Tally:
    """Counts of documents, by what became of them, and samples of those that were dropped."""

    def __init__(self) -> None:
        self.read: Counter[str] = Counter()
        """By source."""
        self.dropped: dict[str, Counter[str]] = {}
        """By source and reason."""
        self.samples: dict[str, list[dict[str, Any]]] = {}
        """By reason."""
        self.notes: dict[str, Counter[str]] = {}
        """Other figures, by what they are of: languages, characters."""

    def drop(self, source: str, reason: str, count: int = 1) -> None:
        """Count documents as dropped."""
        self.dropped.setdefault(source, Counter())[reason] += count

    def sample(self, reason: str, sample: Mapping[str, Any]) -> None:
        """Show a document that was dropped, its text cut; of each reason the first SAMPLES are kept."""
        if len(kept := self.samples.setdefault(reason, [])) < SAMPLES:
            kept.append(cut(sample))

    def note(self, name: str, key: str, count: int = 1) -> None:
        """Add to another figure."""
        self.notes.setdefault(name, Counter())[key] += count

    @property
    def reasons(self) -> Counter[str]:
        """Documents dropped, by reason."""
        return sum(self.dropped.values(), Counter[str]())

    def add(self, other: Tally) -> None:
        """Add the counts of another part."""
        self.read += other.read
        for source, reasons in other.dropped.items():
            self.dropped.setdefault(source, Counter()).update(reasons)
        for name, counts in other.notes.items():
            self.notes.setdefault(name, Counter()).update(counts)
        for reason, samples in other.samples.items():
            mine = self.samples.setdefault(reason, [])
            mine += samples[: SAMPLES - len(mine)]

    def to_json(self) -> dict[str, Any]:
        """As from_json() reads it."""
        return {
            "read": _sorted(self.read),
            "dropped": {source: _sorted(reasons) for source, reasons in sorted(self.dropped.items())},
            "samples": dict(sorted(self.samples.items())),
            "notes": {name: _sorted(counts) for name, counts in sorted(self.notes.items())},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Tally:
        """What to_json() made."""
        tally = cls()
        tally.read.update(value["read"])
        tally.dropped = {source: Counter(reasons) for source, reasons in value["dropped"].items()}
        tally.samples = {reason: list(samples) for reason, samples in value["samples"].items()}
        tally.notes = {name: Counter(counts) for name, counts in value["notes"].items()}
        return tally


def cut(sample: Mapping[str, Any]) -> dict[str, Any]:
    """A sample whose strings are no longer than SAMPLE_CHARACTERS."""
    return {name: value[:SAMPLE_CHARACTERS] if isinstance(value, str) else value for name, value in sample.items()}


def make_report(target: UPath, listing: UPath) -> dict[str, Any]:
    """The counts of all steps as one value for report.json; DriftError if a part or the deduplication left none.

    `target` is where parts were curated and deduplicated, `listing` where they were listed. A step reads what the one
    before it kept. Samples are texts of others: data, to be shown and never to be followed.
    """
    listed = read_listing(listing)
    total = Tally()
    for shard in listed.shards:
        total.add(Tally.from_json(_read(target / "counts" / f"part-{shard.index:05d}.json")))
    deduplicated = _read(target / "deduplication.json")
    total.add(Tally.from_json(deduplicated["tally"]))
    return {
        "steps": _steps(total),
        "sources": _sources(total, deduplicated["splits"]),
        "languages": _sorted(total.notes.get("languages", {})),
        "records_set_aside": sum(total.notes.get("rejects", {}).values()),
        "listing": _listing(listed),
        "evaluation_sets": _evaluation(listing),
        "splits": deduplicated["splits"],
        "samples": {"note": "texts of the sources, cut; data, not instructions", **total.to_json()["samples"]},
    }


def table(report: Mapping[str, Any]) -> str:
    """The steps of a report, and its splits, as text for a log."""
    rows = [("step", "documents", "kept", "kept %", "dropped, by reason")]
    for step in report["steps"]:
        reasons = ", ".join(f"{name} {one['documents']:,}" for name, one in step["dropped"].items())
        kept = f"{step['kept_percent']:.1f}"
        rows.append((step["name"], f"{step['documents']:,}", f"{step['kept']:,}", kept, reasons or "-"))
    rows.append(("", "", "", "", ""))
    rows.append(("source", "documents", "kept", "kept %", "held out"))
    for name, one in report["sources"].items():
        kept = f"{one['kept_percent']:.1f}"
        rows.append((name, f"{one['documents']:,}", f"{one['kept']:,}", kept, f"{one['held_out']:,}"))
    return _aligned(rows)


def _steps(total: Tally) -> list[dict[str, Any]]:
    reasons, documents = total.reasons, total.read.total()
    told = {reason for names in STEPS.values() for reason in names}
    found = []
    for name, mine in {"read": tuple(sorted(set(reasons) - told)), **STEPS}.items():
        dropped = {
            reason: {"documents": count, "percent": _percent(count, documents)}
            for reason in mine
            if (count := reasons[reason])
        }
        kept = documents - sum(reasons[reason] for reason in mine)
        one = {"name": name, "documents": documents, "kept": kept, "kept_percent": _percent(kept, documents)}
        found.append({**one, "dropped": dropped})
        documents = kept
    return found


def _sources(total: Tally, splits: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found = {}
    for source, documents in sorted(total.read.items()):
        dropped = total.dropped.get(source, Counter())
        kept = documents - dropped.total()
        held_out = splits["held_out"]["sources"].get(source, 0)
        found[source] = {
            "documents": documents,
            "kept": kept,
            "kept_percent": _percent(kept, documents),
            "train": kept - held_out,
            "held_out": held_out,
            "characters_read": total.notes.get("characters_read", Counter())[source],
            "dropped": _sorted(dropped),
        }
    return found


def _listing(listed: Listing) -> dict[str, Any]:
    sources = [one.model_dump(exclude={"split_by_folder"}, exclude_none=True) for one in listed.sources]
    return {"units": listed.units, "bytes": listed.bytes, "skipped": listed.skipped, "sources": sources}


def _evaluation(listing: UPath) -> dict[str, Any] | None:
    try:
        return asdict(read_indexed_sets(listing))
    except DriftError:
        return None  # the run has no evaluation sets


def _read(file: UPath) -> Any:
    try:
        return read_json(file)
    except FileNotFoundError:
        raise DriftError(f"{file} is not there: clear the task that makes it") from None


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole else 0.0


def _aligned(rows: Sequence[Iterable[str]]) -> str:
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    places = ("<", ">", ">", ">", "<")
    lines = (
        "  ".join(f"{cell:{place}{width}}" for cell, place, width in zip(row, places, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
