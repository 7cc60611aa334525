"""plan(): the source's listing and digests against the ledger -> what to add, change and delete, cut into shards."""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from upath import UPath

from include.errors import UserError
from include.models.embeddings import get_embedder
from include.rag.config import IngestConfig
from include.rag.ledger import Entry, Ledger, Pointer
from include.rag.source import FolderSource, Listing
from include.rag.split import Chunker
from include.rag.stores import open_store
from include.storage import digest, read_json, read_jsonl, write_json, write_jsonl

log = logging.getLogger(__name__)

MAX_SHARDS = 200
"""Their names travel in one XCom, which stays below 4 KB; a plan of more documents makes larger shards."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Due:
    """One document to read, as the plan saw it."""

    doc_id: str
    path: str
    action: Literal["added", "changed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a run will do; its lists lie beside it, since a task hands on only small values."""

    found: int
    unchanged: int
    deleted: int
    skipped: int
    """Files of kinds that are not read, or excluded."""
    shards: tuple[str, ...]
    base_version: int
    """The ledger that the run began with."""
    expected_version: int
    """The ledger that the commit must find."""


def make_chunker(config: IngestConfig) -> Chunker:
    """The run's chunker, counting tokens as the run's embedder does."""
    model = get_embedder(config.embedder)
    return Chunker(config.chunk_tokens, config.overlap_tokens, model.count_tokens, model.limit_tokens)


def pipeline_name(config: IngestConfig) -> str:
    """Everything that turns the same bytes into other rows: chunker and embedder with their versions."""
    return f"{make_chunker(config).name}+{get_embedder(config.embedder).name}"


def make_plan(config: IngestConfig) -> Plan:
    """List, compare, and write the plan below the run's home; UserError if the source holds nothing to read.

    A document is unchanged if its bytes are what the ledger says and what the store holds. A repeated plan of the same
    run compares with the ledger that the run began with too, so it comes to the same result whether or not the run has
    committed since. Chunks that no ledger knows, left by a run that died in its commit, are deleted.
    """
    ledger = Ledger(config.home)
    pointer = ledger.pointer()
    _refuse_to_mix(config, pointer)
    base = pointer.base_version if pointer.run_id == config.run_id else pointer.version
    before, now = ledger.read(base), ledger.read(pointer.version)
    held = open_store(config.store, config.home, get_embedder(config.embedder).dimension).documents()
    source = FolderSource(config)
    listing = _listed(config, source)
    paths = {document_id(config.source, path): path for path in listing.paths}
    wanted = (pipeline_name(config), config.use_case)
    due = [
        Due(doc_id=doc_id, path=path, action="changed" if doc_id in before else "added")
        for doc_id, path in paths.items()
        if not _is_unchanged(wanted, source, [before.get(doc_id), now.get(doc_id)], held.get(doc_id))
    ]
    ours = {doc_id for entries in (before, now) for doc_id, entry in entries.items() if entry.source == config.source}
    gone = ours - paths.keys()
    stray = held.keys() - now.keys() - paths.keys() - gone
    plan = Plan(
        found=len(paths),
        unchanged=len(paths) - len(due),
        deleted=len(gone),
        skipped=sum(listing.skipped.values()),
        shards=_write_shards(config, due),
        base_version=base,
        expected_version=pointer.version,
    )
    write_jsonl(_folder(config) / "deleted.jsonl", ({"doc_id": doc_id} for doc_id in sorted(gone | stray)))
    write_json(_folder(config) / "plan.json", asdict(plan))
    log.info("%s; due in all: %d; left aside: %s", plan, len(due), listing.skipped or "nothing")
    if stray:
        log.warning("%d documents lie in the store that no ledger knows; they will be deleted", len(stray))
    return plan


def read_plan(config: IngestConfig) -> Plan:
    """The plan that make_plan() wrote for this run."""
    value: dict[str, Any] = read_json(_folder(config) / "plan.json")
    return Plan(**{**value, "shards": tuple(value["shards"])})


def read_shard(config: IngestConfig, shard: str) -> list[Due]:
    """The documents of one shard."""
    return [Due(**row) for row in read_jsonl(_folder(config) / f"{shard}.jsonl")]


def read_deleted(config: IngestConfig) -> list[str]:
    """The ids of documents that are gone from the source."""
    return [row["doc_id"] for row in read_jsonl(_folder(config) / "deleted.jsonl")]


def document_id(source: str, path: str) -> str:
    """A document's id: the digest of where it lies, so that two sources never collide."""
    return digest(source, path)[:32]


def _listed(config: IngestConfig, source: FolderSource) -> Listing:
    listing = source.list()
    if not listing.paths:
        aside = ", ".join(f"{count} {kind}" for kind, count in sorted(listing.skipped.items()))
        raise UserError(f"source {config.source} holds no document that can be read; left aside: {aside or 'nothing'}")
    return listing


def _is_unchanged(
    wanted: tuple[str, str], source: FolderSource, entries: list[Entry | None], held: tuple[str, int] | None
) -> bool:
    """Whether ledgers, store and source agree on a document, as made by the wanted pipeline for the wanted use case.

    What cannot be read is due: the shard says why.
    """
    known = [entry for entry in entries if entry is not None]
    if len(known) < len(entries) or any((entry.pipeline, entry.use_case) != wanted for entry in known):
        return False
    if known[-1].held != held:
        return False
    try:
        digest_now = source.digest(known[-1].path)
    except OSError:
        return False
    return all(entry.content_digest == digest_now for entry in known)


def _refuse_to_mix(config: IngestConfig, pointer: Pointer) -> None:
    """Vectors of two models cannot be compared and a ledger describes one store, so neither changes under an index."""
    if pointer.version == 0:
        return
    version = get_embedder(config.embedder).name
    if (config.store, version) != (pointer.store, pointer.embedder_version):
        raise UserError(
            f"index {config.index!r} was built with store={pointer.store!r} and embedder {pointer.embedder_version}, "
            f"not with store={config.store!r} and embedder {version}: take those, or another index name"
        )


def _write_shards(config: IngestConfig, due: list[Due]) -> tuple[str, ...]:
    size = max(config.documents_per_shard, math.ceil(len(due) / MAX_SHARDS))
    names = []
    for number, start in enumerate(range(0, len(due), size)):
        names.append(f"shard-{number:04d}")
        rows = due[start : start + size]
        write_jsonl(_folder(config) / f"{names[-1]}.jsonl", (asdict(row) for row in rows))
    return tuple(names)


def _folder(config: IngestConfig) -> UPath:
    return config.run_home / "plan"
