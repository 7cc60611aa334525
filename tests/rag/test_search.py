"""Search over an index, its fusion, its tenants, the LangChain retriever and the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.errors import UserError
from include.rag import ask
from include.rag.retriever import IndexRetriever
from include.rag.search import RRF_K, fuse, reciprocal_ranks, search
from include.rag.stores import Hit
from include.storage import location
from tests.rag.ingestion import Ingestion


def hit(key: str) -> Hit:
    row = dict.fromkeys(("text", "title", "path", "locator", "source", "doc_id"), key)
    return Hit(id=key, row={**row, "id": key, "headings": ["h"], "start": 3, "end": 7, "page": None})


@pytest.fixture
def index(root: str, tmp_path: Path) -> Ingestion:
    source = tmp_path / "source"
    source.mkdir()
    (source / "cats.md").write_text("# Cats\n\nCats sleep all day.\n\n## Food\n\nThey eat fish and chicken.\n")
    (source / "dogs.md").write_text("# Dogs\n\nDogs bark at the postman.\n")
    ingestion = Ingestion(root, str(source))
    ingestion.run("run-1")
    return ingestion


def test_the_right_passage_comes_first_with_its_place(index: Ingestion) -> None:
    passages = search("what fish do they eat", index="test", k=2)
    best = passages[0]
    assert (best.path, best.headings[-1], best.rank_full_text) == ("cats.md", "Food", 1)
    assert len(passages) == 2


def test_the_news_of_a_source_is_searched_for_and_found_or_not(index: Ingestion) -> None:
    source = Path(index.source)
    (source / "dogs.md").unlink()
    (source / "cats.md").write_text("# Cats\n\nCats purr.\n")
    (source / "birds.md").write_text("# Birds\n\nBirds migrate southwards.\n")
    index.run("run-2")
    assert search("migrate southwards", index="test")[0].path == "birds.md"
    found = search("postman fish chicken purr", index="test", k=10)
    assert {passage.path for passage in found} == {"birds.md", "cats.md"}
    assert not any("fish" in passage.text for passage in found)


def test_filters_narrow_and_cannot_widen_to_another_tenant(index: Ingestion) -> None:
    assert {p.path for p in search("cats dogs", index="test", filters={"path": "dogs.md"})} == {"dogs.md"}
    assert search("cats", index="test", filters={"tenant": "other"})[0].path == "cats.md"
    with pytest.raises(UserError, match="index 'test' of tenant 'other' below .* has no live version"):
        search("cats", index="test", tenant="other")


def test_one_side_alone_is_asked_where_that_is_wanted(index: Ingestion, root: str) -> None:
    words = search("fish chicken", index="test", mode="full_text")
    assert [(p.path, p.rank_full_text, p.rank_dense) for p in words] == [("cats.md", 1, None)]
    assert words[0].score == pytest.approx(1 / (RRF_K + 1))
    meaning = search("fish chicken", index="test", mode="dense", k=10)
    assert [p.rank_dense for p in meaning] == [1, 2, 3]
    assert {p.rank_full_text for p in meaning} == {None}
    both = search("fish chicken", index="test", k=10)
    assert both == search("fish chicken", index="test", mode="hybrid", k=10)
    assert (both[0].rank_full_text, both[0].rank_dense) == (
        1,
        meaning.index(next(p for p in meaning if p.id == both[0].id)) + 1,
    )


def test_a_search_by_words_alone_embeds_nothing(index: Ingestion, root: str) -> None:
    def events() -> int:
        return len(list((location(root) / "default" / "usage").rglob("*.jsonl")))

    before = events()
    search("fish", index="test", mode="full_text")
    assert events() == before
    search("fish", index="test", mode="dense")
    assert events() == before + 1


def test_an_unknown_mode_is_refused(index: Ingestion) -> None:
    with pytest.raises(UserError, match="mode 'fuzzy' is not known; choose one of hybrid, full_text, dense"):
        search("cats", index="test", mode="fuzzy")  # type: ignore[arg-type]


@pytest.mark.parametrize(("question", "k"), [("", 5), ("   ", 5), ("cats", 0)])
def test_a_search_for_nothing_is_refused(index: Ingestion, question: str, k: int) -> None:
    with pytest.raises(UserError, match="a search needs a question and k >= 1"):
        search(question, index="test", k=k)


def test_fusion_is_the_sum_of_reciprocal_ranks() -> None:
    passages = fuse([hit("a"), hit("b")], [hit("b"), hit("c")])
    assert [p.id for p in passages] == ["b", "a", "c"]
    assert passages[0].score == pytest.approx(1 / (RRF_K + 2) + 1 / (RRF_K + 1))
    assert (passages[1].rank_full_text, passages[1].rank_dense) == (1, None)
    assert (passages[1].start, passages[1].end, passages[1].page) == (3, 7, None)


def test_a_list_given_twice_counts_twice() -> None:
    assert reciprocal_ranks([["a"], ["b"], ["b"]]) == {"a": 1 / (RRF_K + 1), "b": 2 / (RRF_K + 1)}
    assert reciprocal_ranks([]) == {}


ids = st.lists(st.sampled_from("abcdefgh"), unique=True)


@given(ids, ids)
def test_fusion_loses_nothing_repeats_nothing_and_is_sorted(left: list[str], right: list[str]) -> None:
    passages = fuse(map(hit, left), map(hit, right))
    assert sorted(p.id for p in passages) == sorted(set(left) | set(right))
    assert [p.score for p in passages] == sorted((p.score for p in passages), reverse=True)


@given(ids)
def test_fusing_a_list_with_itself_keeps_its_order(order: list[str]) -> None:
    assert [p.id for p in fuse(map(hit, order), map(hit, order))] == order


def test_the_retriever_gives_langchain_documents(index: Ingestion) -> None:
    documents = IndexRetriever(index="test", k=1).invoke("who barks at the postman")
    assert documents[0].page_content == "Dogs bark at the postman."
    assert documents[0].metadata["path"] == "dogs.md"


def test_ask_prints_passages_with_scores_and_sources(index: Ingestion, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask.main(["who barks?", "--index", "test"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("1. Dogs")
    assert "dogs.md" in shown
    assert "score 0.0" in shown


def test_ask_reads_the_question_from_the_environment(
    index: Ingestion, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("Q", 'who "barks"; $(rm -rf /) `x`?')
    assert ask.main(["--index", "test"]) == 0
    assert "Dogs" in capsys.readouterr().out


def test_ask_says_in_one_line_what_is_missing(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask.main(["anything"]) == 2
    captured = capsys.readouterr()
    assert "index 'docs' of tenant 'default'" in captured.err
    assert captured.err.count("\n") == 1
