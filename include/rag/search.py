"""search(): passages for a question, by full text and by meaning, fused by reciprocal rank."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeVar, get_args

from include.config import Settings, load_settings
from include.errors import UserError
from include.models import embeddings
from include.models.embeddings import Embedder
from include.models.metering import Caller, Meter
from include.names import checked
from include.rag.stores import Hit, Reader
from include.rag.versions import Versions

CANDIDATES = 100
"""Passages asked of each side. Fusing only as many as are wanted loses good ones."""
RRF_K = 60
"""Reciprocal rank fusion's constant; Cormack, Clarke and Buettcher, SIGIR 2009."""

Mode = Literal["hybrid", "full_text", "dense"]
"""Which sides are asked: both, fused, or one alone."""

Key = TypeVar("Key")


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """A chunk of a document, with where it comes from and why it was found."""

    text: str
    title: str
    path: str
    headings: tuple[str, ...]
    locator: str | None
    start: int
    end: int
    """Characters of the document's text, as its loader made it; end excluded."""
    page: int | None
    source: str
    doc_id: str
    id: str
    score: float
    """Sum of 1 / (60 + rank) over the sides that were asked; comparable within one answer only."""
    rank_full_text: int | None
    """From 1; None where that side did not find it, or was not asked."""
    rank_dense: int | None


def search(
    question: str,
    *,
    index: str,
    k: int = 5,
    mode: Mode = "hybrid",
    tenant: str | None = None,
    filters: Mapping[str, str] | None = None,
    settings: Settings | None = None,
) -> list[Passage]:
    """The k best passages of an index for a question, best first.

    A tenant sees its own index only; `filters` narrow further by equality on the fields of stores.FILTERS.
    Raises UserError if the index does not exist or a mode or filter is not known.
    """
    if mode not in get_args(Mode):
        raise UserError(f"mode {mode!r} is not known; choose one of {', '.join(get_args(Mode))}")
    settings = settings or load_settings()
    tenant = checked("tenant", tenant or settings.tenant)
    checked("index", index)
    if not question.strip() or k < 1:
        raise UserError(f"a search needs a question and k >= 1; got {question!r} and k={k}")
    _, embedder, store = live_version(Versions(settings.root, tenant, index))
    # Last, so that no filter of a caller can widen it.
    where = {**(filters or {}), "tenant": tenant}
    full_text = store.full_text(question, CANDIDATES, where) if mode != "dense" else []
    dense: list[Hit] = []
    if mode != "full_text":
        with Meter(root=settings.root, caller=Caller(tenant=tenant, use_case=settings.use_case)) as meter:
            vector = embeddings.embed_metered(embedder, [question], meter, query=True)[0]
        dense = store.dense(vector, CANDIDATES, where)
    return fuse(full_text, dense)[:k]


def live_version(versions: Versions) -> tuple[int, Embedder, Reader]:
    """The version of an index that is read just now, as open_version() opens it; UserError if none is."""
    number = versions.live().version
    if number is None:
        raise UserError(f"{versions} has no live version: run the DAG rag_ingestion")
    return number, *open_version(versions, number)


def open_version(versions: Versions, number: int) -> tuple[Embedder, Reader]:
    """A version of an index to search in, and the model that its vectors are of."""
    spec = versions.get(number).spec
    embedder = _embedder(spec.embedder)
    if embedder.name != spec.embedder_version:
        raise UserError(
            f"{versions} was built with embedder {spec.embedder_version}, which here is {embedder.name}: put back "
            "its settings, or run the DAG rag_ingestion, which builds the next version"
        )
    return embedder, versions.reader(number)


def fuse(full_text: Iterable[Hit], dense: Iterable[Hit]) -> list[Passage]:
    """Both sides' hits in one list by reciprocal rank fusion, best first; ties in the order of ids."""
    rows: dict[str, Mapping[str, Any]] = {}
    places: list[dict[str, int]] = []
    for hits in (full_text, dense):
        found = list(hits)
        rows |= {hit.id: hit.row for hit in found}
        places.append({hit.id: rank for rank, hit in enumerate(found, start=1)})
    scores = reciprocal_ranks([list(side) for side in places])
    return [
        Passage(
            **{name: rows[key][name] for name in _STORED},
            headings=tuple(rows[key]["headings"] or ()),
            score=scores[key],
            rank_full_text=places[0].get(key),
            rank_dense=places[1].get(key),
        )
        for key in sorted(scores, key=lambda key: (-scores[key], key))
    ]


def reciprocal_ranks(sides: Iterable[Sequence[Key]]) -> dict[Key, float]:
    """The sum of 1 / (60 + rank) of what ranked lists hold; a list that is given twice counts twice."""
    scores: dict[Key, float] = {}
    for side in sides:
        for rank, key in enumerate(side, start=1):
            scores[key] = scores.get(key, 0.0) + 1 / (RRF_K + rank)
    return scores


_STORED = ("text", "title", "path", "locator", "start", "end", "page", "source", "doc_id", "id")


def _embedder(name: str) -> Embedder:
    """A model that needs packages is loaded into the process, which takes longer than a search: it is kept."""
    embedder = embeddings.get_embedder(name)
    return _loaded(name) if embedder.packages else embedder


_loaded = lru_cache(maxsize=2)(embeddings.get_embedder)
