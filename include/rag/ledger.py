"""What an index holds, document by document: a versioned Parquet snapshot and a pointer that is written last.

Columns: doc_id, source, path, content_digest, pipeline, use_case, title, chunks, run_id. `pipeline` names the chunker
and the embedder, so a document is due again when either changes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from upath import UPath

from include.errors import StateMovedError, UserError
from include.storage import read_json, read_parquet, write_json, write_parquet

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One document of an index."""

    doc_id: str
    source: str
    path: str
    content_digest: str
    pipeline: str
    use_case: str
    title: str
    chunks: int
    run_id: str

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
    store: str = ""
    embedder: str = ""
    embedder_version: str = ""
    """What built the index, so that a search opens it the same way and no other model's vectors join."""


class Ledger:
    """The ledger of one index; one writer at a time, any number of readers."""

    def __init__(self, home: UPath) -> None:
        self._folder = home / "ledger"
        self._pointer = self._folder / "CURRENT.json"

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

    def read(self, version: int) -> dict[str, Entry]:
        """The entries of a snapshot by document id; none for version 0."""
        if version == 0:
            return {}
        return {row["doc_id"]: Entry(**row) for row in read_parquet(self._snapshot(version)).to_pylist()}

    def expect(self, version: int) -> None:
        """StateMovedError unless this is the current version."""
        found = self.pointer().version
        if found != version:
            raise StateMovedError(f"the ledger moved from version {version} to {found}; clear the plan task")

    def commit(self, entries: dict[str, Entry], pointer: Pointer, *, expected_version: int) -> None:
        """Write a snapshot, then the pointer to it; StateMovedError if another commit came between."""
        import pyarrow as pa

        self.expect(expected_version)
        rows = [asdict(entries[doc_id]) for doc_id in sorted(entries)]
        write_parquet(self._snapshot(pointer.version), pa.Table.from_pylist(rows, schema=_schema()))
        write_json(self._pointer, {"schema_version": SCHEMA_VERSION, **asdict(pointer)})

    def _snapshot(self, version: int) -> UPath:
        return self._folder / f"{version:08d}.parquet"


def _schema() -> Any:
    import pyarrow as pa

    numbers = {"chunks": pa.int32()}
    return pa.schema([(name, numbers.get(name, pa.string())) for name in Entry.__dataclass_fields__])
