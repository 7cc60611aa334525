"""The retrieval benchmark: its questions, its figures on rankings that are known, and the exact embedder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ir_measures import RR, R, nDCG

from benchmarks import retrieval
from benchmarks.exact_minilm import ExactMiniLM
from benchmarks.retrieval import Collection, Piece
from include.models.embeddings import Hashing, MiniLM


def piece(doc_id: str, text: str, title: str = "") -> Piece:
    return Piece(doc_id=doc_id, title=title, text=text, embedded=text)


@pytest.fixture
def small() -> Collection:
    pieces = [
        piece("a", "red apples", "Fruit"),
        piece("a", "ripe plums"),
        piece("b", "green pears"),
        piece("c", "blue"),
    ]
    relevant = {"1": {"a": 1}, "2": {"b": 1, "c": 1}}
    return Collection(name="small", pieces=pieces, questions={"1": "red fruit", "2": "green"}, relevant=relevant)


def test_every_question_is_asked_once_and_has_an_answer() -> None:
    rows = [json.loads(line) for line in retrieval.QUESTIONS.read_text("utf-8").splitlines()]
    assert len({row["question"] for row in rows}) == len(rows) == 60
    assert all(row["relevant"] and len(set(row["relevant"])) == len(row["relevant"]) for row in rows)
    kinds = {path.split("/")[0] for row in rows for path in row["relevant"]}
    assert kinds == {"cli", "configuration", "guides", "metrics", "reference", "rest-api"}


def test_a_document_stands_where_its_best_chunk_does(small: Collection) -> None:
    scores = retrieval.scored(small, {"1": [2, 1, 0], "2": [3, 0, 1, 2]})
    assert scores["MRR"].tolist() == [1 / 2, 1]
    assert scores["recall@5"].tolist() == [1, 1]
    second = (1 + 1 / np.log2(4)) / (1 + 1 / np.log2(3))  # documents c, a, b
    assert scores["nDCG@10"] == pytest.approx([1 / np.log2(3), second])
    assert list(retrieval.MEASURES.values()) == [R @ 5, RR, nDCG @ 10]


def test_a_question_that_finds_nothing_counts_as_nought(small: Collection) -> None:
    assert retrieval.scored(small, {"1": [0], "2": []})["MRR"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.1, 0.2, "better"),
        (-0.2, -0.1, "worse"),
        (-0.1, 0.1, "not shown to differ"),
        (0.0, 0.1, "not shown to differ"),
    ],
)
def test_a_difference_is_judged_by_its_interval(low: float, high: float, said: str) -> None:
    assert retrieval.verdict(low, high) == said


def test_full_text_finds_by_title_only_where_titles_are_indexed(small: Collection, tmp_path: Path) -> None:
    found = retrieval.full_text(small, tmp_path)
    assert {name: ranking["2"] for name, ranking in found.items()} == dict.fromkeys(found, [2])
    assert len(found) == 3
    asked = Collection(name="asked", pieces=small.pieces, questions={"1": "fruit"}, relevant={"1": {"a": 1}})
    found = retrieval.full_text(asked, tmp_path)
    assert [ranking["1"] for ranking in found.values()] == [[], [0], [0]]


def test_dense_ranks_by_cosine_and_keeps_vectors(small: Collection, tmp_path: Path) -> None:
    class Counting(Hashing):
        texts = 0

        def embed(self, texts):  # type: ignore[no-untyped-def]
            Counting.texts += len(texts)
            return super().embed(texts)

    first = retrieval.dense(small, Counting(), tmp_path)
    assert (first["1"][0], first["2"][0]) == (0, 2)
    assert Counting.texts == len(small.pieces) + len(small.questions)
    assert retrieval.dense(small, Counting(), tmp_path) == first
    assert Counting.texts == len(small.pieces) + len(small.questions)


def test_fusion_and_agreement() -> None:
    left, right = {"1": [0, 1, 2]}, {"1": [1, 0, 3]}
    assert retrieval.fused(left, right)["1"] == [0, 1, 2, 3]
    assert retrieval.fused(left, right, right)["1"] == [1, 0, 3, 2]
    assert retrieval.agreement(left, right, depth=2) == 1
    assert retrieval.agreement(left, right) == pytest.approx(2 / 3)
    assert retrieval.agreement(left, {"1": [4, 5, 6]}) == 0


def test_the_demo_is_read_in_chunks_and_a_missing_answer_is_named(tmp_path: Path) -> None:
    folder, questions = tmp_path / "documents" / "cli", tmp_path / "questions.jsonl"
    folder.mkdir(parents=True)
    (folder / "a.md").write_text("# Title\n\n## One\n\nfirst\n\n## Two\n\nsecond\n")
    questions.write_text('{"question": "which?", "relevant": ["cli/a.md"]}\n')
    read = retrieval.read_demo(folder.parent, questions)
    assert [(one.doc_id, one.headings[-1], one.text) for one in read.pieces] == [
        ("cli/a.md", "One", "first"),
        ("cli/a.md", "Two", "second"),
    ]
    assert read.pieces[0].embedded.endswith("first")
    assert "Title" in read.pieces[0].embedded
    assert (read.questions, read.relevant) == ({"0": "which?"}, {"0": {"cli/a.md": 1}})
    questions.write_text('{"question": "which?", "relevant": ["cli/a.md", "cli/b.md"]}\n')
    with pytest.raises(ValueError, match="does not hold: cli/b.md"):
        retrieval.read_demo(folder.parent, questions)


def test_questions_by_rule_ask_the_same_pieces(tmp_path: Path) -> None:
    words = "maple willow cedar spruce larch hazel rowan alder birch poplar walnut chestnut "
    words += "otter badger heron falcon salmon beaver marten plover curlew dipper osprey merlin"
    for number in range(8):  # each word stands in three of them
        chosen = [word for place, word in enumerate(words.split()) if (place * 7 + number * 3) % 8 < 3]
        (tmp_path / f"{number}.md").write_text(f"# Page\n\nYesterday {' '.join(chosen)} were seen.\n")
    demo = Collection(name="demo", pieces=[piece("0.md", "x")], questions={"0": "?"}, relevant={"0": {"0.md": 1}})
    made = retrieval.by_rule(tmp_path, demo)
    assert made.pieces == demo.pieces
    assert made.questions
    assert made.questions.keys() == made.relevant.keys()
    assert {path for relevant in made.relevant.values() for path in relevant} <= {f"{n}.md" for n in range(8)}


def test_a_trec_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "doc-text.trec").write_text(
        "<DOC>\n<DOCNO>1</DOCNO>\nred\napples\n</DOC>\n<DOC><DOCNO>2</DOCNO> x </DOC>"
    )
    (tmp_path / "query-text.trec").write_text("<top>\n<num>7</num><title>\nRED\n</title>\n</top>\n")
    (tmp_path / "qrels").write_text("7 0 1 1\n")
    read = retrieval.read_trec(tmp_path)
    assert [(one.doc_id, one.text) for one in read.pieces] == [("1", "red apples"), ("2", "x")]
    assert (read.questions, read.relevant) == ({"7": "RED"}, {"7": {"1": 1}})


def test_the_tables_name_the_baseline(small: Collection, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Other(Hashing):
        name = "other"

    retrieval.measure(small, [Hashing(), Other()], tmp_path / "db", tmp_path / "kept")
    shown = capsys.readouterr().out
    assert "small: 3 documents, 4 chunks, 2 questions" in shown
    assert "full text: text (baseline)" in shown
    assert "dense: hashing-1  -  dense: other" in shown
    assert "have 100.0% in common" in shown


def test_exact_vectors_are_the_model_that_the_int8_ones_approximate() -> None:
    texts = ["hello world", "How do I retry a task with exponential backoff?"]
    model = ExactMiniLM()
    exact = model.embed(texts)
    assert exact.shape == (2, 384)
    assert exact.dtype == np.float32
    assert (exact * MiniLM().embed(texts)).sum(axis=1).min() > 0.998
    np.testing.assert_allclose(model.embed(texts[:1]), exact[:1], atol=1e-5)  # padding in a batch changes nothing
