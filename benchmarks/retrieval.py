"""Measure what search finds: `python -m benchmarks.retrieval [--exact] [--trec FOLDER]`.

Full text, dense and both fused, on the demo's documents and on any collection in TREC format. The demo is asked twice:
questions.jsonl avoids the documents' own words, which favours dense; the questions that golden.py makes are such words
and little else, which favours full text. Each figure is a mean over questions with its 95 % bootstrap interval; a
difference of two ways is bootstrapped over the same questions, which says more than two intervals that overlap.

--exact also embeds with float32 weights, at a tenth of the rate: run it with OPENBLAS_NUM_THREADS=1 under nice.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
from ir_measures import RR, R, nDCG

from benchmarks.exact_minilm import ExactMiniLM
from include.documents.demo import build
from include.documents.document import Document
from include.documents.loaders import load
from include.models.embeddings import Embedder, MiniLM
from include.rag.chunking import Chunker
from include.rag.golden import make_questions
from include.rag.search import CANDIDATES, reciprocal_ranks
from include.rag.stores import search_text
from include.statistics import mean_interval, paired_difference
from include.storage import digest, location

QUESTIONS = Path(__file__).with_name("questions.jsonl")
MEASURES = {"recall@5": R @ 5, "MRR": RR, "nDCG@10": nDCG @ 10}
CHUNK_TOKENS, OVERLAP_TOKENS = 200, 30

Ranking = dict[str, list[int]]
"""Question id -> numbers of chunks, best first, at most CANDIDATES."""
Scores = dict[str, Any]
"""Measure -> one value for each question."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A chunk, or a whole document where a collection is of short ones."""

    doc_id: str
    title: str = ""
    headings: tuple[str, ...] = ()
    text: str
    embedded: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Collection:
    """What is searched, what is asked, and which documents answer it."""

    name: str
    pieces: list[Piece]
    questions: dict[str, str]
    relevant: dict[str, dict[str, int]]


def read_demo(folder: Path, questions: Path = QUESTIONS) -> Collection:
    """The demo's documents in chunks, and our questions; ValueError names relevant documents that are not there."""
    model = MiniLM()
    chunker = Chunker(CHUNK_TOKENS, OVERLAP_TOKENS, model.count_tokens, model.limit_tokens)
    pieces = []
    for doc_id, document in _documents(folder):
        pieces += [
            Piece(
                doc_id=doc_id,
                title=document.title,
                headings=chunk.headings,
                text=chunk.text,
                embedded=chunk.for_embedding(document.title),
            )
            for chunk in chunker.split(document)
        ]
    rows = [json.loads(line) for line in questions.read_text("utf-8").splitlines()]
    missing = {path for row in rows for path in row["relevant"]} - {piece.doc_id for piece in pieces}
    if missing:
        raise ValueError(f"{questions.name} names documents that {folder} does not hold: {', '.join(sorted(missing))}")
    return Collection(
        name="demo",
        pieces=pieces,
        questions={str(number): row["question"] for number, row in enumerate(rows)},
        relevant={str(number): dict.fromkeys(row["relevant"], 1) for number, row in enumerate(rows)},
    )


def by_rule(folder: Path, demo: Collection) -> Collection:
    """The same documents, asked the questions that a run makes of its source for its own check."""
    made = make_questions((doc_id, document.title, document) for doc_id, document in _documents(folder))
    return replace(
        demo,
        name="demo-by-rule",
        questions={question.id: question.text for question in made},
        relevant={question.id: dict.fromkeys(question.relevant, 1) for question in made},
    )


def _documents(folder: Path) -> Iterator[tuple[str, Document]]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        yield path.relative_to(folder).as_posix(), load(path.read_bytes(), path.name)


def read_trec(folder: Path) -> Collection:
    """doc-text.trec, query-text.trec and qrels of a folder; a document is one piece."""
    documents = _trec(folder / "doc-text.trec", r"<DOCNO>(.*?)</DOCNO>(.*?)</DOC>")
    relevant: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels").read_text("utf-8").splitlines():
        question, _, doc_id, grade = line.split()
        relevant.setdefault(question, {})[doc_id] = int(grade)
    return Collection(
        name=folder.name,
        pieces=[Piece(doc_id=doc_id, text=text, embedded=text) for doc_id, text in documents],
        questions=dict(_trec(folder / "query-text.trec", r"<num>(.*?)</num>\s*<title>(.*?)</title>")),
        relevant=relevant,
    )


