"""OpenSearch: a cluster, a managed domain or a serverless collection, as the settings `opensearch_*` say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from include.config import load_settings
from include.rag.stores import Capabilities, Hit, Place, Refusal, chunk_schema, vector_digest
from include.rag.stores.held import Held, HeldBuilder
from include.rag.stores.opensearch_bulk import Limits, send_all
from include.rag.stores.opensearch_client import AnswerError, Client, Json, TransientError
from include.rag.stores.opensearch_document import (
    ID,
    SEARCH_SECONDS,
    SEARCHED,
    VECTOR,
    deletions,
    items,
    query_words,
    row,
    where_all,
)
from include.rag.stores.opensearch_index import Index

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

_SERVERLESS = Capabilities(atomic_replace=False, own_ids=False, refresh=False, alias=False)
_CLUSTER = Capabilities(atomic_replace=False, own_ids=True, refresh=True, alias=True)
_VALUES_PER_QUERY = 1_000
_HITS_PER_PAGE = 1_000
_BUCKETS_PER_PAGE = 5_000


class OpenSearchStore:
    """The chunks of one version of an index in one index of OpenSearch.

    Outside of loading() a write is visible to searches when it returns, where the service can be told so. A serverless
    collection shows writes within a minute or so: finish() waits for the last of them, and deletes what a request that
    was repeated after a lost answer wrote twice. Until then a search may find such a chunk twice, or a former one; and
    of a document that is written again with another content within that minute, both remain and documents() says MIXED.
    """

    def __init__(self, place: Place, dimension: int) -> None:
        settings = load_settings()
        self._client = Client(settings)
        self._name, self._alias = place.name, place.alias
        self._schema = chunk_schema(dimension)
        self._limits = Limits(
            num_bytes=int(settings.opensearch_bulk_mb * (1 << 20)),
            num_items=settings.opensearch_bulk_items,
            num_requests=settings.opensearch_concurrency,
        )
        self.capabilities = _SERVERLESS if settings.opensearch_service == "aoss" else _CLUSTER
        self.uri = f"{self._client.url}/{self._name}"
        self._index = Index(self._client, self._name, dimension, settings, self.capabilities)
        self._is_loading = False
        self._last_written: list[tuple[str, str]] = []
        self._last_deleted: list[str] = []
        self._unwanted: set[str] = set()

    @contextmanager
    def loading(self, *, live: bool) -> Iterator[None]:
        """No refresh while writing and, if no reader uses this version, no replicas either.

        What was set before is kept in the index itself: after a killed load, the next one or finish() puts it back.
        """
        self._index.ensure()
        self._is_loading = True
        try:
            self._index.set_for_load(live=live)
            yield
        finally:
            self._is_loading = False
            self._index.restore()

    def replace(self, doc_ids: Sequence[str], rows: pa.Table) -> list[Refusal]:
        """Make `rows` the only chunks of these documents: the new ones are written before the former are deleted.

        A search may find both for a moment. Raises ValueError if rows hold an id twice.
        """
        ids = set(rows["id"].to_pylist())
        if len(ids) != rows.num_rows:
            raise ValueError("rows hold an id twice, of which OpenSearch would keep one")
        self._index.ensure()
        former = list(self._ids_of(doc_ids))
        outcome = send_all(
            self._client, self._name, items(rows.cast(self._schema), own_ids=self.capabilities.own_ids), self._limits
        )
        refused = {doc_id: reason for doc_id, reason in reversed(outcome.refused)}
        kept = ids if self.capabilities.own_ids else set()
        surplus = {key for doc_id, key in former if key not in kept}
        surplus |= {key for doc_id, key in (*former, *outcome.written) if doc_id in refused}
        self._delete_ids(surplus)
        if not self.capabilities.refresh:
            self._remember(doc_ids, rows, refused)
        self._show()
        return [Refusal(doc_id=doc_id, reason=reason) for doc_id, reason in refused.items()]

    def delete(self, doc_ids: Sequence[str]) -> None:
        """Remove every chunk of these documents."""
        if doc_ids and self._index.exists():
            self._delete_ids(key for _, key in self._ids_of(doc_ids))
            if not self.capabilities.refresh:
                self._unwanted |= set(doc_ids)  # some of their chunks may not be visible yet
            self._show()

    def finish(self) -> None:
        """Put back what a load had changed and make all writes visible; where that cannot be asked for, wait for it."""
        if not self._index.exists():
            return
        self._index.restore()
        self._refresh()
        if not self.capabilities.own_ids:
            self._await_writes()
            unwanted = (key for _, key in self._ids_of(sorted(self._unwanted)))
            self._delete_ids(chain(unwanted, self._duplicates()))
            self._await_writes()

    def go_live(self) -> None:
        """Move the alias to this version in one request; UserError if an index has the alias's name."""
        if self.capabilities.alias:
            self._index.ensure()
            self._index.take_alias(self._alias)

    def drop(self) -> None:
        """Delete the index."""
        self._index.drop()
        self._last_written, self._last_deleted, self._unwanted = [], [], set()

    def documents(self) -> Held:
        """Document id -> (content digest, number of chunks), read page by page."""
        builder = HeldBuilder()
        self._refresh()
        counts = self._counts("doc_id", "content_digest")
        while page := list(islice(counts, _BUCKETS_PER_PAGE)):
            keys, numbers = zip(*page, strict=True)
            ids, digests = zip(*keys, strict=True)
            builder.add(ids, digests, numbers)
        return builder.done()

    def rows(self, doc_ids: Sequence[str]) -> pa.Table:
        """All columns of every chunk of these documents."""
        import pyarrow as pa

        self._refresh()
        found = self._where_in("doc_id", doc_ids, {"excludes": [SEARCHED]})
        pages = iter(lambda: list(islice(found, _HITS_PER_PAGE)), [])
        tables = [
            pa.Table.from_pylist([{**row(hit), "vector": hit["_source"][VECTOR]} for hit in page], schema=self._schema)
            for page in pages
        ]
        return pa.concat_tables([self._schema.empty_table(), *tables])

    def vectors(self, digests: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
        """Embedding digest -> the vector of a chunk that has it, and whose vector_digest proves it."""
        import numpy as np

        known: dict[str, np.ndarray[Any, Any]] = {}
        self._refresh()
        columns = ["metadata.embedding_digest", "metadata.vector_digest", VECTOR]
        for hit in self._where_in("embedding_digest", digests, {"includes": columns}):
            source = hit["_source"]
            embedded, proof = (source["metadata"].get(name) for name in ("embedding_digest", "vector_digest"))
            vector = np.asarray(source[VECTOR], np.float32)
            if proof == vector_digest(embedded, vector):
                known[embedded] = vector
        return known

    def dense(self, vector: np.ndarray[Any, Any], limit: int, filters: Mapping[str, str]) -> list[Hit]:
        """The nearest chunks by cosine, by an approximate index; none for a vector without direction."""
        where = where_all(filters)
        if not vector.any():
            return []
        query: Json = {"vector": [float(value) for value in vector], "k": limit}
        if where:
            query["filter"] = {"bool": {"filter": where}}
        return self._best({"knn": {VECTOR: query}}, limit)

    def full_text(self, query: str, limit: int, filters: Mapping[str, str]) -> list[Hit]:
        """The best chunks by BM25 over title, headings and text; the query is words, never a query language.

        Of a longer query the first 512 different words count.
        """
        where = where_all(filters)
        words = query_words(query)
        while words:
            match = {"match": {SEARCHED: {"query": " ".join(words)}}}
            try:
                return self._best({"bool": {"must": match, "filter": where}}, limit)
            except AnswerError as error:
                if "clause" not in str(error).lower():  # 1,024 of them are allowed, unless the cluster says otherwise
                    raise
            # One word may be many to the analyzer, such as a Chinese sentence.
            words = words[: len(words) // 2] if len(words) > 1 else [words[0][: len(words[0]) // 2]]
        return []

    def _best(self, query: Json, limit: int) -> list[Hit]:
        # Equal scores in the order of ids, so that a search gives the same list again.
        order = [{"_score": "desc"}, {ID: "asc"}]
        body = {"size": limit, "query": query, "sort": order, "_source": {"excludes": [VECTOR, SEARCHED]}}
        answer = self._index.search(body, at_most=SEARCH_SECONDS)
        return [Hit(id=hit["_source"]["metadata"]["id"], row=row(hit)) for hit in answer["hits"]["hits"]]

    def _delete_ids(self, keys: Iterable[str]) -> None:
        doomed = sorted(set(keys))
        outcome = send_all(self._client, self._name, deletions(doomed), self._limits)
        if outcome.refused:
            raise RuntimeError(f"{self.uri} did not delete {len(outcome.refused)} chunks: {outcome.refused[0][1]}")
        self._last_deleted = doomed[:_VALUES_PER_QUERY] or self._last_deleted

    def _ids_of(self, doc_ids: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Document id and `_id` of every chunk of these documents."""
        self._refresh()
        for hit in self._where_in("doc_id", doc_ids, {"includes": ["metadata.doc_id"]}):
            yield hit["_source"]["metadata"]["doc_id"], hit["_id"]

    def _refresh(self) -> None:
        """Make what was written visible to the reads that decide about writes."""
        if self.capabilities.refresh:
            self._index.refresh()

    def _show(self) -> None:
        if not self._is_loading:
            self._refresh()

    def _where_in(self, column: str, values: Sequence[str], source: Json) -> Iterator[Json]:
        """The hits whose column has one of these values, some values and some hits at a time."""
        unique = sorted(set(values))
        for start in range(0, len(unique), _VALUES_PER_QUERY):
            query = {"terms": {f"metadata.{column}": unique[start : start + _VALUES_PER_QUERY]}}
            yield from self._index.pages(query, source, _HITS_PER_PAGE)

    def _counts(self, *columns: str) -> Iterator[tuple[tuple[str, ...], int]]:
        return self._index.counts(columns, _BUCKETS_PER_PAGE)

    def _remember(self, doc_ids: Iterable[str], rows: pa.Table, refused: Iterable[str]) -> None:
        """What finish() waits for and removes where nothing can be asked to be visible."""
        pairs = list(zip(rows["id"].to_pylist(), rows["doc_id"].to_pylist(), strict=True))
        written = {doc_id for _, doc_id in pairs}
        # What a lost answer wrote of a refused document has no known `_id`, and cannot be searched for yet.
        self._unwanted = ((self._unwanted | set(doc_ids)) - written) | set(refused)
        self._last_written = pairs[-_VALUES_PER_QUERY:]

    def _await_writes(self) -> None:
        deadline = self._client.deadline()
        while not self._are_visible():
            deadline.wait(TransientError("what was written last is not visible yet", TimeoutError))

    def _are_visible(self) -> bool:
        wanted = {key for key, doc_id in self._last_written if doc_id not in self._unwanted}
        found = {hit["_source"]["metadata"]["id"] for hit in self._where_in("id", sorted(wanted), {"includes": [ID]})}
        deleted = self._index.pages({"terms": {"_id": self._last_deleted}}, {"includes": [ID]}, _HITS_PER_PAGE)
        return found == wanted and next(deleted, None) is None

    def _duplicates(self) -> Iterator[str]:
        """The `_id`s of all chunks of one id but one."""
        twice = (key for (key,), number in self._counts("id") if number > 1)
        while some := list(islice(twice, _VALUES_PER_QUERY)):
            first: set[str] = set()
            for hit in self._where_in("id", some, {"includes": [ID]}):
                key = hit["_source"]["metadata"]["id"]
                if key in first:
                    yield hit["_id"]
                first.add(key)
