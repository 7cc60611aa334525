"""commit(), check() and publish(): the one writer of an index, the comparison with its ledger, and the news of it.

The order makes every step safe to repeat: the store first, by ids that are digests; then the ledger's snapshot; then
its pointer. A run that dies in between is repeated by its next attempt and comes to the same rows.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from include.contracts import IngestionCounts, IngestionManifest, now
from include.errors import DriftError
from include.models.embeddings import get_embedder
from include.rag.config import IngestConfig
from include.rag.embed import Outcome, part_uri, read_result
from include.rag.ledger import Entry, Ledger, Pointer
from include.rag.plan import Plan, make_chunker, pipeline_name, read_deleted, read_plan
from include.rag.stores import Store, chunk_schema, open_store
from include.storage import (
    digest,
    read_json,
    read_parquet,
    read_record,
    write_json,
    write_jsonl,
    write_record,
)

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

    Raises StateMovedError, before anything is written, if another run committed since the plan was made.
    """
    plan, ledger = read_plan(config), Ledger(config.home)
    work = read_work(config, plan)
    pointer = ledger.pointer()
    done = pointer.run_id == config.run_id and pointer.work_digest == work.work_digest
    version = pointer.version if done else plan.expected_version
    if not done and (work.stored or work.deleted):
        ledger.expect(plan.expected_version)
        _write_store(config, work)
        entries = _apply(config, ledger.read(plan.expected_version), work)
        version += 1
        pointer = Pointer(
            version=version,
            run_id=config.run_id,
            base_version=plan.base_version,
            work_digest=work.work_digest,
            store=config.store,
            embedder=config.embedder,
            embedder_version=get_embedder(config.embedder).name,
        )
        ledger.commit(entries, pointer, expected_version=plan.expected_version)
    counts = {"version": version, "documents": len(work.stored), "deleted": len(work.deleted)}
    write_json(config.run_home / "commit.json", counts)
    log.info("committed: %s", counts)
    return counts


def check(config: IngestConfig) -> tuple[IngestionManifest, UPath]:
    """Compare the store with the ledger, then write the run's manifest; DriftError names the documents that differ.

    A run that is checked again after others committed is only described: the store is theirs by then.
    """
    plan, ledger = read_plan(config), Ledger(config.home)
    work = read_work(config, plan)
    version = read_json(config.run_home / "commit.json")["version"]
    entries = ledger.read(version)
    store = _store(config)
    if version == ledger.pointer().version:
        _compare(entries, store.documents())
    manifest = IngestionManifest(
        tenant=config.tenant,
        use_case=config.use_case,
        index=config.index,
        run_id=config.run_id,
        source_uri=config.source,
        store=config.store,
        store_uri=store.uri,
        embedder=get_embedder(config.embedder).name,
        chunker=make_chunker(config).name,
        ledger_uri=ledger.uri(version),
        ledger_version=version,
        quarantine_uri=_write_quarantine(config, work),
        counts=_count(plan, work, entries),
    )
    path = config.run_home / "manifest.json"
    write_record(path, manifest)
    log.info("%s", manifest.counts)
    return manifest, path


def news(config: IngestConfig) -> dict[str, Any] | None:
    """What to tell about the index, its manifest's URI among it; None if this version of it was told already."""
    path = config.run_home / "manifest.json"
    version = read_record(path, IngestionManifest).ledger_version
    told = _told(config)
    last: int = read_json(told)["ledger_version"] if told.exists() else 0
    if last >= version:
        return None
    return {"index": config.index, "tenant": config.tenant, "ledger_version": version, "manifest_uri": str(path)}


def remember(config: IngestConfig, told: dict[str, Any]) -> None:
    """Note that this version was told: called after the telling, so that news is told twice rather than never."""
    write_json(_told(config), told)


def read_work(config: IngestConfig, plan: Plan) -> Work:
    """Gather what the shards of a plan left; FileNotFoundError names a shard that left nothing."""
    parts: list[str] = []
    outcomes: list[Outcome] = []
    embedded = 0
    for shard in plan.shards:
        shard_parts, shard_outcomes, shard_embedded = read_result(config, shard)
        parts += shard_parts
        outcomes += shard_outcomes
        embedded += shard_embedded
    return Work(
        parts=tuple(parts),
        outcomes=tuple(outcomes),
        deleted=tuple(read_deleted(config)),
        chunks_embedded=embedded,
    )


def _write_store(config: IngestConfig, work: Work) -> None:
    store = _store(config)
    stored, written_at = work.stored, now()
    parts = iter(work.parts)
    while group := list(islice(parts, PARTS_PER_WRITE)):
        rows = _read_parts(config, group, written_at)
        doc_ids = [row["doc_id"] for part in group for row in read_json(part_uri(config, part).with_suffix(".json"))]
        store.replace([doc_id for doc_id in doc_ids if doc_id in stored], rows)
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


def _apply(config: IngestConfig, entries: dict[str, Entry], work: Work) -> dict[str, Entry]:
    gone = set(work.deleted)
    entries = {doc_id: entry for doc_id, entry in entries.items() if doc_id not in gone}
    pipeline = pipeline_name(config)
    for doc_id, outcome in work.stored.items():
        entries[doc_id] = Entry(
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
    return entries


def _compare(entries: dict[str, Entry], held: dict[str, tuple[str, int]]) -> None:
    expected = {doc_id: entry.held for doc_id, entry in entries.items() if entry.held}
    if expected == held:
        return
    wrong = sorted(doc_id for doc_id in expected.keys() | held.keys() if expected.get(doc_id) != held.get(doc_id))
    shown = ", ".join(
        f"{entries[d].path if d in entries else d}: ledger {_brief(expected.get(d))}, store {_brief(held.get(d))}"
        for d in wrong[:10]
    )
    raise DriftError(f"{len(wrong)} documents differ between ledger and store; the next run repairs them: {shown}")


def _brief(held: tuple[str, int] | None) -> str:
    return "nothing" if held is None else f"{held[1]} chunks of {held[0][:8]}"


def _count(plan: Plan, work: Work, entries: dict[str, Entry]) -> IngestionCounts:
    status = [outcome.status for outcome in work.outcomes]
    actions = [outcome.action for outcome in work.outcomes if outcome.status == "ok"]
    return IngestionCounts(
        found=plan.found,
        unchanged=plan.unchanged,
        added=actions.count("added"),
        changed=actions.count("changed"),
        empty=status.count("empty"),
        quarantined=status.count("quarantined"),
        vanished=status.count("vanished"),
        deleted=plan.deleted,
        skipped=plan.skipped,
        chunks_written=sum(outcome.chunks for outcome in work.stored.values()),
        chunks_embedded=work.chunks_embedded,
        documents_total=len(entries),
        chunks_total=sum(entry.chunks for entry in entries.values()),
    )


def _write_quarantine(config: IngestConfig, work: Work) -> str | None:
    rows = [
        {"path": outcome.path, "content_digest": outcome.content_digest, "reason": outcome.reason}
        for outcome in work.outcomes
        if outcome.status == "quarantined"
    ]
    if not rows:
        return None
    path = config.run_home / "quarantine.jsonl"
    write_jsonl(path, rows)
    return str(path)


def _store(config: IngestConfig) -> Store:
    return open_store(config.store, config.home, get_embedder(config.embedder).dimension)


def _told(config: IngestConfig) -> UPath:
    return config.home / "published.json"
