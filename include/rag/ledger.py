"""What an index holds, document by document: a versioned Parquet snapshot and a pointer that is written last.

Columns: doc_id, source, path, content_digest, source_version, pipeline, use_case, title, chunks, run_id, ingested_at.
`pipeline` names the chunker and the embedder, so a document is due again when either changes. Beside the snapshots lies
`stamps.parquet`, a cache: by it a document whose file was not touched is known without being read. Both are read and
written some rows at a time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from upath import UPath

from include.errors import StateMovedError, UserError
from include.rag.stores.held import Held, HeldBuilder, Texts, encoded, joined
from include.storage import is_local, new_file, read_json, write_json

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

SCHEMA_VERSION = 2
"""Raise it with the columns: indexes are then rebuilt beside those that stand."""
_BATCH = 2_000
"""Rows that are in memory at a time."""
_GROUP = 10_000
"""Rows, at least, that are written together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One document of an index."""

    doc_id: str
    source: str
    path: str
    content_digest: str
    source_version: str
    """The source's own mark of what was read: an object's ETag, or a file's size, times and inode."""
    pipeline: str
    use_case: str
    title: str
    chunks: int
    run_id: str
    """The run that put it there, at ingested_at (ISO 8601, UTC)."""
    ingested_at: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Pointer:
    """Which snapshot is the ledger, and which run made it from what."""

    version: int = 0
    """0: there is no ledger yet."""
    run_id: str = ""
    base_version: int = 0
    """The version that this run began with; a repeated task of the same run compares with that one."""
    work_digest: str = ""
    """What was committed; the same digest by the same run means that it was committed already."""


class Keyed:
    """Rows that have a document's id in their first column, each id once and in no order; never all in memory."""

    def __init__(
        self, own: pa.Table | pq.ParquetFile, *, before: Keyed | None = None, without: Texts | None = None
    ) -> None:
        """`own` are behind the rows of `before`, less those with an id among `without`, which are sorted."""
        self._own = own
        self._before = before
        self._without = without

    def __len__(self) -> int:
        return sum(batch.num_rows for batch in self.batches(self.names[:1]))

    @property
    def schema(self) -> pa.Schema:
        """The columns."""
        import pyarrow as pa

        return self._own.schema if isinstance(self._own, pa.Table) else self._own.schema_arrow

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return list(self.schema.names)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All rows, some at a time; all columns or some."""
        import pyarrow as pa

        names = list(columns or self.names)
        if self._before is not None and self._without is not None:
            for batch in self._before.batches(list(dict.fromkeys([self.names[0], *names]))):
                kept = batch.filter(pa.array(self._without.places(encoded(batch.column(0))) < 0))
                yield kept.select(names)
        if isinstance(self._own, pa.Table):
            yield from self._own.select(names).to_batches(max_chunksize=_BATCH)
        else:
            yield from self._own.iter_batches(_BATCH, columns=names, use_threads=False)

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[list[Any]]:
        """The values of each row."""
        return _values(self.batches(columns))

    def some(self, doc_ids: Collection[str]) -> dict[str, list[Any]]:
        """Id -> values of those of the documents that have a row, found in one pass."""
        return {row[0]: row for row in _values(self.among(encoded(sorted(set(doc_ids)))))}

    def among(self, doc_ids: Texts, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows of some documents, whose ids are sorted; the first column is one of those that are asked for."""
        import pyarrow as pa

        for batch in self.batches(columns) if len(doc_ids) else ():
            yield batch.filter(pa.array(doc_ids.places(encoded(batch.column(0))) >= 0))

    def replaced(self, gone: Collection[str], rows: Iterable[Mapping[str, Any]]) -> Keyed:
        """The same without the rows of `gone` and with these, each in place of one that it had before."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        stream, ids = iter(rows), [encoded(list(gone))]
        spool = tempfile.TemporaryFile()  # noqa: SIM115 (closed with what reads it)
        with pq.ParquetWriter(spool, self.schema) as writer:
            while some := list(islice(stream, _BATCH)):
                made = pa.RecordBatch.from_pylist(some, schema=self.schema)
                ids.append(encoded(made.column(0)))
                writer.write_batch(made)
        return type(self)(pq.ParquetFile(spool), before=self, without=joined(ids).sorted())


class Snapshot(Keyed):
    """The documents of an index at one version of its ledger."""

    def get(self, doc_id: str) -> Entry | None:
        """A document's entry; None if the index does not hold it."""
        return self.get_some([doc_id]).get(doc_id)

    def get_some(self, doc_ids: Collection[str]) -> dict[str, Entry]:
        """Id -> entry of those of the documents that the index holds, found in one pass."""
        return {doc_id: self._entry(row) for doc_id, row in self.some(doc_ids).items()}

    def entries(self) -> Iterator[Entry]:
        """Every entry."""
        return map(self._entry, self.rows())

    def paths(self, doc_ids: Texts) -> Iterator[tuple[str, str]]:
        """(id, path) of those of some documents, in order, that the index holds."""
        return ((doc_id, path) for doc_id, path in _values(self.among(doc_ids, ["doc_id", "path"])))

    def held(self) -> Held:
        """What a store that agrees holds: every document that has a chunk."""
        import pyarrow.compute as pc

        builder = HeldBuilder()
        for batch in self.batches(["doc_id", "content_digest", "chunks"]):
            ids, digests, chunks = batch.filter(pc.greater(batch.column(2), 0)).columns
            builder.add(ids, digests, chunks)
        return builder.done()

    @property
    def chunks(self) -> int:
        """How many chunks all documents have."""
        import pyarrow.compute as pc

        return sum(pc.sum(batch.column(0)).as_py() or 0 for batch in self.batches(["chunks"]))

    def _entry(self, row: list[Any]) -> Entry:
        return Entry(**dict(zip(self.names, row, strict=True)))


