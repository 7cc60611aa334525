"""What an index holds, document by document: a versioned Parquet snapshot and a pointer that is written last.

Columns: doc_id, source, path, content_digest, source_version, pipeline, use_case, title, chunks, run_id, ingested_at.
`pipeline` names the chunker and the embedder, so a document is due again when either changes. Beside the snapshots lies
`stamps.parquet`, a cache: by it a document whose file was not touched is known without being read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from upath import UPath

from include.errors import StateMovedError, UserError
from include.storage import read_json, read_parquet, write_json, write_parquet

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 2
"""Raise it with the columns: indexes are then rebuilt beside those that stand."""
_BATCH = 10_000
"""Rows that are Python objects at a time."""


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

    @property
    def held(self) -> tuple[str, int] | None:
        """What a store that agrees says of this document: its digest and number of chunks, nothing if it has none."""
        return (self.content_digest, self.chunks) if self.chunks else None


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
    """An Arrow table sorted by its first column, a document's id, that finds rows by it.

    A million documents take a few hundred megabytes, where as many Python objects would take more than a gigabyte.
    """

    def __init__(self, table: pa.Table) -> None:
        import numpy as np

        self.table = table.combine_chunks()
        self._ids = np.array(self.table.column(0).to_pylist(), dtype=np.bytes_)
        self._columns = [column.combine_chunks() for column in self.table.itercolumns()]

    def __len__(self) -> int:
        return len(self._ids)

    def row(self, doc_id: str) -> list[Any] | None:
        """The values of a document's row; None if it has none."""
        import numpy as np

        key = doc_id.encode()
        place = int(np.searchsorted(self._ids, key)) if len(self._ids) else 0
        if place == len(self._ids) or self._ids[place] != key:
            return None
        return [column[place].as_py() for column in self._columns]

    def rows(self) -> Iterator[list[Any]]:
        """All rows, in the order of ids."""
        for batch in self.table.to_batches(max_chunksize=_BATCH):
            yield from map(list, zip(*(column.to_pylist() for column in batch.columns), strict=True))

    def replaced(self, gone: Collection[str], rows: Iterable[Mapping[str, Any]]) -> Keyed:
        """The same without the rows of `gone` and with these, each in place of one that it had before."""
        import pyarrow as pa
        import pyarrow.compute as pc

        schema, stream = self.table.schema, iter(rows)
        batches = [schema.empty_table()]
        while batch := list(islice(stream, _BATCH)):
            batches.append(pa.Table.from_pylist(batch, schema=schema))
        made = pa.concat_tables(batches)
        name = schema.names[0]
        leaving = pa.chunked_array([pa.array(list(gone), pa.string()), *made[name].chunks])
        kept = self.table.filter(pc.invert(pc.is_in(self.table[name], value_set=leaving)))
        return type(self)(pa.concat_tables([kept, made]).sort_by(name))


class Snapshot(Keyed):
    """The documents of an index at one version of its ledger."""

    def get(self, doc_id: str) -> Entry | None:
        """A document's entry; None if the index does not hold it."""
        row = self.row(doc_id)
        return None if row is None else Entry(**dict(zip(self.table.schema.names, row, strict=True)))

    def entries(self) -> Iterator[Entry]:
        """Every entry, in the order of ids."""
        names = self.table.schema.names
        return (Entry(**dict(zip(names, row, strict=True))) for row in self.rows())

    def of_source(self, source: str) -> Iterator[str]:
        """The ids of the documents of one source."""
        return (doc_id for doc_id, _ in self.paths_of(source))

    def paths_of(self, source: str) -> Iterator[tuple[str, str]]:
        """(id, path) of the documents of one source."""
        import pyarrow.compute as pc

        mine = self.table.filter(pc.equal(self.table["source"], source))
        for batch in mine.select(["doc_id", "path"]).to_batches(max_chunksize=_BATCH):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    @property
    def chunks(self) -> int:
        """How many chunks all documents have."""
        import pyarrow.compute as pc

        return int(pc.sum(self.table["chunks"]).as_py() or 0)


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
        return Snapshot(read_parquet(self._snapshot(version)) if version else _schema().empty_table())

    def version(self) -> int:
        """The current version, whatever release wrote it; 0 if nothing was ever committed."""
        return int(read_json(self._pointer)["version"]) if self._pointer.exists() else 0

    def sources(self) -> set[str]:
        """The sources of its documents, whatever release wrote them."""
        version = self.version()
        if not version:
            return set()
        return set(read_parquet(self._snapshot(version), ["source"])["source"].unique().to_pylist())

    def paths(self, doc_ids: Collection[str]) -> dict[str, str]:
        """Id -> path of those of the documents that it holds, whatever release wrote it."""
        version = self.version()
        if not version or not doc_ids:
            return {}
        import pyarrow as pa
        import pyarrow.compute as pc

        table = read_parquet(self._snapshot(version), ["doc_id", "path"])
        found = table.filter(pc.is_in(table["doc_id"], value_set=pa.array(doc_ids, pa.string())))
        return dict(zip(found["doc_id"].to_pylist(), found["path"].to_pylist(), strict=True))

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
        write_parquet(self._snapshot(pointer.version), snapshot.table)
        write_json(self._pointer, {"schema_version": SCHEMA_VERSION, **asdict(pointer)})

    def stamps(self) -> Keyed:
        """(doc_id, stamp, content digest) of the documents as they were last read."""
        import pyarrow as pa

        if self._stamps.exists():
            return Keyed(read_parquet(self._stamps))
        return Keyed(pa.schema([(name, pa.string()) for name in STAMP_COLUMNS]).empty_table())

    def write_stamps(self, stamps: Keyed) -> None:
        """Replace the cache of stamps."""
        write_parquet(self._stamps, stamps.table)

    def _snapshot(self, version: int) -> UPath:
        return self._folder / f"{version:08d}.parquet"


STAMP_COLUMNS = ("doc_id", "stamp", "content_digest")


def _schema() -> pa.Schema:
    import pyarrow as pa

    numbers = {"chunks": pa.int32()}
    return pa.schema([(name, numbers.get(name, pa.string())) for name in Entry.__dataclass_fields__])
