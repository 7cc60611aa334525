"""commit(): the one writer of a version of an index.

The order makes every step safe to repeat: the store first, by ids that are digests; then the ledger's snapshot; then
its pointer; then what later runs need not try again. A run that dies in between is repeated by its next attempt and
comes to the same rows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from include.contracts import DeadLetter, now
from include.models.embeddings import get_embedder
from include.rag.config import IngestConfig
from include.rag.embed import part_uri
from include.rag.known import Known
from include.rag.ledger import STAMP_COLUMNS, Keyed, Ledger, Pointer, Snapshot
from include.rag.plan import Plan, pipeline_name, read_plan, read_restamped
from include.rag.quarantine import enforce, keep_letters, write_letters
from include.rag.stores import Refusal, Store, chunk_schema, delete_all
from include.rag.stores.held import Texts, encoded
from include.rag.work import Work, dead_letters, read_work, write_refused
from include.storage import read_parquet, write_json

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

CHUNKS_PER_WRITE = 2_500
"""Chunks in one write of the store, or those of one part if it has more; bounds the memory of the commit."""


def commit(config: IngestConfig) -> dict[str, Any]:
    """Write the store, then the ledger; returns small counts. Does nothing if this very work is committed already.

    Raises ToleranceError if more was set aside than the run tolerates, and StateMovedError if another run committed
    something else since the plan was made; both before anything is written to the index.
    """
    plan = read_plan(config)
    work = read_work(config, plan)
    letters = _enforced(config, work)
    with config.versions.held():
        version, done = _commit(config, plan, work)
        if done is not work:
            letters = dead_letters(done)
        quarantine_uri = write_letters(config, letters)
        keep_letters(config, letters)
    counts = {"version": version, "documents": len(done.stored), "deleted": len(done.deleted)}
    write_json(config.run_home / "commit.json", {**counts, "quarantine_uri": quarantine_uri})
    log.info("committed: %s", counts)
    return counts


def _enforced(config: IngestConfig, work: Work) -> list[DeadLetter]:
    """The dead letters of a run, which may have them."""
    letters = dead_letters(work)
    write_letters(config, letters)
    enforce(config, letters)
    return letters


def _commit(config: IngestConfig, plan: Plan, work: Work) -> tuple[int, Work]:
    """The version that the ledger has afterwards; and the work as it was done, less what the store refused."""
    ledger = Ledger(config.home)
    version = _committed(config, ledger, plan, work)
    if version is None:
        version = plan.expected_version + 1
        work, stamps = _write(config, ledger, plan, work)
    else:
        stamps = _stamps(config, ledger, work)
    if stamps is not None:
        ledger.write_stamps(stamps)
    return version, work


def _committed(config: IngestConfig, ledger: Ledger, plan: Plan, work: Work) -> int | None:
    """The version of the ledger that holds this work already; None if there is something to write."""
    pointer = ledger.pointer()
    if not (len(work.stored) or work.deleted):
        return plan.expected_version
    if pointer.run_id == config.run_id and pointer.work_digest == work.work_digest:
        return pointer.version
    if pointer.version != plan.expected_version and _is_there(config, ledger.read(pointer.version), work):
        log.info("another run committed the same documents meanwhile: nothing is left to write")
        return pointer.version
    return None


def _write(config: IngestConfig, ledger: Ledger, plan: Plan, work: Work) -> tuple[Work, Keyed | None]:
    """Write the store and the ledger; the work as it was done, and the stamps that are to be kept, if any."""
    ledger.expect(plan.expected_version)
    store = config.open_store()
    work = _write_store(config, store, work)
    with ThreadPoolExecutor(1) as pool:  # the store indexes outside of Python, which has the ledger to make
        finished = pool.submit(store.finish)
        snapshot = _apply(config, ledger.read(plan.expected_version), work)
        stamps = _stamps(config, ledger, work)
        finished.result()
    pointer = Pointer(
        version=plan.expected_version + 1,
        run_id=config.run_id,
        base_version=plan.base_version,
        work_digest=work.work_digest,
    )
    ledger.commit(snapshot, pointer, expected_version=plan.expected_version)
    return work, stamps


def _write_store(config: IngestConfig, store: Store, work: Work) -> Work:
    """Write everything but finish(); the work that was done: documents that the store refused count as set aside."""
    written_at = now()
    refused: list[Refusal] = []
    documents = 0
    with store.loading(live=config.versions.live().version == config.version):
        for rows in _ahead(_writes(config, work, written_at)):
            doc_ids = rows["doc_id"].unique().to_pylist()
            refused += store.replace(doc_ids, rows)
            documents += len(doc_ids)
            log.info("written: %d chunks; %d of %d documents", rows.num_rows, documents, len(work.stored))
        delete_all(store, chain(work.emptied, work.deleted))
    if not refused:
        return work
    store.finish()  # for what was refused may end the run
    write_refused(config, work, {one.doc_id: one.reason for one in refused})
    done = read_work(config, work.plan)
    _enforced(config, done)
    return done


def _writes(config: IngestConfig, work: Work, written_at: datetime) -> Iterator[pa.Table]:
    """The rows of one write after the other: whole documents, since those of a part are not parted."""
    waiting: list[pa.Table] = []
    number = 0
    for part in work.parts:
        rows = _only(work.stored, read_parquet(part_uri(config, part)))
        if waiting and number + rows.num_rows > CHUNKS_PER_WRITE:
            yield _stamped(config, waiting, written_at)
            waiting, number = [], 0
        if rows.num_rows:
            waiting.append(rows)
            number += rows.num_rows
    if waiting:
        yield _stamped(config, waiting, written_at)


def _ahead(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same; the next is read while the store writes one."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, tables, None)
        while (table := coming.result()) is not None:
            coming = pool.submit(next, tables, None)
            yield table


def _only(doc_ids: Texts, rows: pa.Table) -> pa.Table:
    """The rows of these documents; a part holds those too that the store refused at an earlier attempt."""
    import pyarrow as pa

    is_stored = doc_ids.places(encoded(rows["doc_id"].combine_chunks())) >= 0
    return rows if is_stored.all() else rows.filter(pa.array(is_stored))


def _stamped(config: IngestConfig, parts: list[pa.Table], written_at: datetime) -> pa.Table:
    """Some parts' rows as one table, stamped with who wrote them when: parts themselves say nothing of a run."""
    import pyarrow as pa

    table = pa.concat_tables(parts).combine_chunks()
    schema = chunk_schema(get_embedder(config.embedder).dimension)
    stamps = {"run_id": config.run_id, "ingested_at": written_at}
    for name, value in stamps.items():
        table = table.append_column(
            schema.field(name), pa.repeat(pa.scalar(value, schema.field(name).type), len(table))
        )
    return table.select(schema.names)


