"""What the shards of a run left to commit, read shard by shard: only ids and counts are held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from include.contracts import DeadLetter
from include.rag.config import IngestConfig
from include.rag.embed import Outcome, read_result
from include.rag.plan import Plan, read_deleted, read_drifted, read_kept_letters, reader_name
from include.storage import digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """The parts of a run, and what became of its documents."""

    config: IngestConfig
    plan: Plan
    parts: tuple[str, ...]
    stored: frozenset[str]
    """Ids of documents that the store shall hold anew."""
    deleted: tuple[str, ...]
    """Ids of documents that are gone from the source; and of those whose chunks are not what the ledger says, where
    this run cannot write them anew."""
    counts: Counter[str]
    """Of documents, by status, and of those indexed by action; records_quarantined, chunks_written, chunks_embedded,
    chunks_reused."""

    def outcomes(self) -> Iterator[Outcome]:
        """What became of each document."""
        for shard in self.plan.shards:
            yield from read_result(self.config, shard)["outcomes"]

    @property
    def work_digest(self) -> str:
        """Names this work: the same digest by the same run is the same commit."""
        return digest(*self.parts, "deleted", *self.deleted, "stored", *sorted(self.stored))


def read_work(config: IngestConfig, plan: Plan) -> Work:
    """Gather what the shards of a plan left; FileNotFoundError names a shard that left nothing."""
    parts: list[str] = []
    stored: set[str] = set()
    counts: Counter[str] = Counter()
    for shard in plan.shards:
        result = read_result(config, shard)
        parts += result["parts"]
        for outcome in result["outcomes"]:
            counts[outcome.status] += 1
            counts["records_quarantined"] += len(outcome.rejects)
            counts["chunks_written"] += outcome.chunks
            if outcome.status == "ok":
                counts[outcome.action] += 1
            if outcome.status in ("ok", "empty"):
                stored.add(outcome.doc_id)
        counts.update({name: result[name] for name in ("chunks_embedded", "chunks_reused")})
    drifted = (doc_id for doc_id in read_drifted(config) if doc_id not in stored)
    return Work(
        config=config,
        plan=plan,
        parts=tuple(parts),
        stored=frozenset(stored),
        deleted=(*read_deleted(config), *drifted),
        counts=counts,
    )


def dead_letters(work: Work) -> list[DeadLetter]:
    """What of the source is set aside: by earlier runs and unchanged since, then by this one."""
    config = work.config
    reader = reader_name(config)
    letters = [DeadLetter(**row) for row in read_kept_letters(config)]
    for outcome in work.outcomes():
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
