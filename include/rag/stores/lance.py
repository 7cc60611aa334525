"""LanceDB: an embedded store in plain files, on a disk or in a bucket. One writer at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Any

from include.errors import UserError
from include.rag.stores import FILTERS, MIXED, Hit, chunk_schema
from include.storage import s3_endpoint

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from upath import UPath

_TABLE = "chunks"


class LanceStore:
    """The chunks of one index in one LanceDB table."""

    def __init__(self, home: UPath, dimension: int) -> None:
        import lancedb

        folder = home / "lancedb"
        self.uri = str(folder)
        self._schema = chunk_schema(dimension)
        if folder.protocol == "s3":
            self._db = lancedb.connect(self.uri, storage_options=_s3_options())
        elif folder.protocol in ("", "file"):
            self._db = lancedb.connect(folder.path)
        else:
            raise UserError(f"store 'lancedb' keeps its files on file:// or s3://, not on {folder.protocol}://")

    def _table(self) -> Any | None:
        if _TABLE not in self._db.list_tables().tables:
            return None
        table = self._db.open_table(_TABLE)
        held = table.schema.field("vector").type
        if held != self._schema.field("vector").type:
            wanted = self._schema.field("vector").type.list_size
            raise UserError(f"{self.uri} holds vectors of {held.list_size} dimensions, not {wanted}")
        return table

    def _made_table(self) -> Any:
        from lancedb.index import FTS

        table = self._table()
        if table is None:
            table = self._db.create_table(_TABLE, schema=self._schema)
        if not table.list_indices():  # also when an earlier writer died between the two steps
            table.create_index("text", config=FTS())
        return table

    def replace(self, doc_ids: Sequence[str], rows: pa.Table) -> None:
        """Make `rows` the only chunks of these documents in one commit, so no reader sees a gap."""
        from lancedb.expr import col

        if len(set(rows["id"].to_pylist())) != rows.num_rows:
            raise ValueError("rows hold an id twice, which LanceDB would insert twice")
        (
            self._made_table()
            .merge_insert("id")
            .when_matched_update_all()
            .when_not_matched_insert_all()
            .when_not_matched_by_source_delete(col("doc_id").isin(list(doc_ids)).to_sql())
            .execute(rows.cast(self._schema))
        )

    def delete(self, doc_ids: Sequence[str]) -> None:
        """Remove every chunk of these documents."""
        from lancedb.expr import col

        table = self._table()
        if table is not None and doc_ids:
            table.delete(col("doc_id").isin(list(doc_ids)).to_sql())

    def finish(self) -> None:
        """Fold new rows into the full-text index and compact."""
        table = self._table()
        if table is not None:
            table.optimize()

    def documents(self) -> dict[str, tuple[str, int]]:
        """Document id -> (content digest, number of chunks); reads two columns."""
        table = self._table()
        counts: Counter[tuple[str, str]] = Counter()
        if table is not None:
            for batch in table.search().select(["doc_id", "content_digest"]).to_batches():
                columns = (batch.column(name).to_pylist() for name in ("doc_id", "content_digest"))
                counts.update(zip(*columns, strict=True))
        held: dict[str, tuple[str, int]] = {}
        for (doc_id, digest), number in counts.items():
            held[doc_id] = (MIXED, held[doc_id][1] + number) if doc_id in held else (digest, number)
        return held

    def dense(self, vector: np.ndarray[Any, Any], limit: int, filters: Mapping[str, str]) -> list[Hit]:
        """The nearest chunks by cosine: exact, no approximate index."""
        table = self._table()
        if table is None:
            return []
        query = table.search(vector, vector_column_name="vector").distance_type("cosine")
        return self._hits(query, limit, filters, "_distance")

    def full_text(self, query: str, limit: int, filters: Mapping[str, str]) -> list[Hit]:
        """The best chunks by BM25; the query is words, never a query language."""
        from lancedb.query import MatchQuery

        table = self._table()
        if table is None:
            return []
        return self._hits(table.search(MatchQuery(query, "text"), query_type="fts"), limit, filters, "_score")

    def _hits(self, query: Any, limit: int, filters: Mapping[str, str], rank_by: str) -> list[Hit]:
        from lancedb.expr import col, lit

        for name, value in filters.items():
            if name not in FILTERS or not isinstance(value, str):
                raise UserError(
                    f"filter {name!r}={value!r} is not known; choose among {', '.join(FILTERS)}, with a text"
                )
        columns = [name for name in self._schema.names if name != "vector"]
        if filters:
            query = query.where(reduce(and_, (col(name).eq(lit(value)) for name, value in filters.items())))
        rows = query.select([*columns, rank_by]).limit(limit).to_list()
        return [Hit(id=row["id"], row={name: row[name] for name in columns}) for row in rows]


def _s3_options() -> dict[str, str]:
    """LanceDB reads credentials and region from the environment itself, but not an endpoint without TLS."""
    endpoint = s3_endpoint()
    if endpoint is None:
        return {}
    return {"aws_endpoint": endpoint, "allow_http": str(endpoint.startswith("http://")).lower()}