def _trec(path: Path, pattern: str) -> list[tuple[str, str]]:
    found = re.findall(pattern, path.read_text("utf-8"), re.DOTALL)
    return [(key.strip(), " ".join(text.split())) for key, text in found]


def full_text(collection: Collection, scratch: Path) -> dict[str, Ranking]:
    """By BM25, as the store does it, over three choices of what is indexed."""
    import lancedb
    import pyarrow as pa
    from lancedb.index import FTS
    from lancedb.query import MatchQuery, MultiMatchQuery

    pieces = collection.pieces
    columns = {
        "text": [piece.text for piece in pieces],
        "headings": [search_text(piece.title, piece.headings, "") for piece in pieces],
        "both": [search_text(piece.title, piece.headings, piece.text) for piece in pieces],
    }
    rows = pa.table({"number": range(len(pieces)), **columns})
    table = lancedb.connect(scratch).create_table(collection.name, rows)
    for column in columns:
        table.create_index(column, config=FTS())

    def ranking(query: Any) -> Ranking:
        return {
            key: [
                row["number"]
                for row in table.search(query(text), query_type="fts")
                .select(["number", "_score"])
                .limit(CANDIDATES)
                .to_list()
            ]
            for key, text in collection.questions.items()
        }

    found = {"full text: text": ranking(lambda text: MatchQuery(text, "text"))}
    if any(columns["headings"]):
        found["full text: title, headings, text"] = ranking(lambda text: MatchQuery(text, "both"))
        found["full text: two fields"] = ranking(lambda text: MultiMatchQuery(text, ["text", "headings"]))
    return found


def dense(collection: Collection, embedder: Embedder, kept: Path) -> Ranking:
    """By cosine, exact; vectors are kept in a folder by what they were made of."""
    vectors = embedded(embedder, [piece.embedded for piece in collection.pieces], kept)
    questions = embedded(embedder, list(collection.questions.values()), kept)
    order = np.argsort(-(questions @ vectors.T), axis=1, kind="stable")[:, :CANDIDATES]
    return {key: numbers.tolist() for key, numbers in zip(collection.questions, order, strict=True)}


def embedded(embedder: Embedder, texts: Sequence[str], kept: Path) -> Any:
    """The texts' vectors, from the folder if they are there."""
    path = kept / f"{embedder.name}-{digest(*texts)[:16]}.npy"
    if not path.exists():
        kept.mkdir(parents=True, exist_ok=True)
        np.save(path, embedder.embed(texts))
    return np.load(path)


def fused(*sides: Ranking) -> Ranking:
    """By reciprocal rank fusion, as search() does it; a side that is given twice counts twice."""
    found: Ranking = {}
    for key in sides[0]:
        scores = reciprocal_ranks([side[key] for side in sides])
        found[key] = sorted(scores, key=lambda number: (-scores[number], number))[:CANDIDATES]
    return found


def scored(collection: Collection, ranking: Ranking) -> Scores:
    """Each measure for each question; a document stands where its best chunk does."""
    run: dict[str, dict[str, float]] = {}
    for key, numbers in ranking.items():
        documents = dict.fromkeys(collection.pieces[number].doc_id for number in numbers)
        run[key] = {doc_id: float(-place) for place, doc_id in enumerate(documents)}
    order = {key: place for place, key in enumerate(collection.relevant)}
    values: Scores = {name: np.zeros(len(order)) for name in MEASURES}
    names = {str(measure): name for name, measure in MEASURES.items()}
    for one in ir_measures.iter_calc(list(MEASURES.values()), collection.relevant, run):
        values[names[str(one.measure)]][order[one.query_id]] = one.value
    return values


def verdict(low: float, high: float) -> str:
    """What a difference's interval shows."""
    return "better" if low > 0 else "worse" if high < 0 else "not shown to differ"


