"""The deletion guard: when it asks, what it shows, whose answer it takes, and what becomes of the index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from include.errors import StateMovedError, UserError
from include.rag import pipeline
from include.rag.config import IngestConfig
from include.rag.deletions import FEW, KEEP, SHOWN, approved, evidence, settle, settled, visible
from tests.rag.ingestion import Ingestion, config_of, write_corpus

COUNT = 20
LIST = "file:///runs/run-1/plan/deleted.jsonl"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    write_corpus(folder, COUNT)
    return folder


def config(root: str = "memory://guard", **values: Any) -> IngestConfig:
    known = {"root": root, "tenant": "default", "use_case": "test", "run_id": "run-1", "index": "handbook"}
    known |= {"source": "s3://bucket/handbook", "embedder": "hashing", "store": "lancedb"}
    return IngestConfig(**{**known, "chunk_tokens": 32, "overlap_tokens": 4, "documents_per_shard": 3, **values})


def gone(*paths: str) -> list[tuple[str, str]]:
    return [(f"id of {path}", path) for path in paths]


def many(number: int) -> list[tuple[str, str]]:
    return gone(*(f"{n:03d}.md" for n in range(number)))


def ask(root: str, deleted: list[tuple[str, str]], **values: Any) -> dict[str, Any]:
    found = evidence(config(root, **values), deleted, indexed=max(1, len(deleted)), list_uri=LIST)
    assert found["ask"]
    return found


def answer(option: str, user: str | None = "ann") -> dict[str, Any]:
    by = {"id": user, "name": user} if user else None
    return {"chosen_options": [option], "params_input": {}, "responded_by_user": by}


class TestWhenItAsks:
    @pytest.mark.parametrize(
        ("deletions", "indexed", "percent", "asks"),
        [
            (10, 100, 10, False),
            (11, 100, 10, True),
            (FEW - 1, FEW, 10, False),
            (FEW, FEW, 10, True),
            (FEW, 1000, 0, True),
            (100, 100, 100, False),
            (0, 0, 0, False),
        ],
    )
    def test_more_than_the_share_and_more_than_a_few(
        self, root: str, deletions: int, indexed: int, percent: float, asks: bool
    ) -> None:
        found = evidence(config(root, max_deleted_percent=percent), many(deletions), indexed=indexed, list_uri=LIST)
        assert found["ask"] is asks
        if not asks:
            assert found["delete"] is True

    @pytest.mark.parametrize(("policy", "deletes"), [("keep", False), ("delete", True)])
    def test_unattended_it_does_not_ask(self, root: str, policy: str, deletes: bool) -> None:
        run = config(root, on_many_deletions=policy)
        found = evidence(run, many(20), indexed=20, list_uri=LIST)
        assert (found["ask"], found["delete"]) == (False, deletes)
        decision = settle(run, found, None)
        assert (decision["deleted"], decision["held"]) == ((20, 0) if deletes else (0, 20))
        assert f"on_many_deletions='{policy}'" in decision["why"]

    def test_the_same_list_again_is_asked_about_as_before_in_whatever_order_it_comes(self, root: str) -> None:
        assert ask(root, many(9)) == ask(root, many(9)[::-1])

    def test_another_list_of_the_same_run_is_kept_unasked_and_one_of_another_run_is_asked_about(
        self, root: str
    ) -> None:
        ask(root, many(9))
        found = evidence(config(root), many(10), indexed=20, list_uri=LIST)
        assert (found["ask"], found["delete"]) == (False, False)
        assert "asked about another list before" in found["why"]
        assert ask(root, many(10), run_id="run-2")["ask"]

    @pytest.mark.parametrize(
        ("name", "value"),
        [("max_deleted_percent", 101), ("on_many_deletions", "maybe"), ("answer_hours", 0), ("answer_hours", 721)],
    )
    def test_a_wrong_param_is_one_line(self, root: str, corpus: Path, name: str, value: Any) -> None:
        with pytest.raises(UserError, match=rf"^{name}='?{value}'?: .*$"):
            Ingestion(root, str(corpus), {name: value}).prepare("run-1")


class TestWhatItShows:
    def test_numbers_share_source_first_names_and_where_all_are(self, root: str) -> None:
        found = ask(root, many(30)[::-1], max_deleted_percent=2.5, answer_hours=0.5)
        assert found["subject"].startswith("Delete 30 of 30 documents from index handbook? (list ")
        shown = [f"```\n{n:03d}.md\n```" for n in range(SHOWN)]
        assert "\n\n".join(shown) in found["body"]
        for text in ("s3://bucket/handbook", "2.5 %", "first 20 by path", "All 30", LIST, "within 0.5 hours"):
            assert text in found["body"]

    @given(st.lists(st.text(min_size=1, max_size=300), min_size=FEW, max_size=40, unique=True))
    def test_no_name_is_markup_and_every_question_fits_into_an_xcom(self, names: list[str]) -> None:
        hostile = ["`" * 7, "``` \n# Click\n", "[a](https://evil.example)", "![x](//e)", "www.evil.example", "<b>"]
        found = ask(f"memory://{id(names)}", gone(*names, *hostile), source="s3://b/`````\n<script>", run_id=str(names))
        assert len(json.dumps(found).encode()) < 4000
        tokens = MarkdownIt("gfm-like").parse(found["body"])
        assert {token.type for token in tokens} == {"paragraph_open", "inline", "paragraph_close", "fence"}
        prose = [child for token in tokens for child in token.children or []]
        assert {child.type for child in prose} <= {"text", "softbreak"}
        blocks = [token.content.splitlines() for token in tokens if token.type == "fence"]
        assert {len(block) for block in blocks} == {1}
        assert 2 < len(blocks) <= 2 + SHOWN

    def test_long_names_leave_out_their_middle_and_the_last_of_them(self, root: str) -> None:
        names = sorted(f"{n:02d}/" + "\N{SNOWMAN}" * 500 + f"/{n:02d}.md" for n in range(30))
        found = ask(root, gone(*names))
        assert len(json.dumps(found)) < 4000
        shown = [line for line in found["body"].splitlines() if line.endswith(".md")]
        assert 0 < len(shown) < SHOWN
        assert f"The first {len(shown)} by path:" in found["body"]
        for line, name in zip(shown, names, strict=False):
            assert (line[:3], line[-6:]) == (name[:3], name[-6:])
            assert len(line) < 110

    @pytest.mark.parametrize(
        ("name", "shown"),
        [
            ("a b/\N{SNOWMAN}.md", "a b/\N{SNOWMAN}.md"),
            ("a\nb\r\t\x00", "a\\nb\\r\\t\\x00"),
            ("a\u202egpj.exe", "a\\u202egpj.exe"),
            ("a\udc80\u2028", "a\\udc80\\u2028"),
        ],
    )
    def test_a_name_stays_on_its_line_and_hides_nothing(self, name: str, shown: str) -> None:
        assert visible(name) == shown


class TestWhoseAnswerItTakes:
    def test_approved(self, root: str) -> None:
        found = ask(root, many(9))
        decision = settle(config(root), found, answer(found["options"][0]))
        assert (decision["delete"], decision["answered_by"]) == (True, "ann")
        assert approved(config(root), [doc_id for doc_id, _ in many(9)[::-1]]) is True

    @pytest.mark.parametrize(
        ("given", "why"),
        [
            (answer(KEEP), "ann answered 'Keep them'"),
            (answer(KEEP, user=None), "nobody answered within 24 hours"),
            (None, "the question was not answered"),
        ],
    )
    def test_refused_or_unanswered(self, root: str, given: Any, why: str) -> None:
        decision = settle(config(root), ask(root, many(9)), given)
        assert (decision["why"], decision["deleted"], decision["held"]) == (why, 0, 9)
        assert approved(config(root), [doc_id for doc_id, _ in many(9)]) is False

    def test_an_answer_about_another_list_is_refused(self, root: str, caplog: pytest.LogCaptureFixture) -> None:
        old = ask(root, many(9))["options"][0]
        found = ask(root, many(10), run_id="run-2")
        decision = settle(config(root, run_id="run-2"), found, answer(old))
        assert (decision["delete"], decision["held"]) == (False, 10)
        line = f"kept: refused: the answer {old!r} of ann is about another list, {found['options'][0]!r} was asked for"
        assert caplog.messages == [line]

    def test_an_answer_does_not_count_where_nothing_was_asked(self, root: str) -> None:
        run = config(root, on_many_deletions="keep")
        option = ask(root, many(9))["options"][0]
        decision = settle(run, evidence(run, many(9), indexed=9, list_uri=LIST), answer(option))
        assert decision["delete"] is False

    def test_what_was_decided_about_one_list_does_not_delete_another(self, root: str) -> None:
        found = ask(root, many(9))
        settle(config(root), found, answer(found["options"][0]))
        with pytest.raises(StateMovedError, match="not those that were decided on"):
            approved(config(root), [doc_id for doc_id, _ in many(10)])

    def test_without_a_decision_only_nothing_may_be_deleted(self, root: str) -> None:
        assert approved(config(root), []) is True
        with pytest.raises(FileNotFoundError):
            approved(config(root), ["id"])

    def test_settling_again_comes_to_the_same(self, root: str) -> None:
        found = ask(root, many(9))
        decision = settle(config(root), found, answer(found["options"][0]))
        assert settle(config(root), found, answer(found["options"][0])) == decision == settled(config(root))


class TestWhatBecomesOfTheIndex:
    """A run over a source that has lost half of its documents, and gained one."""

    def run(self, ingestion: Ingestion, run_id: str, option: int | None = None) -> dict[str, Any]:
        values = ingestion.prepare(run_id)
        ingestion.embed(values, pipeline.plan(values))
        found = pipeline.guard(values)
        pipeline.settle(values, found, None if option is None else answer(found["options"][option]))
        pipeline.commit(values)
        ingestion.go_live(values)
        return pipeline.check(values)

    @pytest.fixture
    def halved(self, ingestion: Ingestion, corpus: Path) -> Ingestion:
        ingestion.params["on_many_deletions"] = "ask"
        self.run(ingestion, "run-1")
        for n in range(COUNT // 2):
            next(corpus.glob(f"{n:03d}.*")).unlink()
        (corpus / "new.md").write_text("# New\n\nthe newest of all\n")
        return ingestion

    def test_approved_they_leave_it(self, halved: Ingestion) -> None:
        counts = self.run(halved, "run-2", option=0)
        assert (counts["deleted"], counts["deletions_held"], counts["added"]) == (10, 0, 1)
        assert len(halved.ledger()) == 11
        assert len({row["path"] for row in halved.rows()}) == 11

    def test_refused_they_stay_the_rest_is_written_and_the_next_run_asks_again(self, halved: Ingestion) -> None:
        before = halved.ledger()
        counts = self.run(halved, "run-2", option=1)
        assert (counts["deleted"], counts["deletions_held"], counts["added"]) == (0, 10, 1)
        assert counts["documents_total"] == COUNT + 1
        assert before.items() < halved.ledger().items()
        assert len({row["path"] for row in halved.rows()}) == COUNT + 1
        counts = self.run(halved, "run-3", option=0)
        assert (counts["deleted"], counts["deletions_held"]) == (10, 0)
        assert len(halved.ledger()) == 11

    def test_a_run_that_holds_them_is_no_news_of_the_index_where_nothing_else_changed(self, halved: Ingestion) -> None:
        self.run(halved, "run-2", option=1)
        rows, ledger = halved.rows(), halved.ledger()
        assert self.run(halved, "run-3", option=1)["deletions_held"] == 10
        assert (halved.rows(), halved.ledger()) == (rows, ledger)

    def test_planned_again_after_its_commit_it_comes_to_the_same_question(self, halved: Ingestion) -> None:
        values = halved.prepare("run-2")
        halved.embed(values, pipeline.plan(values))
        found = pipeline.guard(values)
        pipeline.settle(values, found, answer(found["options"][0]))
        committed = pipeline.commit(values)
        halved.embed(values, pipeline.plan(values))
        assert pipeline.guard(values) == found
        assert pipeline.commit(values) == committed

    def test_chunks_that_no_ledger_knows_are_deleted_unasked(
        self, halved: Ingestion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They were never documents of the index: a run that died in its commit left them."""
        values = halved.prepare("run-2")
        halved.embed(values, pipeline.plan(values))
        pipeline.settle(values, pipeline.guard(values), None)
        with monkeypatch.context() as patch:
            patch.setattr("include.rag.ledger.Ledger.commit", lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                pipeline.commit(values)
        (Path(config_of(values).source.removeprefix("file://")) / "new.md").unlink()
        assert "new.md" in {row["path"] for row in halved.rows()}
        counts = self.run(halved, "run-3", option=1)
        assert (counts["deletions_held"], counts["documents_total"]) == (10, COUNT)
        assert "new.md" not in {row["path"] for row in halved.rows()}


def test_the_list_that_is_named_holds_every_document(root: str, corpus: Path) -> None:
    ingestion = Ingestion(root, str(corpus), {"on_many_deletions": "ask"})
    ingestion.run("run-1")
    for file in sorted(corpus.iterdir())[:8]:
        file.unlink()
    values = ingestion.prepare("run-2")
    pipeline.plan(values)
    body = pipeline.guard(values)["body"]
    [uri] = [line for line in body.splitlines() if line.startswith("file:") and line.endswith(".jsonl")]
    listed = [json.loads(line)["path"] for line in Path(uri.removeprefix("file://")).read_text().splitlines()]
    assert len(listed) == 8
    assert not set(listed) & {file.name for file in corpus.iterdir()}
