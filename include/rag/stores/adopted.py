"""Indexes that somebody else built, as a search reads them: in OpenSearch or LanceDB, with field names of their own.

Nothing here can write. Such a place has no field for the tenant: all of it belongs to the tenant that adopted it, and
another's search finds nothing in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from include.documents.source import document_id
from include.errors import UserError
from include.rag.stores import Hit, Reader

if TYPE_CHECKING:
    import numpy as np

    from include.models.embeddings import Embedder

_METADATA = {"title": "metadata.title", "path": "metadata.source", "headings": "metadata.headings"}
FIELDS = {
    "lancedb": {"text": "text", "vector": "vector", "id": "id", **_METADATA},
    "opensearch": {"text": "text", "vector": "vector_field", "id": "_id", **_METADATA},
}
"""By store: what LangChain calls the fields that are needed; a dot leads into an object."""

READERS = {
    "lancedb": "include.rag.stores.adopted_lance:AdoptedTable",
    "opensearch": "include.rag.stores.adopted_opensearch:AdoptedIndex",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Adopted:
    """Where a version lies that somebody else built; we only read it, and forget it when it is removed."""

    place: str
    """An index of OpenSearch at the configured server, or the URI of a LanceDB folder and `#` with a table."""
    fields: dict[str, str]
    """What text, vector, id, title, path and headings are called there."""
    source: str | None
    """URI that the paths belong to, as runs name it; None: documents cannot be compared with those of a run."""
    rows: int
    """As counted when it was adopted."""
    by: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampled:
    """One row with its vector, float32 of any length; empty if the place does not show it."""

    row: dict[str, Any]
    vector: np.ndarray[Any, Any]


class AdoptedReader(Reader, Protocol):
    """What an adoption looks at, and then a search."""

    place: str
    """Where it really is: the index behind an alias, a folder without links."""
    similarity: str
    """What it ranks vectors by: cosine, or what is the same for vectors of length 1."""

    def count(self) -> int:
        """How many rows there are."""

    def sample(self, limit: int) -> list[Sampled]:
        """Some rows from all over the place."""


def open_adopted(store: str, adopted: Adopted, embedder: Embedder, tenant: str) -> AdoptedReader:
    """A place to read; UserError if it is not there, or its fields are not what a search needs."""
    if store not in READERS:
        raise UserError(f"store={store!r} cannot be adopted; choose one of {', '.join(READERS)}")
    module, _, kind = READERS[store].partition(":")
    reader: AdoptedReader = getattr(import_module(module), kind)(adopted, embedder, tenant)
    return reader


class Mapped:
    """What both kinds share: rows with the columns of ours, and filters on what can be filtered."""

    uri: str
    exact: Mapping[str, str]
    """Of `id`, `path` and `title` those that can be compared as a whole, and the field to compare."""

    def __init__(self, adopted: Adopted, embedder: Embedder, tenant: str) -> None:
        self._fields, self._source = adopted.fields, adopted.source
        self._embedder, self._tenant = embedder, tenant

    def _hit(self, found: Mapping[str, Any], key: str) -> Hit:
        text, title, path = (text_of(value_of(found, self._fields[name])) for name in ("text", "title", "path"))
        headings = value_of(found, self._fields["headings"])
        source = self._source or self.uri
        path = self._path(path) or key
        row = {
            "id": key,
            "doc_id": document_id(source, path),
            "tenant": self._tenant,
            "use_case": "",
            "source": source,
            "path": path,
            "title": title or path,
            "locator": None,
            "text": text,
            "headings": [text_of(one) for one in headings] if isinstance(headings, list) else [],
            "ordinal": 0,
            "start": 0,
            "end": 0,
            "page": None,
            **dict.fromkeys(("content_digest", "embedding_digest", "vector_digest", "run_id"), ""),
            "chunker": "adopted",
            "embedder": self._embedder.name,
            "ingested_at": None,
        }
        return Hit(id=key, row=row)

    def _path(self, path: str) -> str:
        """A path below the source, where it was written with the source before it."""
        return next((path.removeprefix(one) for one in self._before() if path.startswith(one)), path)

    def _before(self) -> tuple[str, ...]:
        return (f"{self._source}/", f"{self._source.removeprefix('file://')}/") if self._source else ()

    def _where(self, filters: Mapping[str, str]) -> dict[str, list[str]] | None:
        """Field -> the values one of which it must have; None if the filters leave nothing of this place."""
        own = {"tenant": self._tenant, "source": self._source or self.uri}
        for name, value in filters.items():
            if name not in (*own, *self.exact) or not isinstance(value, str):
                choice = ", ".join((*own, *self.exact))
                raise UserError(
                    f"filter {name!r}={value!r} is not to be had on {self.uri}, which was adopted; choose among "
                    f"{choice}, with a text"
                )
        if any(filters.get(name, value) != value for name, value in own.items()):
            return None
        wanted = {name: [value] for name, value in filters.items() if name not in own}
        if "path" in wanted:
            wanted["path"] += [before + filters["path"] for before in self._before()]
        return {self.exact[name]: values for name, values in wanted.items()}

    def _unfit(self, name: str, found: object, allowed: str) -> UserError:
        field = self._fields[name]
        return UserError(f"{self.uri}: field {name}={field!r} is {found or 'not there'}; must be {allowed}")


def value_of(found: Any, name: str) -> Any:
    """The value of a field, dots leading into objects, or into JSON that was stored as a text; None if it has none."""
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except (ValueError, RecursionError):
            return None
    if not isinstance(found, Mapping):
        return None
    if name in found:
        return found[name]
    first, _, rest = name.partition(".")
    return value_of(found.get(first), rest) if rest else None


def text_of(value: object) -> str:
    """A text, or none if it is something else."""
    return value if isinstance(value, str) else ""
