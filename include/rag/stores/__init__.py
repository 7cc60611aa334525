"""Vector stores behind one small interface; a new store is one module and one line in STORES."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from include.errors import UserError
from include.storage import digest

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from upath import UPath

MIXED = "mixed"

FILTERS = ("tenant", "use_case", "source", "path", "doc_id", "locator", "title")
"""The fields that a search may be narrowed by."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    """One passage that a store found; `row` holds every stored field but the vector."""

    id: str
    row: dict[str, Any]


class Store(Protocol):
    """One index of one tenant. Rows have the columns of chunk_schema(); `id` is unique."""

    uri: str

    def replace(self, doc_ids: Sequence[str], rows: pa.Table) -> None:
        """Make `rows` the only chunks of these documents, in one step for a reader; safe to repeat."""

    def delete(self, doc_ids: Sequence[str]) -> None:
        """Remove every chunk of these documents; safe to repeat."""

    def finish(self) -> None:
        """Bring search indices up to date after a load."""

    def documents(self) -> dict[str, tuple[str, int]]:
        """Document id -> (digest of the content that its chunks are from, how many); MIXED for more than one digest."""

    def rows(self, doc_ids: Sequence[str]) -> pa.Table:
        """All columns of every chunk of these documents, in no order."""

    def vectors(self, digests: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
        """Embedding digest -> the vector of a chunk that has it, and whose vector_digest proves it."""

    def dense(self, vector: np.ndarray[Any, Any], limit: int, filters: Mapping[str, str]) -> list[Hit]:
        """The nearest chunks by cosine, best first."""

    def full_text(self, query: str, limit: int, filters: Mapping[str, str]) -> list[Hit]:
        """The best chunks by BM25, best first."""


STORES = {"lancedb": "include.rag.stores.lance:LanceStore"}

TARGET_DEFAULT = {"local": "lancedb", "aws": "lancedb"}
"""Used where no setting or Param names one. LanceDB keeps its table on file:// and on s3:// alike."""


def check_name(name: str) -> None:
    """UserError naming the known stores, if this is none of them."""
    if name not in STORES:
        raise UserError(f"store {name!r} is not known; choose one of {', '.join(sorted(STORES))}")


def open_store(name: str, home: UPath, dimension: int) -> Store:
    """Open a store of an index, made on the first write.

    Open it in the process that uses it: a connection does not survive a fork.
    """
    check_name(name)
    module, _, kind = STORES[name].partition(":")
    store: Store = getattr(import_module(module), kind)(home, dimension)
    return store


def vector_digest(embedding_digest: str, vector: np.ndarray[Any, np.dtype[np.float32]]) -> str:
    """What proves that a vector is the one that was made of a text: neither altered nor another's."""
    return digest(embedding_digest, vector.tobytes())[:32]


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
