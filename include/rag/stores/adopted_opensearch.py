"""An index of OpenSearch that somebody else built, as a search reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from include.config import load_settings
from include.errors import UserError
from include.rag.stores import Hit
from include.rag.stores.adopted import Adopted, Mapped, Sampled, text_of, value_of
from include.rag.stores.opensearch_client import AnswerError, Client, Json
from include.rag.stores.opensearch_document import SEARCH_SECONDS, query_words

if TYPE_CHECKING:
    import numpy as np

    from include.models.embeddings import Embedder

_AS_COSINE = ("l2", "innerproduct")
"""Similarities that rank as cosine does if all vectors have length 1."""


class AdoptedIndex(Mapped):
    """An index of OpenSearch at the configured server."""

    def __init__(self, adopted: Adopted, embedder: Embedder, tenant: str) -> None:
        super().__init__(adopted, embedder, tenant)
        self._client = Client(load_settings())
        self.place, about = self._resolved(adopted.place)
        self.uri = f"{self._client.url}/{self.place}"
        properties = about["mappings"].get("properties", {})
        self.similarity = self._check(properties, about["settings"]["index"])
        exact = {role: _exact_field(properties, self._fields[role]) for role in ("id", "path", "title")}
        self.exact = {role: field for role, field in exact.items() if field}

    def _resolved(self, name: str) -> tuple[str, Json]:
        """The index behind a name, and what the server says of it."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+@-]{0,254}", name):
            raise UserError(f"place={name!r} is not the name of one index or alias: no patterns, lists or hidden ones")
        found = self._ask("GET", f"/{name}")
        if len(found) != 1:
            raise UserError(f"place={name!r} is an alias of {', '.join(sorted(found))}; name one of them")
        ((index, about),) = found.items()
        if narrowed := {"filter", "search_routing"} & about["aliases"].get(name, {}).keys():
            raise UserError(
                f"place={name!r} is an alias with {' and '.join(sorted(narrowed))}, which would be lost; name its "
                f"index {index} if all that it holds may be found"
            )
        return index, about

    def _check(self, properties: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
        """What vectors are ranked by."""
        text, vector = (_mapped(properties, self._fields[role]) for role in ("text", "vector"))
        if text.get("type") != "text":
            raise self._unfit("text", text.get("type"), "of type text")
        kind, values = vector.get("type"), str(vector.get("data_type", "float")).lower()
        if kind != "knn_vector" or values != "float":
            raise self._unfit("vector", kind if values == "float" else f"of {values}s", "of type knn_vector, of floats")
        if vector.get("dimension") != self._embedder.dimension:
            found, wanted = vector.get("dimension"), self._embedder.dimension
            raise self._unfit("vector", f"of {found} dimensions", f"of {wanted}, as embedder's vectors are")
        if settings.get("knn") != "true":
            raise UserError(f"{self.uri}: the setting index.knn is {settings.get('knn')}; must be true to be searched")
        method = vector.get("method", {})
        space = method.get("space_type") or vector.get("space_type") or settings.get("knn.space_type") or "l2"
        if space not in ("cosinesimil", *_AS_COSINE):
            raise self._unfit("vector", f"ranked by {space}", f"by cosinesimil, {' or '.join(_AS_COSINE)}")
        return "cosine" if space == "cosinesimil" else str(space)

    def count(self) -> int:
        """How many rows there are."""
        answer = self._search({"size": 0, "track_total_hits": True})
        return int(answer["hits"]["total"]["value"])

    def sample(self, limit: int) -> list[Sampled]:
        """Rows by chance."""
        import numpy as np

        vector = self._fields["vector"]
        query: Json = {"function_score": {"query": {"match_all": {}}, "random_score": {}}}
        body = {"size": limit, "query": query, "_source": [*self._columns(), vector]}
        hits = self._search(body)["hits"]["hits"]
        vectors = (value_of(hit.get("_source", {}), vector) for hit in hits)
        return [
            Sampled(row=self._found(hit).row, vector=np.asarray(found or [], "f4"))
            for hit, found in zip(hits, vectors, strict=True)
        ]

    def dense(self, vector: np.ndarray[Any, Any], limit: int, filters: Mapping[str, str]) -> list[Hit]:
        """The nearest rows, by the index's own similarity; an adoption made sure that it ranks as cosine does."""
        where = self._where(filters)
        query: Json = {"vector": [float(value) for value in vector], "k": limit}
        if where:
            query["filter"] = {"bool": {"filter": _terms(where)}}
        return [] if where is None else self._best({"knn": {self._fields["vector"]: query}}, limit)

    def full_text(self, query: str, limit: int, filters: Mapping[str, str]) -> list[Hit]:
        """The best rows by BM25 over the text; the query is words, of which the first 512 different ones count."""
        where = self._where(filters)
        words = query_words(query)
        if where is None or not words:
            return []
        match = {"match": {self._fields["text"]: {"query": " ".join(words)}}}
        return self._best({"bool": {"must": match, "filter": _terms(where)}}, limit)

    def _best(self, query: Json, limit: int) -> list[Hit]:
        hits = self._search({"size": limit, "query": query, "_source": self._columns()})["hits"]["hits"]
        return [self._found(hit) for hit in sorted(hits, key=lambda hit: (-hit["_score"], hit["_id"]))]

    def _columns(self) -> list[str]:
        return [name for role, name in self._fields.items() if role != "vector" and name != "_id"]

    def _found(self, hit: Mapping[str, Any]) -> Hit:
        source, name = hit.get("_source", {}), self._fields["id"]
        return self._hit(source, hit["_id"] if name == "_id" else text_of(value_of(source, name)) or hit["_id"])

    def _search(self, body: Json) -> Json:
        return self._ask("POST", f"/{self.place}/_search", body)

    def _ask(self, method: str, path: str, body: Json | None = None) -> Json:
        try:
            return self._client.ask(method, path, body, SEARCH_SECONDS)
        except AnswerError as error:
            name = path.split("/")[1]
            if error.status == 404:
                raise UserError(f"place={name!r} is not there: {self._client.url} has no such index or alias") from None
            raise UserError(f"place={name!r}: {error}") from None


def _mapped(properties: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What a mapping says of a field; nothing if it is not in it."""
    first, _, rest = name.partition(".")
    found: Mapping[str, Any] = properties.get(first, {})
    return _mapped(found.get("properties", {}), rest) if rest else found


def _exact_field(properties: Mapping[str, Any], name: str) -> str | None:
    """The field by which the values of a field can be compared as a whole."""
    found = _mapped(properties, name)
    if name == "_id" or found.get("type") == "keyword":
        return name
    parts = found.get("fields", {})
    return next((f"{name}.{part}" for part, about in parts.items() if about.get("type") == "keyword"), None)


def _terms(where: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    return [{"terms": {field: values}} for field, values in where.items()]
