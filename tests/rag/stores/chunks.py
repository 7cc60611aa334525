"""Small chunks to write into a store, and places to write them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from include.rag.stores import Place, Store, chunk_schema, open_store, vector_digest
from include.storage import location

DIMENSION = 4
AXES = np.eye(DIMENSION, dtype=np.float32)


def rows(doc_id: str, texts: Sequence[str], tenant: str = "acme", axis: int = 0) -> pa.Table:
    """Chunks of one document, all along one axis."""
    schema = chunk_schema(DIMENSION)
    base: dict[str, Any] = {"doc_id": doc_id, "tenant": tenant, "path": f"{doc_id}.md", "title": doc_id, "ordinal": 0}
    base |= {
        "content_digest": f"digest of {doc_id}",
        "headings": ["A", "B"],
        "ingested_at": datetime(2026, 1, 1, 12, 30, 15, 123456, tzinfo=UTC),
        "vector": AXES[axis].tolist(),
    }
    values = [
        {**base, "id": f"{doc_id}-{n}", "ordinal": n, "text": text, "embedding_digest": f"embedded {text}"}
        | {"vector_digest": vector_digest(f"embedded {text}", AXES[axis])}
        | {"start": 10 * n, "end": 10 * n + len(text), "page": n or None}
        for n, text in enumerate(texts)
    ]
    return pa.Table.from_pylist(values, schema=schema)


def place(root: str, name: str = "") -> Place:
    """A place of its own, in files and on a server."""
    name = name or f"test-{uuid.uuid4().hex[:12]}"
    return Place(home=location(root), name=name, alias=f"{name}-live")


@contextmanager
def opensearch_at(
    url: str, where: Place, monkeypatch: pytest.MonkeyPatch, dimension: int = DIMENSION, **settings: object
) -> Iterator[Store]:
    """The store `opensearch` at a URL, with settings that suit one node; what it made is deleted afterwards."""
    for name, value in {"url": url, "replicas": 0, "deadline_s": 60, **settings}.items():
        monkeypatch.setenv(f"FMOPS_OPENSEARCH_{name.upper()}", str(value))
    store = open_store("opensearch", where, dimension)
    try:
        yield store
    finally:
        store.drop()
