"""How a chunk lies in OpenSearch: as LangChain's OpenSearchVectorSearch reads it by its defaults.

That is `text`, `vector_field`, and all other columns in `metadata`. Full-text search reads `search_text`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from include.rag.stores import FILTERS, check_filters, search_text
from include.rag.stores.opensearch_bulk import Item
from include.rag.stores.opensearch_client import Json

if TYPE_CHECKING:
    import pyarrow as pa

TEXT, VECTOR, SEARCHED = "text", "vector_field", "search_text"
ID = "metadata.id"
KEYWORDS = tuple(dict.fromkeys(("id", "doc_id", "content_digest", "embedding_digest", "run_id", *FILTERS)))
"""The columns of `metadata` that can be searched for; the others are kept only."""

SEARCH_SECONDS = 30.0
"""A person waits for a search; a task that reads between writes has the whole deadline."""
_QUERY_WORDS = 512
"""Words of a query that count; a cluster takes 1,024 terms by default, and makes more than one of some words."""
_ROWS_PER_BATCH = 500


def items(rows: pa.Table, *, own_ids: bool) -> Iterator[Item]:
    """The chunks of a table with the columns of chunk_schema() as bulk lines, made as they are sent."""
    columns = [name for name in rows.schema.names if name != "vector"]
    size = rows.schema.field("vector").type.list_size
    # Nine digits give every float32 back exactly, in half the bytes of a float64's.
    shape = "[" + ",".join(["%.9g"] * size) + "]"
    for batch in rows.to_batches(max_chunksize=_ROWS_PER_BATCH):
        vectors = batch["vector"].flatten().to_numpy(zero_copy_only=False).reshape(-1, size).tolist()
        for columns_of_row, vector in zip(batch.select(columns).to_pylist(), vectors, strict=True):
            yield _item(columns_of_row, shape % tuple(vector), own_ids)


def deletions(keys: Iterable[str]) -> Iterator[Item]:
    """Bulk lines that delete these `_id`s."""
    return (Item("", _encoded({"delete": {"_id": key}}) + b"\n") for key in keys)


def row(hit: Json) -> Json:
    """The columns of a chunk that was found, without its vector."""
    source = hit["_source"]
    columns = {"text": source[TEXT], **source["metadata"]}
    if columns["ingested_at"] is not None:
        columns["ingested_at"] = datetime.fromisoformat(columns["ingested_at"])
    return columns


def query_words(query: str) -> list[str]:
    """The words of a query that count, each once; of halves of surrogate pairs a mark remains."""
    return list(dict.fromkeys(query.encode("utf-8", "replace").decode().split()))[:_QUERY_WORDS]


def where_all(filters: Mapping[str, str]) -> list[Json]:
    """The conditions of a search; UserError if a filter is not known."""
    check_filters(filters)
    return [{"term": {f"metadata.{name}": value}} for name, value in filters.items()]


def _item(columns: Json, vector: str, own_ids: bool) -> Item:
    metadata = {name: value for name, value in columns.items() if name != "text"}
    if columns["ingested_at"] is not None:
        metadata["ingested_at"] = columns["ingested_at"].isoformat()
    action = {"index": {"_id": columns["id"]} if own_ids else {}}
    searched = search_text(columns["title"], columns["headings"], columns["text"])
    document = _encoded({TEXT: columns["text"], SEARCHED: searched, "metadata": metadata})
    lines = b'%b\n%b,"%b":%b}\n' % (_encoded(action), document[:-1], VECTOR.encode(), vector.encode())
    return Item(columns["doc_id"], lines)


def _encoded(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
