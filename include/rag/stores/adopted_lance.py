"""A LanceDB table that somebody else built, as a search reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from include.errors import UserError
from include.rag.stores import Hit
from include.rag.stores.adopted import Adopted, Mapped, Sampled, text_of
from include.rag.stores.lance import s3_options
from include.storage import is_local, local_uri, location

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from include.models.embeddings import Embedder


class AdoptedTable(Mapped):
    """A LanceDB table. Its vectors are always ranked by cosine, whatever index it has."""

    similarity = "cosine"

    def __init__(self, adopted: Adopted, embedder: Embedder, tenant: str) -> None:
        super().__init__(adopted, embedder, tenant)
        self.place, self._table = _open_table(adopted.place)
        self.uri = self.place
        schema = self._table.schema
        self._check(schema)
        tops = dict.fromkeys(name.partition(".")[0] for role, name in self._fields.items() if role != "vector")
        self._columns = [name for name in tops if name in schema.names]
        self.exact = {
            role: self._fields[role]
            for role in ("id", "path", "title")
            if _type_of(schema, self._fields[role]) in ("string", "large_string")
        }

    def _check(self, schema: pa.Schema) -> None:
        import pyarrow as pa

        for role in ("text", "id"):
            found = _type_of(schema, self._fields[role])
            if found not in ("string", "large_string"):
                names = [name for name in schema.names if _type_of(schema, name) in ("string", "large_string")]
                raise self._unfit(role, found, f"a column of strings; there are {', '.join(names) or 'none'}")
        name, size = self._fields["vector"], self._embedder.dimension
        kind = schema.field(name).type if name in schema.names else None
        if kind is None or not pa.types.is_fixed_size_list(kind) or not pa.types.is_floating(kind.value_type):
            raise self._unfit("vector", kind, f"a fixed_size_list of {size} floats")
        if kind.list_size != size:
            raise self._unfit("vector", f"of {kind.list_size} dimensions", f"of {size}, as embedder's vectors are")

    def count(self) -> int:
        """How many rows there are."""
        return int(self._table.count_rows())

    def sample(self, limit: int) -> list[Sampled]:
        """Rows at even distances."""
        import numpy as np

        rows, name = self.count(), self._fields["vector"]
        places = sorted({rows * number // limit for number in range(limit)}) if rows else []
        found = self._table.take_offsets(places).select([*self._columns, name]).to_list() if places else []
        return [
            Sampled(row=self._hit(one, text_of(one[self._fields["id"]])).row, vector=np.asarray(one[name] or [], "f4"))
            for one in found
        ]

    def dense(self, vector: np.ndarray[Any, Any], limit: int, filters: Mapping[str, str]) -> list[Hit]:
        """The nearest rows by cosine."""
        query = self._table.search(vector, vector_column_name=self._fields["vector"]).distance_type("cosine")
        return self._hits(query, limit, filters, "_distance")

    def full_text(self, query: str, limit: int, filters: Mapping[str, str]) -> list[Hit]:
        """The best rows by BM25 over the text, by the table's own index or without; the query is words."""
        from lancedb.query import MatchQuery

        words = self._table.search(MatchQuery(query, self._fields["text"]), query_type="fts")
        return self._hits(words, limit, filters, "_score")

    def _hits(self, query: Any, limit: int, filters: Mapping[str, str], rank_by: str) -> list[Hit]:
        from lancedb.expr import col

        where = self._where(filters)
        if where is None:
            return []
        if where:
            query = query.where(reduce(and_, (col(name).isin(values) for name, values in where.items())))
        rows = query.select([*self._columns, rank_by]).limit(limit).to_list()
        return [self._hit(row, text_of(row[self._fields["id"]])) for row in rows]


def _open_table(place: str) -> tuple[str, Any]:
    """A LanceDB table and its one name; what is not there is not made."""
    import lancedb

    uri, _, name = place.rpartition("#")
    if urlsplit(uri).scheme not in ("file", "s3") or not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise UserError(
            f"place={place!r} does not name a LanceDB table: write file:///FOLDER#TABLE or s3://BUCKET/FOLDER#TABLE"
        )
    folder = location(uri.rstrip("/"))
    if not folder.is_dir():  # connecting would make it
        raise UserError(f"place={place!r} is not there: {uri} is not a folder that can be read")
    local = is_local(folder)
    db = lancedb.connect(folder.path if local else str(folder), storage_options=None if local else s3_options())
    try:
        table = db.open_table(name)
    except ValueError:
        there = ", ".join(db.list_tables().tables) or "none"
        raise UserError(f"place={place!r} is not there: {uri} has no table {name!r}; it has {there}") from None
    return f"{local_uri(folder.path) if local else folder}#{name}", table


def _type_of(schema: pa.Schema, name: str) -> str | None:
    return str(schema.field(name).type) if name in schema.names else None
