"""LanceDB: an embedded store in plain files, on a disk or in a bucket. One writer at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Any

from include.errors import UserError
from include.rag.stores import (
    Capabilities,
    Hit,
    Place,
    Refusal,
    check_filters,
    chunk_schema,
    heading_path,
    vector_digest,
)
from include.rag.stores.held import Held, HeldBuilder, Texts, encoded, joined
from include.storage import s3_endpoint

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

_TABLE = "chunks"
_SEARCHED = "search_text"
"""The column that full-text search reads; made here, and no part of a row."""
_VALUES_PER_QUERY = 1_000
"""How many values one filter lists. A scan for 1,000 digests takes as long as a scalar index over them would."""


_ROWS_PER_BATCH = 2_000
"""Rows of a scan that are in memory at a time."""
_INDEXING_MB = 256
"""What building the full-text index of a new table may hold."""
_IO_THREADS = 2
"""Lance keeps as many processors for I/O and computes on the others: of two it would index on one."""


class LanceStore:
    """The chunks of one version of an index in one LanceDB table."""

    capabilities = Capabilities(atomic_replace=True, own_ids=True, refresh=True, alias=False)

    def __init__(self, place: Place, dimension: int) -> None:
        os.environ.setdefault("LANCE_CPU_THREADS", str((os.cpu_count() or 1) + _IO_THREADS))
        import lancedb
        import pyarrow as pa

        folder = place.home / "lancedb"
        self.uri = str(folder)
        self._schema = chunk_schema(dimension)
        self._stored = self._schema.append(pa.field(_SEARCHED, pa.string()))
        if folder.protocol == "s3":
            self._db = lancedb.connect(self.uri, storage_options=s3_options())
        elif folder.protocol in ("", "file"):
            self._db = lancedb.connect(folder.path)
        else:
            raise UserError(f"store 'lancedb' keeps its files on file:// or s3://, not on {folder.protocol}://")
        self._is_searched = True
        self._filled: Texts | None = None
        """The documents that were written since the table was empty, while such a table is loaded."""

    def _table_exists(self) -> bool:
        return _TABLE in self._db.list_tables().tables

    def _table(self) -> Any | None:
        if not self._table_exists():
            return None
        table = self._db.open_table(_TABLE)
        if table.schema.names != self._stored.names:
            odd = sorted(set(table.schema.names) ^ set(self._stored.names))
            raise UserError(
                f"{self.uri} was written by another release: its columns differ in {', '.join(odd) or 'their order'}; "
                "choose another name for the index, or delete this one (make reset deletes all) and ingest again"
            )
        held = table.schema.field("vector").type
        if held != self._schema.field("vector").type:
            wanted = self._schema.field("vector").type.list_size
            raise UserError(f"{self.uri} holds vectors of {held.list_size} dimensions, not {wanted}")
        return table

    def _made_table(self) -> Any:
        table = self._table()
        if table is None:
            table = self._db.create_table(_TABLE, schema=self._stored)
        if self._is_searched:
            _index(table)
        return table

    @contextmanager
    def loading(self, *, live: bool) -> Iterator[None]:
        """Every write is a commit of its own; of a version that nobody reads, finish() makes the full-text index."""
        table = self._table()
        self._is_searched = live
        if not live and (table is None or not table.count_rows()):
            self._filled = encoded([])
        try:
            yield
        finally:
            self._is_searched, self._filled = True, None

    def replace(self, doc_ids: Sequence[str], rows: pa.Table) -> list[Refusal]:
        """Make `rows` the only chunks of these documents in one commit, so no reader sees a gap; refuses none."""
        from lancedb.expr import col

        if len(set(rows["id"].to_pylist())) != rows.num_rows:
            raise ValueError("rows hold an id twice, which LanceDB would insert twice")
        written = rows.cast(self._schema)
        written = written.append_column(self._stored.field(_SEARCHED), _search_texts(written))
        table = self._made_table()
        if self._is_first_write({*doc_ids, *rows["doc_id"].unique().to_pylist()}):
            table.add(written)
            return []
        (
            table.merge_insert("id")
            .when_matched_update_all()
            .when_not_matched_insert_all()
            .when_not_matched_by_source_delete(col("doc_id").isin(list(doc_ids)).to_sql())
            .execute(written)
        )
        return []

    def _is_first_write(self, doc_ids: set[str]) -> bool:
        """Whether none of these documents can have a row, so that there is nothing to merge with."""
        if self._filled is None:
            return False
        ids = encoded(sorted(doc_ids))
        is_first = bool((self._filled.places(ids) < 0).all())
        self._filled = joined([self._filled, ids]).sorted()
        return is_first

    def delete(self, doc_ids: Sequence[str]) -> None:
        """Remove every chunk of these documents."""
        from lancedb.expr import col

        table = self._table()
        if table is not None and doc_ids:
            table.delete(col("doc_id").isin(list(doc_ids)).to_sql())

    def finish(self) -> None:
        """Index the full text of a new table; of another, fold new rows into the index and compact."""
        table = self._table()
        if table is not None and not _index(table) and _has_unindexed_rows(table):
            table.optimize()

    def go_live(self) -> None:
        """Nothing: a search finds the live version by the index's own pointer."""

    def drop(self) -> None:
        """Remove the table."""
        if self._table_exists():
            self._db.drop_table(_TABLE)

    def documents(self) -> Held:
        """Document id -> (content digest, number of chunks), from two columns."""
        import pyarrow as pa

        table, by, builder = self._table(), ["doc_id", "content_digest"], HeldBuilder()
        if table is not None:
            for batch in table.search().select(by).to_batches(_ROWS_PER_BATCH):
                # Counted here, since a document's chunks mostly lie together.
                groups = pa.Table.from_batches([batch]).group_by(by, use_threads=False)
                counts = groups.aggregate([([], "count_all")]).combine_chunks()
                if counts.num_rows:
                    builder.add(*(counts[name].chunk(0) for name in (*by, "count_all")))
        return builder.done()

    def rows(self, doc_ids: Sequence[str]) -> pa.Table:
        """All columns of every chunk of these documents."""
        import pyarrow as pa

        found = self._where_in("doc_id", doc_ids, self._schema.names)
        return pa.concat_tables([self._schema.empty_table(), *found])

    def vectors(self, digests: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
        """Embedding digest -> the vector of a chunk that has it, and whose vector_digest proves it."""
        known: dict[str, np.ndarray[Any, Any]] = {}
        size = self._schema.field("vector").type.list_size
        for found in self._where_in("embedding_digest", digests, ["embedding_digest", "vector_digest", "vector"]):
            values = found["vector"].combine_chunks().flatten().to_numpy().reshape(-1, size)
            columns = (found[name].to_pylist() for name in ("embedding_digest", "vector_digest"))
            for embedded, proof, vector in zip(*columns, values, strict=True):
                if proof == vector_digest(embedded, vector):
                    known[embedded] = vector
        return known

    def _where_in(self, column: str, values: Sequence[str], columns: list[str]) -> Iterator[pa.Table]:
        """The rows whose column has one of these values, some values at a time."""
        from lancedb.expr import col

        table, unique = self._table(), sorted(set(values))
        if table is None:
            return
        for start in range(0, len(unique), _VALUES_PER_QUERY):
            where = col(column).isin(unique[start : start + _VALUES_PER_QUERY]).to_sql()
            yield table.search().where(where).select(columns).to_arrow()

    def dense(self, vector: np.ndarray[Any, Any], limit: int, filters: Mapping[str, str]) -> list[Hit]:
        """The nearest chunks by cosine: exact, no approximate index."""
        table = self._table()
        if table is None:
            return []
        query = table.search(vector, vector_column_name="vector").distance_type("cosine")
        return self._hits(query, limit, filters, "_distance")

    def full_text(self, query: str, limit: int, filters: Mapping[str, str]) -> list[Hit]:
        """The best chunks by BM25 over title, headings and text; the query is words, never a query language."""
        from lancedb.query import MatchQuery

        table = self._table()
        if table is None:
            return []
        return self._hits(table.search(MatchQuery(query, _SEARCHED), query_type="fts"), limit, filters, "_score")

    def _hits(self, query: Any, limit: int, filters: Mapping[str, str], rank_by: str) -> list[Hit]:
        from lancedb.expr import col, lit

        check_filters(filters)
        columns = [name for name in self._schema.names if name != "vector"]
        if filters:
            query = query.where(reduce(and_, (col(name).eq(lit(value)) for name, value in filters.items())))
        rows = query.select([*columns, rank_by]).limit(limit).to_list()
        return [Hit(id=row["id"], row={name: row[name] for name in columns}) for row in rows]


def _search_texts(rows: pa.Table) -> pa.ChunkedArray:
    """As search_text() of each row; the texts themselves, which are most of it, never become Python's."""
    import pyarrow as pa
    import pyarrow.compute as pc

    read = zip(rows["title"].to_pylist(), rows["headings"].to_pylist(), strict=True)
    paths = pa.array([heading_path(*parts) for parts in read], pa.string())
    both = pc.and_(pc.not_equal(paths, ""), pc.not_equal(rows["text"], ""))
    return pc.binary_join_element_wise(paths, pc.if_else(both, "\n", ""), rows["text"], "")


def _index(table: Any) -> bool:
    """Make the full-text index if there is none; whether it was made."""
    from lancedb.index import FTS

    if table.list_indices():
        return False
    table.create_index(_SEARCHED, config=FTS(memory_limit=_INDEXING_MB))
    return True


def _has_unindexed_rows(table: Any) -> bool:
    (index,) = table.list_indices()
    return bool(table.index_stats(index.name).num_unindexed_rows)


def s3_options() -> dict[str, str]:
    """LanceDB reads credentials and region from the environment itself, but not an endpoint without TLS."""
    endpoint = s3_endpoint()
    if endpoint is None:
        return {}
    return {"aws_endpoint": endpoint, "allow_http": str(endpoint.startswith("http://")).lower()}
