"""Vector stores behind one small interface; a new store is one module and one line in STORES."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from include.errors import UserError
from include.rag.stores.held import MIXED as MIXED
from include.rag.stores.held import Held
from include.storage import digest

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from upath import UPath

    from include.config import Settings

ROWS_SCHEMA = 1
"""Raise it with chunk_schema(): indexes are then rebuilt beside those that stand."""

FILTERS = ("id", "tenant", "use_case", "source", "path", "doc_id", "locator", "title")
"""The fields that a search may be narrowed by."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    """One passage that a store found; `row` holds every stored field but the vector."""

    id: str
    row: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where one version of an index is kept."""

    home: UPath
    """Folder of the version, for a store in files."""
    name: str
    """What the version is called on a server that holds many indexes; a..z, 0..9, `_`, `-` and `.`."""
    alias: str
    """What the live version of the index is called there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Capabilities:
    """What a store can promise; whoever writes or reads asks here, never for a store's name."""

    atomic_replace: bool
    """A reader sees a document's former chunks or its new ones, never a mixture."""
    own_ids: bool
    """A row that is written twice under one id is there once."""
    refresh: bool
    """What was written can be made visible on demand, so that a count right after a write is exact."""
    alias: bool
    """Other programs read the live version under one name, which moves in one step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """A document that a store did not take for a fault of its own; no chunk of it is left in the store."""

    doc_id: str
    reason: str


class Reader(Protocol):
    """What a search needs of an index."""

    uri: str

    def dense(self, vector: np.ndarray[Any, Any], limit: int, filters: Mapping[str, str]) -> list[Hit]:
        """The nearest chunks by cosine, best first."""

    def full_text(self, query: str, limit: int, filters: Mapping[str, str]) -> list[Hit]:
        """The best chunks by BM25, best first."""


class Store(Reader, Protocol):
    """One version of one tenant's index. Rows have the columns of chunk_schema(); `id` is unique.

    Whatever it talks to may fail: ConnectionError, TimeoutError and BusyError are worth another try.
    """

    capabilities: Capabilities

    def loading(self, *, live: bool) -> AbstractContextManager[None]:
        """Hold the store ready for many writes; what was changed for that is put back at the end, after a failure too.

        `live`: readers use this version, so that nothing may be set that they would notice.
        """

    def replace(self, doc_ids: Sequence[str], rows: pa.Table) -> list[Refusal]:
        """Make `rows` the only chunks of these documents; safe to repeat. Refused documents are named and removed."""

    def delete(self, doc_ids: Sequence[str]) -> None:
        """Remove every chunk of these documents; safe to repeat."""

    def finish(self) -> None:
        """Make all writes visible and bring search indices up to date; puts back what a killed load had changed."""

    def go_live(self) -> None:
        """Point the index's alias at this version, in one step; nothing where there is no alias. Safe to repeat."""

    def drop(self) -> None:
        """Remove this version and all that it holds; safe to repeat."""

    def documents(self) -> Held:
        """Document id -> (digest of the content that its chunks are from, how many); MIXED for more than one digest."""

    def rows(self, doc_ids: Sequence[str]) -> pa.Table:
        """All columns of every chunk of these documents, in no order."""

    def vectors(self, digests: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
        """Embedding digest -> the vector of a chunk that has it, and whose vector_digest proves it."""


_IDS_PER_DELETE = 1000

STORES = {
    "lancedb": "include.rag.stores.lance:LanceStore",
    "opensearch": "include.rag.stores.opensearch:OpenSearchStore",
}

TARGET_DEFAULT = {"local": "lancedb", "aws": "opensearch"}
"""Used where no setting or Param names one. LanceDB needs no server: it keeps its table on file:// or s3://."""


def default_store(settings: Settings) -> str:
    """The setting's, or the target's own."""
    return settings.vector_store or TARGET_DEFAULT[settings.target]


def check_name(name: str) -> None:
    """UserError naming the known stores, if this is none of them."""
    if name not in STORES:
        raise UserError(f"store {name!r} is not known; choose one of {', '.join(sorted(STORES))}")


def open_store(name: str, place: Place, dimension: int) -> Store:
    """Open one version of an index, made on the first write.

    Open it in the process that uses it: a connection does not survive a fork.
    """
    check_name(name)
    module, _, kind = STORES[name].partition(":")
    store: Store = getattr(import_module(module), kind)(place, dimension)
    return store


def delete_all(store: Store, doc_ids: Iterable[str]) -> None:
    """Remove every chunk of documents, however many they are, some of them at a time."""
    left = iter(doc_ids)
    while batch := list(islice(left, _IDS_PER_DELETE)):
        store.delete(batch)


def check_filters(filters: Mapping[str, str]) -> None:
    """UserError if a search is to be narrowed by what is not known, or by something that is no text."""
    for name, value in filters.items():
        if name not in FILTERS or not isinstance(value, str):
            raise UserError(f"filter {name!r}={value!r} is not known; choose among {', '.join(FILTERS)}, with a text")


def vector_digest(embedding_digest: str, vector: np.ndarray[Any, np.dtype[np.float32]]) -> str:
    """What proves that a vector is the one that was made of a text: neither altered nor another's."""
    return digest(embedding_digest, vector.tobytes())[:32]


def search_text(title: str | None, headings: Sequence[str] | None, text: str) -> str:
    """What full-text search reads of a chunk: its text behind its document's title and its headings, each once."""
    return "\n".join(part for part in (heading_path(title, headings), text) if part)


def heading_path(title: str | None, headings: Sequence[str] | None) -> str:
    """A document's title and a chunk's headings on one line, each once."""
    return " > ".join(dict.fromkeys(part for part in (title, *(headings or ())) if part))


def chunk_schema(dimension: int) -> pa.Schema:
    """The columns of a chunk. `id`, `text` and `vector` are the names that LangChain's stores read."""
    import pyarrow as pa

    text = [pa.field(name, pa.string()) for name in ("id", "doc_id", "tenant", "use_case", "source", "path")]
    text += [pa.field(name, pa.string()) for name in ("title", "locator", "text")]
    return pa.schema(
        [
            *text,
            pa.field("headings", pa.list_(pa.string())),
            pa.field("ordinal", pa.int32()),
            pa.field("start", pa.int32()),  # characters of the document's text, end excluded
            pa.field("end", pa.int32()),
            pa.field("page", pa.int32()),  # null where the format has none
            pa.field("content_digest", pa.string()),
            pa.field("embedding_digest", pa.string()),  # of the embedder's name and the text that was embedded
            pa.field("vector_digest", pa.string()),  # as of vector_digest()
            pa.field("chunker", pa.string()),
            pa.field("embedder", pa.string()),
            pa.field("run_id", pa.string()),
            pa.field("ingested_at", pa.timestamp("us", tz="UTC")),
            pa.field("vector", pa.list_(pa.float32(), dimension)),
        ]
    )
