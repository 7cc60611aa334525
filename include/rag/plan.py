"""plan(): the source's listing against ledger, store and quarantine -> what to add, change and delete, in shards.

The listing is a stream and so is what is due: of each document only its id is held.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from upath import UPath

from include.errors import UserError
from include.rag.config import IngestConfig
from include.rag.ledger import Entry, Ledger
from include.rag.quarantine import NOT_THE_DATA, Quarantine
from include.rag.source import FolderSource, Found
from include.storage import digest, read_json, read_jsonl, write_json, write_jsonl

log = logging.getLogger(__name__)

MAX_SHARDS = 200
"""Their names travel in one XCom, which stays below 4 KB; a plan of more documents makes larger shards."""
REPORT_EVERY = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Due:
    """One document to read, as the plan saw it."""

    doc_id: str
    path: str
    action: Literal["added", "changed"]
    stamp: str
    size: int
    attempt: int = 1
    """More than 1 if the same bytes were set aside before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a run will do; its lists lie beside it, since a task hands on only small values."""

    found: int
    unchanged: int
    still_quarantined: int
    deleted: int
    """Gone from the source; what the deletion guard is asked about."""
    indexed: int
    """Documents of this source in the index as the run found it."""
    skipped: int
    """Files of kinds that are not read, or excluded."""
    blocks: int
    """Files that list what is due, each of documents_per_shard documents."""
    shards: tuple[str, ...]
    base_version: int
    """The ledger that the run began with."""
    expected_version: int
    """The ledger that the commit must find."""


def pipeline_name(config: IngestConfig) -> str:
    """Everything that turns the same bytes into other rows: chunker and embedder with their versions."""
    return f"{config.spec.chunker}+{config.spec.embedder_version}"


def reader_name(config: IngestConfig) -> str:
    """Everything that decides whether the same bytes can be used: the pipeline, and what a document may cost."""
    return f"{pipeline_name(config)}+{config.limits.name}"


def make_plan(config: IngestConfig) -> Plan:
    """List, compare, and write the plan below the run's home; UserError if the source holds nothing to read.

    A document is unchanged if its bytes are what the ledger says and what the store holds; its bytes are read only if
    its stamp changed. A repeated plan of the same run compares with the ledger that the run began with too, so it comes
    to the same result whether or not the run has committed since. Chunks that no ledger knows, left by a run that died
    in its commit, are deleted.
    """
    ledger = Ledger(config.home)
    pointer = ledger.pointer()
    base = pointer.base_version if pointer.run_id == config.run_id else pointer.version
    comparison = _Comparison(config, ledger, base=base, now=pointer.version)
    blocks = _write_blocks(config, comparison.due())
    if not comparison.found:
        aside = ", ".join(f"{count} {kind}" for kind, count in sorted(comparison.source.skipped.items()))
        raise UserError(f"source {config.source} holds no document that can be read; left aside: {aside or 'nothing'}")
    leaving, gone = comparison.leaving(), comparison.gone()
    stray = comparison.stray()
    plan = Plan(
        found=len(comparison.found),
        unchanged=comparison.unchanged,
        still_quarantined=comparison.still_quarantined,
        deleted=len(leaving),
        indexed=comparison.indexed(),
        skipped=comparison.source.skipped.total(),
        blocks=blocks,
        shards=tuple(f"shard-{number:04d}" for number in range(min(blocks, MAX_SHARDS))),
        base_version=base,
        expected_version=pointer.version,
    )
    write_jsonl(deleted_uri(config), ({"doc_id": doc_id, "path": leaving[doc_id]} for doc_id in sorted(leaving)))
    unasked = sorted((gone - leaving.keys()) | stray)
    write_jsonl(_folder(config) / "stray.jsonl", ({"doc_id": doc_id} for doc_id in unasked))
    write_jsonl(_folder(config) / "drifted.jsonl", ({"doc_id": doc_id} for doc_id in comparison.drifted))
    write_jsonl(_folder(config) / "restamped.jsonl", comparison.restamped)
    write_jsonl(_folder(config) / "quarantined.jsonl", comparison.kept_letters)
    write_json(_folder(config) / "plan.json", asdict(plan))
    log.info("%s; left aside: %s", plan, dict(comparison.source.skipped) or "nothing")
    if stray:
        log.warning("%d documents lie in the store that no ledger knows; they will be deleted", len(stray))
    return plan


def read_plan(config: IngestConfig) -> Plan:
    """The plan that make_plan() wrote for this run."""
    value: dict[str, Any] = read_json(_folder(config) / "plan.json")
    return Plan(**{**value, "shards": tuple(value["shards"])})


def read_shard(config: IngestConfig, shard: str) -> list[Due]:
    """The documents of one shard: an even share of the blocks."""
    plan = read_plan(config)
    number, per_shard = plan.shards.index(shard), math.ceil(plan.blocks / max(1, len(plan.shards)))
    blocks = range(number * per_shard, min(plan.blocks, (number + 1) * per_shard))
    return [Due(**row) for block in blocks for row in read_jsonl(_block(config, block))]


def deleted_uri(config: IngestConfig) -> UPath:
    """The file that lists the documents that are gone from the source, one in a line."""
    return _folder(config) / "deleted.jsonl"


def read_deleted(config: IngestConfig) -> Iterator[tuple[str, str]]:
    """(id, path) of the documents that are gone from the source, of the version that is live."""
    return ((row["doc_id"], row["path"]) for row in read_jsonl(deleted_uri(config)))


def read_stray(config: IngestConfig) -> list[str]:
    """The ids of documents to delete unasked: no ledger knows them, or readers never saw them."""
    return [row["doc_id"] for row in read_jsonl(_folder(config) / "stray.jsonl")]


def read_drifted(config: IngestConfig) -> list[str]:
    """The ids of documents of which the store does not hold what the ledger says."""
    return [row["doc_id"] for row in read_jsonl(_folder(config) / "drifted.jsonl")]


def read_restamped(config: IngestConfig) -> Iterator[dict[str, str]]:
    """(doc_id, stamp, content_digest) of unchanged documents whose file was touched."""
    return read_jsonl(_folder(config) / "restamped.jsonl")


def read_kept_letters(config: IngestConfig) -> list[dict[str, Any]]:
    """The dead letters that still hold, since their documents are unchanged."""
    return list(read_jsonl(_folder(config) / "quarantined.jsonl"))


def document_id(source: str, path: str) -> str:
    """A document's id: the digest of where it lies, so that two sources never collide."""
    return digest(source, path)[:32]


