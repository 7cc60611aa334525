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
from include.rag.source import list_source
from include.rag.split import Chunker
from include.storage import digest, file_digest, location, read_json, read_jsonl, write_json, write_jsonl

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

    A repeated plan of the same run compares with the ledger that the run began with, so it comes to the same result
    whether or not the run has committed since.
    """
    ledger = Ledger(config.home)
    pointer = ledger.pointer()
    base = pointer.base_version if pointer.run_id == config.run_id else pointer.version
    listing = list_source(config.source, config.include, config.exclude)
    if not listing.files:
        aside = ", ".join(f"{count} {suffix}" for suffix, count in sorted(listing.skipped.items()))
        raise UserError(f"source {config.source} holds no document that can be read; left aside: {aside or 'nothing'}")
    before, now = ledger.read(base), ledger.read(pointer.version)
    _refuse_to_mix(config, pointer)
    known, current = _of_source(before, config.source), _of_source(now, config.source)
    due, present = _compare(config, [file.path for file in listing.files], known)
    gone = sorted((known.keys() | current.keys()) - present)
    plan = Plan(
        found=len(listing.files),
        unchanged=len(listing.files) - len(due),
        deleted=len(gone),
        skipped=sum(listing.skipped.values()),
        shards=_write_shards(config, due),
        base_version=base,
        expected_version=pointer.version,
    )
    write_jsonl(_folder(config) / "deleted.jsonl", ({"doc_id": doc_id} for doc_id in gone))
    write_json(_folder(config) / "plan.json", asdict(plan))
    log.info(
        "%s: %d documents found, %d unchanged, %d due in %d shards, %d to delete; %d files left aside %s",
        config.source, plan.found, plan.unchanged, len(due), len(plan.shards), plan.deleted, plan.skipped,
        listing.skipped or "",
    )  # fmt: skip
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


def _compare(config: IngestConfig, paths: list[str], known: dict[str, Entry]) -> tuple[list[Due], set[str]]:
    pipeline = pipeline_name(config)
    folder = location(config.source)
    due: list[Due] = []
    present: set[str] = set()
    for path in paths:
        doc_id = document_id(config.source, path)
        present.add(doc_id)
        entry = known.get(doc_id)
        if entry is None:
            due.append(Due(doc_id=doc_id, path=path, action="added"))
        elif entry.pipeline != pipeline or entry.content_digest != file_digest(folder / path):
            due.append(Due(doc_id=doc_id, path=path, action="changed"))
    return due, present


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


def _of_source(entries: dict[str, Entry], source: str) -> dict[str, Entry]:
    return {doc_id: entry for doc_id, entry in entries.items() if entry.source == source}


def _folder(config: IngestConfig) -> UPath:
    return config.run_home / "plan"