def _apply(config: IngestConfig, before: Snapshot, work: Work) -> Snapshot:
    own = {
        "source": config.source,
        "pipeline": pipeline_name(config),
        "use_case": config.use_case,
        "run_id": config.run_id,
        "ingested_at": now().isoformat(timespec="seconds"),
    }
    entries = (
        {
            "doc_id": outcome.doc_id,
            "path": outcome.path,
            "content_digest": outcome.content_digest,
            "source_version": outcome.stamp,
            "title": outcome.title,
            "chunks": outcome.chunks,
            **own,
        }
        for outcome in work.stored_outcomes()
    )
    after = before.replaced(work.deleted, entries)
    assert isinstance(after, Snapshot)
    return after


def _is_there(config: IngestConfig, snapshot: Snapshot, work: Work) -> bool:
    """Whether a ledger holds all that this work would write, and none of what it would delete."""
    known = Known(snapshot, source=config.source, pipeline=pipeline_name(config), use_case=config.use_case)
    if (known.find(encoded(work.deleted)) >= 0).any():
        return False
    places = dict(zip(work.stored, known.find(work.stored), strict=True))
    return all(known.is_same(places[one.doc_id], one.content_digest) for one in work.stored_outcomes())


def _stamps(config: IngestConfig, ledger: Ledger, work: Work) -> Keyed | None:
    """By which stamps the documents were read, so that the next plan need not read them; None if nothing is new."""
    read = (
        dict(zip(STAMP_COLUMNS, (outcome.doc_id, outcome.stamp, outcome.content_digest), strict=True))
        for outcome in work.outcomes()
        if outcome.content_digest and outcome.stamp
    )
    rows = chain(read_restamped(config), read)
    first = list(islice(rows, 1))
    return ledger.stamps().replaced(work.deleted, chain(first, rows)) if first or work.deleted else None
