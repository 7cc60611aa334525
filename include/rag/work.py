"""What the shards of a run left to commit, read shard by shard: only ids and counts are held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from include.contracts import DeadLetter
from include.rag import deletions
from include.rag.config import IngestConfig
from include.rag.embed import Outcome, read_result
from include.rag.plan import Plan, read_deleted, read_drifted, read_kept_letters, read_stray, reader_name
from include.rag.stores.held import Texts, encoded, joined
from include.storage import digest, read_json, write_json

_REFUSED = "refused.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """The parts of a run, and what became of its documents."""

    config: IngestConfig
    plan: Plan
    parts: tuple[str, ...]
    stored: Texts
    """Ids of documents that the store shall hold anew, sorted; some of them without a chunk."""
    emptied: tuple[str, ...]
    """Ids of those that have none."""
    deleted: tuple[str, ...]
    """Ids of documents that are gone from the source; and of those whose chunks are not what the ledger says, where
    this run cannot write them anew."""
    refused: Mapping[str, list[str]]
    """Document id -> digest of its bytes, and why the store did not take them; it counts as set aside, and nothing of
    it is kept."""
    counts: Counter[str]
    """Of documents, by status, and of those indexed by action; records_quarantined, chunks_written, chunks_embedded,
    chunks_reused, deleted, deletions_held."""

    def outcomes(self) -> Iterator[Outcome]:
        """What became of each document."""
        for shard in self.plan.shards:
            for outcome in read_result(self.config, shard)["outcomes"]:
                yield _as_stored(outcome, self.refused)

    def stored_outcomes(self) -> Iterator[Outcome]:
        """What became of each document that the store shall hold anew."""
        return (outcome for outcome in self.outcomes() if _is_stored(outcome))

    @property
    def work_digest(self) -> str:
        """Names this work: the same digest by the same run is the same commit."""
        return digest(*self.parts, "deleted", *self.deleted, "stored", *self.stored)


def read_work(config: IngestConfig, plan: Plan) -> Work:
    """Gather what the shards of a plan left; FileNotFoundError names a shard that left nothing."""
    parts: list[str] = []
    stored: list[Texts] = []
    emptied: list[str] = []
    counts: Counter[str] = Counter()
    file = config.run_home / _REFUSED
    refused: dict[str, list[str]] = read_json(file) if file.exists() else {}
    unwanted: list[str] = []
    for shard in plan.shards:
        result = read_result(config, shard)
        parts += result["parts"]
        kept: list[str] = []
        for one in result["outcomes"]:
            outcome = _as_stored(one, refused)
            counts[outcome.status] += 1
            counts["records_quarantined"] += len(outcome.rejects)
            counts["chunks_written"] += outcome.chunks
            if outcome.status == "ok":
                counts[outcome.action] += 1
            if _is_stored(outcome):
                kept.append(outcome.doc_id)
                if not outcome.chunks:
                    emptied.append(outcome.doc_id)
            elif outcome.fault == "refused":
                unwanted.append(outcome.doc_id)
        stored.append(encoded(kept))
        counts.update({name: result[name] for name in ("chunks_embedded", "chunks_reused")})
    leaving = [doc_id for doc_id, _ in read_deleted(config)]
    if not deletions.approved(config, leaving):
        counts["deletions_held"], leaving = len(leaving), []
    counts["deleted"] = len(leaving)
    all_stored = joined(stored).sorted()
    drifted = encoded(read_drifted(config))
    return Work(
        config=config,
        plan=plan,
        parts=tuple(parts),
        stored=all_stored,
        emptied=tuple(emptied),
        deleted=(*leaving, *read_stray(config), *drifted.take(all_stored.places(drifted) < 0), *unwanted),
        refused=refused,
        counts=counts,
    )


def write_refused(config: IngestConfig, work: Work, reasons: Mapping[str, str]) -> None:
    """Note which documents the store did not take, and why; read_work() then counts them as set aside."""
    digests = {one.doc_id: one.content_digest for one in work.outcomes() if one.doc_id in reasons}
    more = {doc_id: [digests[doc_id], reason] for doc_id, reason in reasons.items()}
    write_json(config.run_home / _REFUSED, {**work.refused, **more})


def _as_stored(outcome: Outcome, refused: Mapping[str, list[str]]) -> Outcome:
    seen, why = refused.get(outcome.doc_id, ("", ""))
    if seen != outcome.content_digest or not seen:
        return outcome
    return outcome._replace(status="quarantined", stage="index", fault="refused", reason=why, chunks=0, rejects=())


def _is_stored(outcome: Outcome) -> bool:
    return outcome.status in ("ok", "empty")


def dead_letters(work: Work) -> list[DeadLetter]:
    """What of the source is set aside: by earlier runs and unchanged since, then by this one."""
    config = work.config
    reader = reader_name(config)
    letters = [DeadLetter(**row) for row in read_kept_letters(config)]
    has_new = work.counts["quarantined"] or work.counts["records_quarantined"]
    for outcome in work.outcomes() if has_new else ():
        if outcome.status != "quarantined" and not outcome.rejects:
            continue
        known = {
            "tenant": config.tenant,
            "use_case": config.use_case,
            "index": config.index,
            "run_id": config.run_id,
            "doc_id": outcome.doc_id,
            "source": config.source,
            "path": outcome.path,
            "content_digest": outcome.content_digest,
            "attempt": outcome.attempt,
            "reader": reader,
        }
        if outcome.status == "quarantined":
            why = {"stage": outcome.stage, "fault": outcome.fault, "reason": outcome.reason}
            letters.append(DeadLetter(**known, **why))
        for locator, reason in outcome.rejects:
            letters.append(DeadLetter(**known, locator=locator, stage="load", fault="malformed", reason=reason))
    return letters
