"""Records of a run as its page takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from include.contracts import DeadLetter, IngestionCounts, IngestionManifest
from include.rag.golden import Question
from include.rag.quality import QualityReport, judge, measure

ABOUT = {"tenant": "t", "use_case": "u", "index": "docs", "run_id": "run-1"}
NAMES = {f"doc{number}": f"folder/{number}.md" for number in range(40)}
COUNTS = {
    "found": 40,
    "unchanged": 11,
    "added": 12,
    "changed": 4,
    "empty": 2,
    "quarantined": 5,
    "still_quarantined": 3,
    "vanished": 3,
    "deleted": 21,
    "deletions_held": 23,
    "skipped": 22,
    "records_quarantined": 0,
    "chunks_written": 1231,
    "chunks_embedded": 1232,
    "chunks_reused": 1233,
    "documents_total": 1234,
    "chunks_total": 1235,
}


def questions(number: int, text: str = "how many") -> list[Question]:
    """Question n is answered by doc n."""
    return [Question(id=f"q{n:03d}", text=f"{text} {n}", relevant=frozenset({f"doc{n}"})) for n in range(number)]


def report(hits: int, misses: int, *, text: str = "how many", **about: Any) -> QualityReport:
    """The first questions find their document first, the others none; judged, and full text not asked at all."""
    asked = questions(hits + misses, text)
    found = {one.id: [f"doc{n}" if n < hits else "gone"] for n, one in enumerate(asked)}
    rankings = {"full_text": {}, "dense": {key: ["x", *ids] for key, ids in found.items()}, "hybrid": found}
    return judged(answered(rankings, asked, **about))


def answered(
    rankings: Mapping[str, Mapping[str, Sequence[str]]], asked: Sequence[Question], **about: Any
) -> QualityReport:
    """A report of these answers."""
    given = {**ABOUT, "ledger_version": 1, "documents_sampled": 50, **about}
    return measure(asked, rankings, **given)


def judged(
    made: QualityReport, *, before: QualityReport | None = None, live: int | None = None, max_drop: float = 0.02
) -> QualityReport:
    """The report with the gate's decision."""
    decision = judge(made, {"recall_at_5": 0.8, "mrr": 0.6}, before=before, max_drop=max_drop)
    return made.model_copy(update={"decision": decision, "live_version": live})


def manifest(version: int = 1, **about: Any) -> IngestionManifest:
    """A run's manifest; `counts` replaces some of COUNTS."""
    return IngestionManifest(
        **{
            **ABOUT,
            "index_version": version,
            "source_uri": "file:///source",
            "store": "lancedb",
            "store_uri": "file:///store",
            "embedder": "hashing-1",
            "chunker": "chunker-200",
            "ledger_uri": "file:///ledger",
            "ledger_version": 7,
            "quarantine_uri": None,
            "counts": IngestionCounts(**COUNTS),
            **about,
        }
    )


def letter(number: int = 0, **about: Any) -> DeadLetter:
    """A dead letter of this run."""
    given = {**ABOUT, "doc_id": f"doc{number}", "source": "file:///source", "path": f"bad/{number:05d}.pdf"}
    given |= {"stage": "load", "fault": "malformed", "reason": f"reason {number}"}
    return DeadLetter(**{**given, **about})


def stage(name: str, start: float = 0, seconds: float = 1, **about: Any) -> dict[str, Any]:
    """A stage's record, `start` seconds after noon."""
    started = f"2025-06-01T12:{int(start // 60):02d}:{start % 60:06.3f}+00:00"
    return {"stage": name, "started_at": started, "seconds": seconds, "requests": 0, "tokens": 0, "model": None} | about
