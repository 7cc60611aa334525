"""plan(): the source's listing against ledger, store and quarantine -> what to add, change and delete, in shards.

The listing is a stream and so is what is due: of each document that was indexed before only some digests are held.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Literal, NamedTuple

from upath import UPath

from include.documents.source import Found, document_id
from include.errors import UserError
from include.rag.config import IngestConfig
from include.rag.known import Known, Marked, Stamps
from include.rag.ledger import Ledger, Snapshot
from include.rag.quarantine import NOT_THE_DATA, Quarantine
from include.rag.stores.held import encoded
from include.storage import read_json, read_jsonl, write_json, write_jsonl

log = logging.getLogger(__name__)

MAX_SHARDS = 200
"""Their names travel in one XCom, which stays below 4 KB; a plan of more documents makes larger shards."""
REPORT_EVERY = 10_000
_LOOKED_UP = 1000
"""Files that are compared at a time."""


class Due(NamedTuple):
    """One document to read, as the plan saw it; a tuple, since millions of them are written and read."""

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
    due: str = ""
    """Digest of what is due; empty in a plan of an earlier release."""


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
    blocks, due = _write_blocks(config, comparison.due())
    if not comparison.found:
        aside = ", ".join(f"{count} {kind}" for kind, count in sorted(comparison.source.skipped.items()))
        raise UserError(f"source {config.source} holds no document that can be read; left aside: {aside or 'nothing'}")
    leaving, gone = comparison.leaving(), comparison.gone()
    stray = set(comparison.stray.missing())
    plan = Plan(
        found=comparison.found,
        unchanged=comparison.unchanged,
        still_quarantined=comparison.still_quarantined,
        deleted=len(leaving),
        indexed=comparison.indexed,
        skipped=comparison.source.skipped.total(),
        blocks=blocks,
        shards=tuple(f"shard-{number:04d}" for number in range(min(blocks, MAX_SHARDS))),
        base_version=base,
        expected_version=pointer.version,
        due=due,
    )
    write_jsonl(deleted_uri(config), ({"doc_id": doc_id, "path": leaving[doc_id]} for doc_id in sorted(leaving)))
    unasked = sorted((gone - leaving.keys()) | stray)
    write_jsonl(_folder(config) / "stray.jsonl", ({"doc_id": doc_id} for doc_id in unasked))
    write_jsonl(_folder(config) / "drifted.jsonl", ({"doc_id": doc_id} for doc_id in comparison.drifted.found()))
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
    return [Due(**row) for block in _blocks(read_plan(config), shard) for row in read_jsonl(_block(config, block))]


def num_documents(config: IngestConfig, plan: Plan, shard: str) -> int:
    """How many documents a shard has."""
    due, blocks = plan.found - plan.unchanged - plan.still_quarantined, _blocks(plan, shard)
    first, end = (min(due, block * config.documents_per_shard) for block in (blocks.start, blocks.stop))
    return max(0, end - first)


def _blocks(plan: Plan, shard: str) -> range:
    number, per_shard = plan.shards.index(shard), math.ceil(plan.blocks / max(1, len(plan.shards)))
    return range(number * per_shard, min(plan.blocks, (number + 1) * per_shard))


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


class _Comparison:
    """One pass over the listing; its counts and lists are whole once due() is exhausted."""

    def __init__(self, config: IngestConfig, ledger: Ledger, *, base: int, now: int) -> None:
        self._config = config
        before = ledger.read(base)
        current = before if now == base else ledger.read(now)
        self._live_rows = before if (live := _live_ledger(config)) is None else live.read(live.version())
        self._rows = current
        self._before = self._known(before)
        self._now = self._before if current is before else self._known(current)
        self._live = self._before if self._live_rows is before else self._known(self._live_rows)
        held = config.open_store().documents()
        self.drifted = Marked(current.held().differing(held))
        """Documents of which the store does not hold what the ledger says."""
        unknown = self._before.ids.places(held.ids) < 0
        unknown &= self._now.ids.places(held.ids) < 0
        self.stray = Marked(held.ids.take(unknown))
        """Documents that lie in the store though no ledger knows them."""
        del held, unknown  # before the stamps take as much
        self._stamps = Stamps(ledger.stamps())
        self._quarantine = Quarantine(config.home)
        self.source = config.open_source()
        self.found = 0
        self.unchanged = 0
        self.still_quarantined = 0
        self.restamped: list[dict[str, str]] = []
        self.kept_letters: list[dict[str, Any]] = []

    def _known(self, snapshot: Snapshot) -> Known:
        config = self._config
        return Known(snapshot, source=config.source, pipeline=pipeline_name(config), use_case=config.use_case)

    @cached_property
    def _reader(self) -> str:
        return reader_name(self._config)

    def due(self) -> Iterator[Due]:
        """What must be read, in the order of the listing."""
        listing = self.source.list()
        while some := list(islice(listing, _LOOKED_UP)):
            yield from self._due(some)
            self.found += len(some)
            if self.found % REPORT_EVERY == 0:
                log.info("compared %d documents", self.found)

    def _due(self, some: list[Found]) -> Iterator[Due]:
        ids = [document_id(self._config.source, found.path) for found in some]
        keys = encoded(ids)
        before = self._before.find(keys)
        now = before if self._now is self._before else self._now.find(keys)
        if self._live is not self._before:
            self._live.find(keys)
        is_drifted = self.drifted.find(keys) >= 0
        self.stray.find(keys)
        stamped = self._stamps.look_up(keys, [found.stamp for found in some])
        for number, (doc_id, found) in enumerate(zip(ids, some, strict=True)):
            is_known = before[number] >= 0
            digest_now, is_news = self._digest(doc_id, found, stamped[number], is_known=is_known)
            letters = self._quarantine.of(doc_id, digest_now)
            of_records = [letter for letter in letters if letter["locator"] is not None]
            if self._is_held_back(letters):
                self.still_quarantined += 1
                self.kept_letters += letters
            elif (
                not is_drifted[number]
                and not (of_records and self._config.replay_quarantine)
                and self._before.is_same(before[number], digest_now)
                and self._now.is_same(now[number], digest_now)
            ):
                self.unchanged += 1
                self.kept_letters += of_records
            else:
                is_news = False  # for the shard to tell
                yield Due(
                    doc_id=doc_id,
                    path=found.path,
                    action="changed" if is_known else "added",
                    stamp=found.stamp,
                    size=found.size,
                    attempt=max((one["attempt"] + (not self._is_own(one)) for one in letters), default=1),
                )
            if is_news and found.stamp and self.source.stamp(found.path) == found.stamp:
                self.restamped.append({"doc_id": doc_id, "stamp": found.stamp, "content_digest": digest_now})

    def leaving(self) -> dict[str, str]:
        """Documents of this source that readers would miss, id -> path: the live version has them, the listing not."""
        paths = dict(self._live_rows.paths(self._live.missing()))
        if self._live is self._before:
            paths |= dict(self._rows.paths(self._now.missing()))
        return paths

    @property
    def indexed(self) -> int:
        """Documents of this source that readers found when the run began."""
        return int(self._live.is_mine.sum())

    def gone(self) -> set[str]:
        """Documents that the run's version has of this source, and the listing has not."""
        return set(self._before.missing()) | set(self._now.missing())

    def _digest(self, doc_id: str, found: Found, stamped: str | None, *, is_known: bool) -> tuple[str, bool]:
        """A known document's digest, and whether it had to be read for it; empty for one that is due anyway."""
        if stamped is None and not is_known and not self._quarantine.knows(doc_id):
            return "", False
        if stamped:
            return stamped, False
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


def _live_ledger(config: IngestConfig) -> Ledger | None:
    """The ledger of the live version, if the run works on another."""
    live = config.versions.live().version
    return None if live in (None, config.version) else Ledger(config.versions.home_of(live))


def _write_blocks(config: IngestConfig, due: Iterator[Due]) -> tuple[int, str]:
    """Write what is due as it comes; returns the number of blocks, and a digest of all."""
    rows: list[dict[str, Any]] = []
    blocks, state = 0, hashlib.sha256()
    for one in due:
        rows.append(one._asdict())
        state.update(f"{one.doc_id} {one.action} {one.stamp} {one.size} {one.attempt}\n".encode())
        if len(rows) == config.documents_per_shard:
            write_jsonl(_block(config, blocks), rows)
            blocks, rows = blocks + 1, []
    if rows:
        write_jsonl(_block(config, blocks), rows)
        blocks += 1
    return blocks, state.hexdigest()


def _block(config: IngestConfig, number: int) -> UPath:
    return _folder(config) / f"due-{number:06d}.jsonl"


def _folder(config: IngestConfig) -> UPath:
    return config.run_home / "plan"
