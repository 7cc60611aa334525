"""check(): the index against its ledger, and the run's manifest."""

from __future__ import annotations

import heapq
import logging
import random
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from include.contracts import IngestionCounts, IngestionManifest
from include.errors import DriftError
from include.rag.config import IngestConfig
from include.rag.embed import chunk_id
from include.rag.ledger import Ledger, Snapshot
from include.rag.plan import read_plan
from include.rag.stores import Store, delete_all, vector_digest
from include.rag.stores.held import Held, Texts, encoded
from include.rag.work import Work, read_work
from include.storage import read_json, write_record

if TYPE_CHECKING:
    from upath import UPath

log = logging.getLogger(__name__)

SAMPLE = 100
"""Documents whose chunks are read back and prove themselves."""
SHOWN = 10


def check(config: IngestConfig) -> tuple[IngestionManifest, UPath]:
    """Compare the store with the ledger, then write the run's manifest; DriftError names the documents that differ.

    Compared are every document's content digest and number of chunks, and for a sample of documents the chunks
    themselves. The next run repairs what differs. A run that is checked again after others committed is only described:
    the store is theirs by then.
    """
    ledger = Ledger(config.home)
    work = read_work(config, read_plan(config))
    committed = read_json(config.run_home / "commit.json")
    version = committed["version"]
    snapshot = ledger.read(version)
    store = config.open_store()
    with config.versions.held():  # between a commit's store and its ledger, the two differ
        if version == ledger.pointer().version:
            store.finish()  # puts back what a commit that was killed had changed for its load
            reconcile(snapshot, store, seed=config.run_id)
    manifest = IngestionManifest(
        tenant=config.tenant,
        use_case=config.use_case,
        index=config.index,
        index_version=config.version,
        run_id=config.run_id,
        source_uri=config.source,
        store=config.store,
        store_uri=store.uri,
        embedder=config.spec.embedder_version,
        chunker=config.spec.chunker,
        ledger_uri=ledger.uri(version),
        ledger_version=version,
        quarantine_uri=committed["quarantine_uri"],
        counts=_count(work, snapshot),
    )
    path = config.run_home / "manifest.json"
    write_record(path, manifest)
    log.info("%s", manifest.counts)
    return manifest, path


def reconcile(snapshot: Snapshot, store: Store, *, seed: str) -> None:
    """DriftError if the store is not what the ledger says; what it holds too much of, or altered, leaves it first.

    The next run finds those documents without their chunks, and writes them anew. Rewriting alone would not do: a row
    that is there twice, which two writers at once can bring about, is matched twice and stays.
    """
    ledger, held = snapshot.held(), store.documents()
    wrong = ledger.differing(held)
    sound = ledger.ids.take(wrong.places(ledger.ids) < 0)
    places = random.Random(seed).sample(range(len(sound)), min(SAMPLE, len(sound)))  # noqa: S311 (no secret)
    altered = _altered(store, [sound.at(place) for place in places])
    too_much = (doc_id for doc_id in wrong if _number(held, doc_id) > _number(ledger, doc_id))
    delete_all(store, chain(sorted(altered), too_much))
    if len(wrong) or altered:
        shown = ", ".join(heapq.nsmallest(SHOWN, _told(snapshot, wrong, altered, ledger, held)))
        number = len(wrong) + len(altered)
        raise DriftError(f"{number} documents differ between ledger and store; the next run repairs them: {shown}")
    log.info("ledger and store agree on %d documents; the chunks of %d were read back", len(held), len(places))


def _told(snapshot: Snapshot, wrong: Texts, altered: set[str], ledger: Held, held: Held) -> Iterator[str]:
    """What is the matter with each document."""
    nameless = wrong.take(ledger.ids.places(wrong) < 0)
    names = chain(snapshot.paths(wrong), zip(nameless, nameless, strict=True))
    yield from (f"{name}: ledger {_brief(ledger.get(key))}, store {_brief(held.get(key))}" for key, name in names)
    yield from (f"{path}: its chunks were altered" for _, path in snapshot.paths(encoded(sorted(altered))))


def _altered(store: Store, doc_ids: list[str]) -> set[str]:
    """Documents with a chunk that is not what its id says, or whose vector is not what was made of its text."""
    altered: set[str] = set()
    rows = store.rows(doc_ids)
    if not rows.num_rows:
        return altered
    vectors = rows["vector"].combine_chunks().flatten().to_numpy().reshape(rows.num_rows, -1)
    for row, vector in zip(rows.drop_columns(["vector"]).to_pylist(), vectors, strict=True):
        pipeline = f"{row['chunker']}+{row['embedder']}"
        proof = chunk_id(row["tenant"], row["doc_id"], pipeline, row["ordinal"], row["text"])
        if row["id"] != proof or row["vector_digest"] != vector_digest(row["embedding_digest"], vector):
            altered.add(row["doc_id"])
    return altered


def _number(held: Held, doc_id: str) -> int:
    """How many chunks of a document there are."""
    return held[doc_id][1] if doc_id in held else 0


def _brief(held: tuple[str, int] | None) -> str:
    return "nothing" if held is None else f"{held[1]} chunks of {held[0][:8]}"


def _count(work: Work, snapshot: Snapshot) -> IngestionCounts:
    plan = work.plan
    ours = ["added", "changed", "empty", "quarantined", "vanished", "deleted", "deletions_held", "records_quarantined"]
    ours += ["chunks_written", "chunks_embedded", "chunks_reused"]
    return IngestionCounts(
        found=plan.found,
        unchanged=plan.unchanged,
        still_quarantined=plan.still_quarantined,
        skipped=plan.skipped,
        documents_total=len(snapshot),
        chunks_total=snapshot.chunks,
        **{name: work.counts[name] for name in ours},
    )
