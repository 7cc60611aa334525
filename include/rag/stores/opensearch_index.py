"""One index of OpenSearch: its mapping, its settings for a load, its alias, and reading it page by page."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from include.config import Settings
from include.errors import UserError
from include.rag.stores import Capabilities
from include.rag.stores.opensearch_client import AnswerError, Client, Json
from include.rag.stores.opensearch_document import ID, KEYWORDS, SEARCHED, TEXT, VECTOR

_HNSW = {"m": 16, "ef_construction": 100}
_BEFORE = "before_load"
"""Where the index itself keeps the settings that a load changed."""
_LOAD = ("refresh_interval", "number_of_replicas")
_LONGEST_KEYWORD = 8_191
"""Characters: Lucene takes 32,766 bytes of one keyword. A chunk whose title is longer is kept, but not found by it."""


class Index:
    """An index by its name; made when it is first needed."""

    def __init__(
        self, client: Client, name: str, dimension: int, settings: Settings, capabilities: Capabilities
    ) -> None:
        self._client, self._name, self._dimension = client, name, dimension
        self._settings, self._capabilities = settings, capabilities
        self._is_checked = False

    def exists(self) -> bool:
        """Whether it is there; UserError if it is there with other vectors or without the fields of a chunk."""
        mapping = self._mapping()
        if mapping is not None:
            self._check(mapping)
        self._is_checked = mapping is not None
        return self._is_checked

    def ensure(self) -> None:
        """Make it unless it is there; another process may do the same at the same time."""
        if self.exists():
            return
        try:
            self._client.ask("PUT", f"/{self._name}", self._definition())
        except AnswerError as error:
            if error.kind == "resource_already_exists_exception":
                return
            if error.status != 400:
                raise
            raise UserError(f"index {self._name} could not be made: {error}") from None

    def drop(self) -> None:
        """Delete it, if it is there."""
        self._ask_if_there("DELETE", f"/{self._name}")

    def refresh(self) -> None:
        """Make all that was written visible."""
        self._ask_if_there("POST", f"/{self._name}/_refresh")

    def set_for_load(self, *, live: bool) -> None:
        """No refresh and, unless live, no replicas; what was set before is written down in the index first."""
        if not self._capabilities.refresh:  # and so without these settings
            return
        self.restore()
        found = self._client.ask("GET", f"/{self._name}/_settings")[self._name]["settings"]["index"]
        changed: Json = {"refresh_interval": "-1"} | ({} if live else {"number_of_replicas": 0})
        self._write_meta({_BEFORE: {name: found.get(name) for name in changed}})
        self._put_settings(changed)

    def restore(self) -> None:
        """Put back what a load had changed, if one had."""
        mapping = self._mapping() if self._capabilities.refresh else None
        before = (mapping or {}).get("_meta", {}).get(_BEFORE)
        if before:
            self._put_settings({name: before.get(name) for name in _LOAD if name in before})
            self._write_meta({_BEFORE: None})

    def take_alias(self, alias: str) -> None:
        """Move an alias here from wherever it was, in one step."""
        holders = self._ask_if_there("GET", f"/_alias/{alias}") or {}
        moves = [{"remove": {"index": name, "alias": alias}} for name in sorted(holders) if name != self._name]
        moves.append({"add": {"index": self._name, "alias": alias}})
        try:
            self._client.ask("POST", "/_aliases", {"actions": moves})
        except AnswerError as error:
            if error.kind != "invalid_alias_name_exception":
                raise
            raise UserError(
                f"alias {alias} cannot be set: an index has that name; rename or delete it, or choose another "
                "FMOPS_OPENSEARCH_PREFIX"
            ) from None

    def search(self, body: Json, at_most: float = math.inf) -> Json:
        """The answer; one without hits if the index is not there. UserError as exists(), at the first search."""
        is_there = self._is_checked or self.exists()
        answer = self._ask_if_there("POST", f"/{self._name}/_search", body, at_most) if is_there else None
        return answer or {"hits": {"hits": []}, "aggregations": {"all": {"buckets": []}}}

    def pages(self, query: Json, source: Json, size: int) -> Iterator[Json]:
        """Every hit of a query, in the order of chunk ids; without a scroll, which serverless lacks."""
        body: Json = {"size": size, "query": query, "_source": source, "sort": [{ID: "asc"}], "track_total_hits": False}
        while True:
            hits = self.search(body)["hits"]["hits"]
            if len(hits) < size:
                yield from hits
                return
            # An id may be there twice, on both sides of a page's end: the last id is left to the next page.
            whole = [hit for hit in hits if hit["sort"] != hits[-1]["sort"]] or hits
            yield from whole
            body["search_after"] = whole[-1]["sort"]

    def counts(self, columns: Sequence[str], size: int) -> Iterator[tuple[tuple[str, ...], int]]:
        """Each combination of values of these columns with the number of chunks that have it."""
        sources = [{name: {"terms": {"field": f"metadata.{name}"}}} for name in columns]
        composite: Json = {"size": size, "sources": sources}
        body = {"size": 0, "aggs": {"all": {"composite": composite}}, "track_total_hits": False}
        while True:
            found = self.search(body)["aggregations"]["all"]
            for bucket in found["buckets"]:
                yield tuple(bucket["key"][name] for name in columns), bucket["doc_count"]
            if "after_key" not in found:
                return
            composite["after"] = found["after_key"]

    def _ask_if_there(self, method: str, path: str, body: Json | None = None, at_most: float = math.inf) -> Json | None:
        """The answer; None if what is asked about is not there."""
        try:
            return self._client.ask(method, path, body, at_most)
        except AnswerError as error:
            if error.status != 404:
                raise
            return None

    def _mapping(self) -> Json | None:
        found = self._ask_if_there("GET", f"/{self._name}/_mapping")
        if found is None:
            return None
        if self._name not in found:  # the name is an alias of another index
            raise UserError(f"{self._name} is an alias of {', '.join(sorted(found))}, not an index")
        mapping: Json = found[self._name]["mappings"]
        return mapping

    def _check(self, mapping: Json) -> None:
        fields = mapping.get("properties", {})
        held = fields.get(VECTOR, {}).get("dimension")
        within = fields.get("metadata", {}).get("properties", {})
        lacking = [name for name in (TEXT, SEARCHED, VECTOR) if name not in fields]
        lacking += [f"metadata.{name}" for name in KEYWORDS if within.get(name, {}).get("type") != "keyword"]
        if lacking:
            raise UserError(
                f"index {self._name} was written by another release or program: it lacks the fields "
                f"{', '.join(lacking)}; choose another name for the index, or delete this one and ingest again"
            )
        if held != self._dimension:
            raise UserError(f"index {self._name} holds vectors of {held} dimensions, not {self._dimension}")

    def _definition(self) -> Json:
        engine = self._settings.opensearch_engine
        if self._settings.opensearch_service == "aoss" and engine == "lucene":
            raise UserError(
                "opensearch_engine='lucene' is not to be had on serverless; set FMOPS_OPENSEARCH_ENGINE=faiss"
            )
        method = {"name": "hnsw", "engine": engine, "space_type": "cosinesimil", "parameters": _HNSW}
        words = {"type": "text", "analyzer": "english"}
        keyword = {"type": "keyword", "ignore_above": _LONGEST_KEYWORD}
        ours: Json = {
            "settings": {"index": {"knn": True}},
            "mappings": {
                "dynamic": False,
                "properties": {
                    TEXT: words,
                    SEARCHED: words,
                    VECTOR: {"type": "knn_vector", "dimension": self._dimension, "method": method},
                    "metadata": {"dynamic": False, "properties": {name: keyword for name in KEYWORDS}},
                },
            },
        }
        if self._capabilities.refresh:
            ours["settings"]["index"]["number_of_replicas"] = self._settings.opensearch_replicas
        definition: Json = _merged(ours, _index_file(self._settings.opensearch_index_file))
        return definition

    def _put_settings(self, settings: Json) -> None:
        self._client.ask("PUT", f"/{self._name}/_settings", {"index": settings})

    def _write_meta(self, changed: Json) -> None:
        meta = {**((self._mapping() or {}).get("_meta") or {}), **changed}
        self._client.ask("PUT", f"/{self._name}/_mapping", {"_meta": {k: v for k, v in meta.items() if v is not None}})


def _index_file(path: str | None) -> Json:
    if path is None:
        return {}
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"opensearch_index_file={path}: {error}") from None
    if not isinstance(found, dict) or not set(found) <= {"settings", "mappings"}:
        raise UserError(f"opensearch_index_file={path} must be a JSON object of `settings` and `mappings` only")
    return found


def _merged(ours: Any, theirs: Any) -> Any:
    """Theirs over ours, object by object."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours | {name: _merged(ours.get(name), value) for name, value in theirs.items()}
    return theirs
