"""commit() and check(): the one writer of an index, and the comparison with its ledger.

The order makes every step safe to repeat: the store first, by ids that are digests; then the ledger's snapshot; then
its pointer. A run that dies in between is repeated by its next attempt and comes to the same rows.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from include.contracts import DeadLetter, now
from include.models.embeddings import get_embedder
from include.rag.config import IngestConfig
from include.rag.embed import Outcome, part_uri, read_result
from include.rag.ledger import STAMP_COLUMNS, Entry, Ledger, Pointer, Snapshot
from include.rag.plan import (
    Plan,
    pipeline_name,
    read_deleted,
    read_kept_letters,
    read_plan,
    read_restamped,
    reader_name,
)
from include.rag.quarantine import enforce, write_letters
from include.rag.stores import chunk_schema, open_store
from include.storage import digest, exclusive, read_json, read_parquet, write_json

if TYPE_CHECKING:
    import pyarrow as pa
    from upath import UPath

log = logging.getLogger(__name__)

PARTS_PER_WRITE = 64
"""Parts merged into one write of the store; bounds the memory of the commit to about a thousand documents."""
IDS_PER_DELETE = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What the shards of a run left to commit."""

    parts: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    deleted: tuple[str, ...]
    chunks_embedded: int
    chunks_reused: int

    @property
    def stored(self) -> dict[str, Outcome]:
        """The documents that the store shall hold anew, by id."""
        return {outcome.doc_id: outcome for outcome in self.outcomes if outcome.status in ("ok", "empty")}

    @property
    def work_digest(self) -> str:
        """Names this work: the same digest by the same run is the same commit."""
        return digest(*self.parts, "deleted", *self.deleted, "stored", *sorted(self.stored))


def commit(config: IngestConfig) -> dict[str, Any]:
    """Write the store, then the ledger; returns small counts. Does nothing if this very work is committed already.

    Raises ToleranceError if more was set aside than the run tolerates, and StateMovedError if another run committed
    something else since the plan was made; both before anything is written to the index.
    """
    plan = read_plan(config)
    work = read_work(config, plan)
    letters = dead_letters(config, work)
    quarantine_uri = write_letters(config, letters)
    enforce(config, letters)
    with exclusive(lock_of(config)):
        version = _commit(config, plan, work)
    counts = {"version": version, "documents": len(work.stored), "deleted": len(work.deleted)}
    write_json(config.run_home / "commit.json", {**counts, "quarantine_uri": quarantine_uri})
    log.info("committed: %s", counts)
    return counts


def lock_of(config: IngestConfig) -> UPath:
    """The file to hold while store and ledger may differ."""
    return config.home / "commit.lock"


def _commit(config: IngestConfig, plan: Plan, work: Work) -> int:
    """The version that the ledger has afterwards."""
    ledger = Ledger(config.home)
    pointer = ledger.pointer()
    if not (work.stored or work.deleted):
        version = plan.expected_version
    elif pointer.run_id == config.run_id and pointer.work_digest == work.work_digest:
        version = pointer.version
    elif pointer.version != plan.expected_version and _is_there(config, ledger.read(pointer.version), work):
        log.info("another run committed the same documents meanwhile: nothing is left to write")
        version = pointer.version
    else:
        ledger.expect(plan.expected_version)
        _write_store(config, work)
        version = plan.expected_version + 1
        pointer = Pointer(
            version=version,
            run_id=config.run_id,
            base_version=plan.base_version,
            work_digest=work.work_digest,
            store=config.store,
            embedder=config.embedder,
            embedder_version=get_embedder(config.embedder).name,
        )
        snapshot = _apply(config, ledger.read(plan.expected_version), work)
        ledger.commit(snapshot, pointer, expected_version=plan.expected_version)
    _stamp(config, ledger, work)
    return version