class Ledger:
    """The ledger of one version of an index; one writer at a time, any number of readers."""

    def __init__(self, home: UPath) -> None:
        self._folder = home / "ledger"
        self._pointer = self._folder / "CURRENT.json"
        self._stamps = home / "stamps.parquet"

    def pointer(self) -> Pointer:
        """The current pointer; version 0 if nothing was ever committed."""
        if not self._pointer.exists():
            return Pointer()
        value: dict[str, Any] = read_json(self._pointer)
        schema = value.pop("schema_version", None)
        if schema != SCHEMA_VERSION:
            raise UserError(f"{self._pointer} has schema_version {schema}; this release reads {SCHEMA_VERSION}")
        return Pointer(**value)

    def uri(self, version: int) -> str:
        """Where a snapshot lies."""
        return str(self._snapshot(version))

    def read(self, version: int) -> Snapshot:
        """A snapshot; an empty one for version 0."""
        return Snapshot(_open(self._snapshot(version)) if version else _schema().empty_table())

    def version(self) -> int:
        """The current version, whatever release wrote it; 0 if nothing was ever committed."""
        return int(read_json(self._pointer)["version"]) if self._pointer.exists() else 0

    def sources(self) -> set[str]:
        """The sources of its documents, whatever release wrote them."""
        sources: set[str] = set()
        for batch in self._current().batches(["source"]):
            sources |= set(batch.column(0).unique().to_pylist())
        return sources

    def paths(self, doc_ids: Collection[str]) -> dict[str, str]:
        """Id -> path of those of the documents that it holds, whatever release wrote it."""
        return dict(self._current().paths(encoded(sorted(doc_ids))))

    def history(self, doc_id: str) -> Iterator[tuple[int, Entry]]:
        """(version, entry) of each version that wrote a document anew, oldest first."""
        last = None
        for version in range(1, self.version() + 1):
            if self._snapshot(version).exists():
                entry = self.read(version).get(doc_id)
                if entry is not None and entry != last:
                    yield version, entry
                last = entry

    def expect(self, version: int) -> None:
        """StateMovedError unless this is the current version."""
        found = self.pointer().version
        if found != version:
            raise StateMovedError(f"the ledger moved from version {version} to {found}; clear the plan task")

    def commit(self, snapshot: Snapshot, pointer: Pointer, *, expected_version: int) -> None:
        """Write a snapshot, then the pointer to it; StateMovedError if another commit came between."""
        self.expect(expected_version)
        _write(self._snapshot(pointer.version), snapshot)
        write_json(self._pointer, {"schema_version": SCHEMA_VERSION, **asdict(pointer)})

    def stamps(self) -> Keyed:
        """(doc_id, stamp, content digest) of the documents as they were last read."""
        import pyarrow as pa

        if self._stamps.exists():
            return Keyed(_open(self._stamps))
        return Keyed(pa.schema([(name, pa.string()) for name in STAMP_COLUMNS]).empty_table())

    def write_stamps(self, stamps: Keyed) -> None:
        """Replace the cache of stamps."""
        _write(self._stamps, stamps)

    def _current(self) -> Snapshot:
        return self.read(self.version())

    def _snapshot(self, version: int) -> UPath:
        return self._folder / f"{version:08d}.parquet"


STAMP_COLUMNS = ("doc_id", "stamp", "content_digest")


def _schema() -> pa.Schema:
    import pyarrow as pa

    numbers = {"chunks": pa.int32()}
    return pa.schema([(name, numbers.get(name, pa.string())) for name in Entry.__dataclass_fields__])


def _values(batches: Iterable[pa.RecordBatch]) -> Iterator[list[Any]]:
    """The values of each row."""
    for batch in batches:
        yield from map(list, zip(*(column.to_pylist() for column in batch.columns), strict=True))


def _open(path: UPath) -> pq.ParquetFile:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path.path if is_local(path) else path.open("rb"))


def _write(path: UPath, rows: Keyed) -> None:
    """Write rows as one Parquet file, some at a time; a reader sees the old file or the new one, never a part."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with new_file(path) as file, pq.ParquetWriter(file, rows.schema, compression="zstd") as writer:
        waiting, number = [], 0
        for batch in rows.batches():  # gathered, so that the groups of rows do not become smaller from commit to commit
            waiting.append(batch)
            number += batch.num_rows
            if number >= _GROUP:
                writer.write_table(pa.Table.from_batches(waiting))
                waiting, number = [], 0
        writer.write_table(pa.Table.from_batches(waiting, rows.schema))