def agreement(left: Ranking, right: Ranking, depth: int = 10) -> float:
    """The mean share of the first `depth` chunks that two rankings have in common."""
    tops = [(set(left[key][:depth]), set(right[key][:depth])) for key in left]
    return float(np.mean([len(ours & theirs) / max(len(ours), len(theirs), 1) for ours, theirs in tops]))


def measure(collection: Collection, embedders: Sequence[Embedder], scratch: Path, kept: Path) -> None:
    """Print one collection's tables."""
    documents = len({piece.doc_id for piece in collection.pieces})
    print(f"\n{collection.name}: {documents:,} documents, {len(collection.pieces):,} chunks, ", end="")
    print(f"{len(collection.questions)} questions\n")
    words = full_text(collection, scratch)
    best = "full text: title, headings, text" if len(words) > 1 else "full text: text"
    meanings = {embedder.name: dense(collection, embedder, kept) for embedder in embedders}
    default = meanings[embedders[0].name]
    ways = dict(words)
    for name, ranking in meanings.items():
        ways |= {f"dense: {name}": ranking, f"hybrid: {name}": fused(words[best], ranking)}
    ways["hybrid, full text counts twice"] = fused(words[best], words[best], default)
    ways["hybrid, dense counts twice"] = fused(words[best], default, default)
    scores = {name: scored(collection, ranking) for name, ranking in ways.items()}
    print_means(scores)
    hybrid = f"hybrid: {embedders[0].name}"
    pairs = [(name, "full text: text") for name in words] + [(hybrid, best), (hybrid, f"dense: {embedders[0].name}")]
    pairs += [(name, hybrid) for name in ways if name.startswith("hybrid")]
    for name in list(meanings)[1:]:
        pairs.append((f"dense: {embedders[0].name}", f"dense: {name}"))
    print_differences(scores, [pair for pair in pairs if pair[0] != pair[1]])
    for name in list(meanings)[1:]:
        share = agreement(default, meanings[name])
        print(f"\nThe first 10 chunks of {embedders[0].name} and {name} have {share:.1%} in common (dense).")


def print_means(scores: dict[str, Scores]) -> None:
    """A line for each way; the first is the baseline."""
    print(f"{'':46}" + "".join(f"{name:22}" for name in MEASURES))
    for number, (name, values) in enumerate(scores.items()):
        cells = [mean_interval(values[measure].tolist()) for measure in MEASURES]
        shown = "".join(f"{cell.mean:.3f} [{cell.low:.3f}, {cell.high:.3f}]  " for cell in cells)
        print(f"{name + (' (baseline)' if not number else ''):46}{shown}".rstrip())


def print_differences(scores: dict[str, Scores], pairs: Iterable[tuple[str, str]]) -> None:
    """A line for each pair: the first less the second, over the same questions."""
    print("\nnDCG@10 and recall@5, differences over the same questions")
    for left, right in pairs:
        cells = []
        for name in ("nDCG@10", "recall@5"):
            found = paired_difference(scores[left][name].tolist(), scores[right][name].tolist())
            cells.append(f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}] {verdict(found.low, found.high)}")
        print(f"{left + '  -  ' + right:70} {cells[0]:46} {cells[1]}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables of the demo and, if it is named, of a TREC folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retrieval")
    parser.add_argument("--trec", type=Path, help="a folder with doc-text.trec, query-text.trec and qrels")
    parser.add_argument("--exact", action="store_true", help="also embed with float32 weights (slow)")
    parser.add_argument("--vectors", type=Path, help="a folder that keeps vectors for the next time")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        build(location((scratch / "documents").as_uri()), "demo")
        demo = read_demo(scratch / "documents")
        collections = [demo, by_rule(scratch / "documents", demo)]
        if options.trec:
            collections.append(read_trec(options.trec))
        embedders: list[Embedder] = [MiniLM()]
        if options.exact:
            embedders.append(ExactMiniLM())
        for collection in collections:
            measure(collection, embedders, scratch / "lancedb", options.vectors or scratch / "vectors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