def read_work(config: IngestConfig, plan: Plan) -> Work:
    """Gather what the shards of a plan left; FileNotFoundError names a shard that left nothing."""
    results = [read_result(config, shard) for shard in plan.shards]
    return Work(
        parts=tuple(part for result in results for part in result["parts"]),
        outcomes=tuple(outcome for result in results for outcome in result["outcomes"]),
        deleted=tuple(read_deleted(config)),
        chunks_embedded=sum(result["chunks_embedded"] for result in results),
        chunks_reused=sum(result["chunks_reused"] for result in results),
    )


def dead_letters(config: IngestConfig, work: Work) -> list[DeadLetter]:
    """What of the source is set aside: by earlier runs and unchanged since, then by this one."""
    reader = reader_name(config)
    letters = [DeadLetter(**row) for row in read_kept_letters(config)]
    for outcome in work.outcomes:
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


def _write_store(config: IngestConfig, work: Work) -> None:
    store = open_store(config.store, config.home, get_embedder(config.embedder).dimension)
    stored, written_at = work.stored, now()
    parts = iter(work.parts)
    while group := list(islice(parts, PARTS_PER_WRITE)):
        rows = _read_parts(config, group, written_at)
        doc_ids = [row["doc_id"] for part in group for row in read_json(part_uri(config, part).with_suffix(".json"))]
        store.replace([doc_id for doc_id in doc_ids if doc_id in stored], rows)
        log.info("written: %d chunks of %d documents", rows.num_rows, len(doc_ids))
    deleted = iter(work.deleted)
    while batch := list(islice(deleted, IDS_PER_DELETE)):
        store.delete(batch)
    store.finish()


def _read_parts(config: IngestConfig, parts: list[str], written_at: datetime) -> pa.Table:
    """Some parts' rows as one table, stamped with who wrote them when: parts themselves say nothing of a run."""
    import pyarrow as pa

    table = pa.concat_tables(read_parquet(part_uri(config, part)) for part in parts)
    schema = chunk_schema(get_embedder(config.embedder).dimension)
    stamps = {"run_id": config.run_id, "ingested_at": written_at}
    for name, value in stamps.items():
        table = table.append_column(schema.field(name), pa.array([value] * table.num_rows, schema.field(name).type))
    return table.select(schema.names)


def _apply(config: IngestConfig, before: Snapshot, work: Work) -> Snapshot:
    pipeline = pipeline_name(config)
    entries = (
        Entry(
            doc_id=doc_id,
            source=config.source,
            path=outcome.path,
            content_digest=outcome.content_digest,
            pipeline=pipeline,
            use_case=config.use_case,
            title=outcome.title,
            chunks=outcome.chunks,
            run_id=config.run_id,
        )
        for doc_id, outcome in work.stored.items()
    )
    after = before.replaced(work.deleted, map(asdict, entries))
    assert isinstance(after, Snapshot)
    return after


def _is_there(config: IngestConfig, entries: Snapshot, work: Work) -> bool:
    """Whether a ledger holds all that this work would write, and none of what it would delete."""
    pipeline = pipeline_name(config)
    for doc_id, outcome in work.stored.items():
        entry = entries.get(doc_id)
        wanted = (outcome.content_digest, pipeline, config.use_case)
        if entry is None or (entry.content_digest, entry.pipeline, entry.use_case) != wanted:
            return False
    return not any(entries.get(doc_id) for doc_id in work.deleted)


def _stamp(config: IngestConfig, ledger: Ledger, work: Work) -> None:
    """Keep by which stamps the documents were read, so that the next plan need not read them."""
    fresh = {row["doc_id"]: row for row in read_restamped(config)}
    for outcome in work.outcomes:
        if outcome.content_digest and outcome.stamp:
            values = (outcome.doc_id, outcome.stamp, outcome.content_digest)
            fresh[outcome.doc_id] = dict(zip(STAMP_COLUMNS, values, strict=True))
    if fresh or work.deleted:
        ledger.write_stamps(ledger.stamps().replaced(work.deleted, fresh.values()))