class _Comparison:
    """One pass over the listing; its counts and lists are whole once due() is exhausted."""

    def __init__(self, config: IngestConfig, ledger: Ledger, *, base: int, now: int) -> None:
        self._config = config
        self._before = ledger.read(base)
        self._now = self._before if now == base else ledger.read(now)
        self._live = self._before if (live := _live_ledger(config)) is None else live.read(live.version())
        self._stamps = ledger.stamps()
        self._held = config.open_store().documents()
        self._quarantine = Quarantine(config.home)
        self.source = FolderSource(config)
        self.found: set[str] = set()
        self.unchanged = 0
        self.still_quarantined = 0
        self.restamped: list[dict[str, str]] = []
        self.kept_letters: list[dict[str, Any]] = []
        self.drifted: list[str] = []

    @cached_property
    def _wanted(self) -> tuple[str, str]:
        return pipeline_name(self._config), self._config.use_case

    @cached_property
    def _reader(self) -> str:
        return reader_name(self._config)

    def due(self) -> Iterator[Due]:
        """What must be read, in the order of the listing."""
        for found in self.source.list():
            doc_id = document_id(self._config.source, found.path)
            self.found.add(doc_id)
            if len(self.found) % REPORT_EVERY == 0:
                log.info("compared %d documents", len(self.found))
            is_drifted = self._is_drifted(doc_id)
            if is_drifted:
                self.drifted.append(doc_id)
            digest_now, is_news = self._digest(doc_id, found)
            letters = self._quarantine.of(doc_id, digest_now)
            of_records = [letter for letter in letters if letter["locator"] is not None]
            if self._is_held_back(letters):
                self.still_quarantined += 1
                self.kept_letters += letters
            elif (
                not is_drifted
                and not (of_records and self._config.replay_quarantine)
                and self._is_unchanged(doc_id, digest_now)
            ):
                self.unchanged += 1
                self.kept_letters += of_records
            else:
                is_news = False  # for the shard to tell
                yield Due(
                    doc_id=doc_id,
                    path=found.path,
                    action="changed" if self._before.get(doc_id) else "added",
                    stamp=found.stamp,
                    size=found.size,
                    attempt=max((one["attempt"] + (not self._is_own(one)) for one in letters), default=1),
                )
            if is_news and found.stamp and self.source.stamp(found.path) == found.stamp:
                self.restamped.append({"doc_id": doc_id, "stamp": found.stamp, "content_digest": digest_now})

    def leaving(self) -> dict[str, str]:
        """Documents of this source that readers would miss, id -> path: the live version has them, the listing not."""
        snapshots = {id(one): one for one in (self._live, self._now if self._live is self._before else self._live)}
        pairs = (pair for one in snapshots.values() for pair in one.paths_of(self._config.source))
        return {doc_id: path for doc_id, path in pairs if doc_id not in self.found}

    def indexed(self) -> int:
        """Documents of this source that readers found when the run began."""
        return sum(1 for _ in self._live.paths_of(self._config.source))

    def gone(self) -> set[str]:
        """Documents that the run's version has of this source, and the listing has not."""
        gone = set(self._before.of_source(self._config.source))
        return (gone | set(self._now.of_source(self._config.source))) - self.found

    def stray(self) -> set[str]:
        """Documents that lie in the store though no ledger, and no file, knows them."""
        unknown = (doc_id for doc_id in self._held if doc_id not in self.found)
        return {doc_id for doc_id in unknown if not self._now.get(doc_id) and not self._before.get(doc_id)}

    def _digest(self, doc_id: str, found: Found) -> tuple[str, bool]:
        """A known document's digest, and whether it had to be read for it; empty for one that is due anyway."""
        row = self._stamps.row(doc_id)
        if row is None and self._before.get(doc_id) is None and not self._quarantine.knows(doc_id):
            return "", False
        if row is not None and found.stamp and row[1] == found.stamp:
            return str(row[2]), False
        try:
            return self.source.digest(found.path), True
        except OSError:
            return "", False  # due: the shard says why

    def _is_held_back(self, letters: list[dict[str, Any]]) -> bool:
        """Whether an earlier run set aside these very bytes, for a fault of theirs, by a reader like this one."""
        return not self._config.replay_quarantine and any(
            letter["locator"] is None
            and letter["reader"] == self._reader
            and letter["fault"] not in NOT_THE_DATA
            and not self._is_own(letter)
            for letter in letters
        )

    def _is_own(self, letter: dict[str, Any]) -> bool:
        """Whether this very run wrote a letter, and is planned again: it comes to the same work as before."""
        return bool(letter["run_id"] == self._config.run_id)

    def _is_drifted(self, doc_id: str) -> bool:
        """Whether the store does not hold of a document what the ledger says."""
        entry = self._now.get(doc_id)
        return (entry.held if entry else None) != self._held.get(doc_id)

    def _is_unchanged(self, doc_id: str, digest_now: str) -> bool:
        """Whether ledgers and source agree on a document, as made by the wanted pipeline and use case."""
        entries: list[Entry | None] = [self._before.get(doc_id)]
        if self._now is not self._before:
            entries.append(self._now.get(doc_id))
        for entry in entries:
            if entry is None or (entry.pipeline, entry.use_case) != self._wanted or entry.content_digest != digest_now:
                return False
        return True


def _live_ledger(config: IngestConfig) -> Ledger | None:
    """The ledger of the live version, if the run works on another."""
    live = config.versions.live().version
    return None if live in (None, config.version) else Ledger(config.versions.home_of(live))


def _write_blocks(config: IngestConfig, due: Iterator[Due]) -> int:
    """Write what is due as it comes; returns the number of blocks."""
    rows: list[dict[str, Any]] = []
    blocks = 0
    for one in due:
        rows.append(asdict(one))
        if len(rows) == config.documents_per_shard:
            write_jsonl(_block(config, blocks), rows)
            blocks, rows = blocks + 1, []
    if rows:
        write_jsonl(_block(config, blocks), rows)
        blocks += 1
    return blocks


def _block(config: IngestConfig, number: int) -> UPath:
    return _folder(config) / f"due-{number:06d}.jsonl"


def _folder(config: IngestConfig) -> UPath:
    return config.run_home / "plan"
