"""What is set aside, why, for how long, and how much of it a run puts up with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from include import storage
from include.documents.reader import Reader
from include.documents.source import FolderSource
from include.errors import DocumentError, EmbeddingError, StateMovedError, ToleranceError
from include.models.embeddings import Hashing
from include.rag import pipeline
from include.rag.ledger import Ledger
from tests.rag.ingestion import Ingestion, version_home, write_corpus

TORN = '{"text": "good words"}\n{"text": \n{"text": "more words"}\n'

REFUSING = "tests.documents.odd_loaders:refuse_text"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Four good documents, one that is binary and one with a torn record."""
    folder = tmp_path / "source"
    write_corpus(folder, 4)
    (folder / "binary.txt").write_bytes(b"abc\x00def")
    (folder / "torn.jsonl").write_text(TORN)
    return folder


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The path of every document that was given to the reader."""
    names: list[str] = []
    read = Reader.read

    def spy(self: Reader, data: bytes, name: str) -> Any:
        names.append(name)
        return read(self, data, name)

    monkeypatch.setattr(Reader, "read", spy)
    return names


def letters(root: str) -> dict[str, dict[str, Any]]:
    """The dead letters of the index, by path."""
    file = version_home(root) / "quarantine.jsonl"
    return {row["path"]: row for row in storage.read_jsonl(file)}


def test_a_dead_letter_says_what_where_and_why(ingestion: Ingestion, root: str) -> None:
    counts = ingestion.run("run-1")
    assert (counts["found"], counts["added"], counts["quarantined"], counts["records_quarantined"]) == (6, 5, 1, 1)
    beside = storage.location(counts["manifest_uri"]).parent / "quarantine.jsonl"
    assert {row["path"]: row for row in storage.read_jsonl(beside)} == letters(root)
    whole, record = letters(root)["binary.txt"], letters(root)["torn.jsonl"]
    assert (whole["stage"], whole["fault"], whole["locator"], whole["attempt"]) == ("load", "not_text", None, 1)
    assert "NUL byte at offset 3" in whole["reason"]
    assert len(whole["content_digest"]) == 64
    assert (record["stage"], record["fault"], record["locator"]) == ("load", "malformed", "line 2")
    assert {row["text"] for row in ingestion.rows() if row["path"] == "torn.jsonl"} == {"good words", "more words"}


def test_what_is_set_aside_is_not_read_again_while_it_stays_the_same(
    ingestion: Ingestion, corpus: Path, root: str, tried: list[str]
) -> None:
    ingestion.run("run-1")
    before = letters(root)
    tried.clear()
    counts = ingestion.run("run-2")
    assert tried == []
    assert (counts["unchanged"], counts["still_quarantined"], counts["quarantined"]) == (5, 1, 0)
    assert letters(root) == before
    (corpus / "binary.txt").write_text("words at last")
    (corpus / "torn.jsonl").write_text('{"text": "good words"}\n')
    counts = ingestion.run("run-3")
    assert sorted(tried) == ["binary.txt", "torn.jsonl"]
    assert (counts["added"], counts["changed"], counts["still_quarantined"]) == (1, 1, 0)
    assert letters(root) == {}
    assert json.loads(storage.location(counts["manifest_uri"]).read_text())["quarantine_uri"] is None


def test_what_is_set_aside_is_tried_again_on_demand_and_under_other_limits(
    ingestion: Ingestion, root: str, tried: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ingestion.run("run-1")
    tried.clear()
    ingestion.params["replay_quarantine"] = True
    counts = ingestion.run("run-2")
    assert sorted(tried) == ["binary.txt", "torn.jsonl"]
    assert (counts["quarantined"], counts["changed"], counts["unchanged"]) == (1, 1, 4)
    assert {path: row["attempt"] for path, row in letters(root).items()} == {"binary.txt": 2, "torn.jsonl": 2}
    tried.clear()
    ingestion.params["replay_quarantine"] = False
    monkeypatch.setenv("FMOPS_DOCUMENT_SECONDS", "30")
    ingestion.run("run-3")
    assert tried == ["binary.txt"]
    assert letters(root)["binary.txt"]["attempt"] == 3


def test_a_replayed_document_that_can_be_read_leaves_the_quarantine(
    ingestion: Ingestion, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "embed_shard", _with_loader(REFUSING, pipeline.embed_shard))
        assert ingestion.run("run-1")["quarantined"] == 2
    ingestion.params["replay_quarantine"] = True
    assert ingestion.run("run-2")["added"] == 1
    assert "002.txt" in ingestion.ledger()
    assert set(letters(root)) == {"binary.txt", "torn.jsonl"}


def _with_loader(loader: str, embed_shard: Any) -> Any:
    def run(*arguments: Any) -> Any:
        original = Reader.__init__
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Reader, "__init__", lambda self, limits: original(self, limits, loader))
            return embed_shard(*arguments)

    return run


def test_two_sources_keep_their_own_letters(ingestion: Ingestion, root: str, tmp_path: Path) -> None:
    ingestion.run("run-1")
    other = tmp_path / "other"
    write_corpus(other, 1)
    (other / "bad.txt").write_bytes(b"\x00")
    Ingestion(root, str(other)).run("run-2")
    assert set(letters(root)) == {"binary.txt", "torn.jsonl", "bad.txt"}
    (other / "bad.txt").unlink()
    Ingestion(root, str(other)).run("run-3")
    assert set(letters(root)) == {"binary.txt", "torn.jsonl"}


# Tolerance


def test_none_tolerates_nothing_commits_nothing_and_keeps_the_letters(ingestion: Ingestion, root: str) -> None:
    ingestion.params["tolerate"] = "none"
    for run_id in ("run-1", "run-2"):
        with pytest.raises(ToleranceError, match=r"tolerate='none', but 2 dead letters: binary.txt: .*NUL byte"):
            ingestion.run(run_id)
        assert ingestion.rows() == []
        home = version_home(root)
        beside = ingestion.versions.home / "runs" / storage.run_key(run_id) / "quarantine.jsonl"
        assert {row["path"] for row in storage.read_jsonl(beside)} == {"binary.txt", "torn.jsonl"}
        assert not (home / "quarantine.jsonl").exists(), "a run that fails leaves no state behind"
    ingestion.params["exclude"] = ["binary.txt", "torn.jsonl"]
    assert ingestion.run("run-3")["added"] == 4


def failing_reads(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    read = FolderSource.read

    def refuse(self: FolderSource, path: str) -> bytes:
        if path == "002.txt":
            raise error
        return read(self, path)

    monkeypatch.setattr(FolderSource, "read", refuse)


@pytest.mark.parametrize("tolerate", ["bad_data", "all"])
def test_a_forbidden_document_is_its_own_fault(
    ingestion: Ingestion, root: str, tolerate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_reads(monkeypatch, PermissionError(13, "Permission denied"))
    ingestion.params["tolerate"] = tolerate
    assert ingestion.run("run-1")["quarantined"] == 2
    assert (letters(root)["002.txt"]["stage"], letters(root)["002.txt"]["fault"]) == ("read", "unreadable")
    monkeypatch.undo()
    monkeypatch.setenv("FMOPS_STORAGE_ROOT", root)
    assert ingestion.run("run-2")["added"] == 1, "what could not be read at all is tried each time"


def test_a_disk_that_fails_is_not_tolerated_as_bad_data(ingestion: Ingestion, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_reads(monkeypatch, OSError(5, "Input/output error"))
    with pytest.raises(OSError, match="Input/output error"):
        ingestion.run("run-1")
    ingestion.params["tolerate"] = "all"
    assert ingestion.run("run-2")["quarantined"] == 2


@pytest.fixture
def choking(monkeypatch: pytest.MonkeyPatch) -> None:
    """An embedder that answers NaN for one document's text."""
    embed = Hashing.embed

    def choke(self: Hashing, texts: list[str]) -> Any:
        vectors = embed(self, texts)
        bad = np.array(["word2x0" in text for text in texts])
        return np.where(bad[:, None], np.float32("nan"), vectors)

    monkeypatch.setattr(Hashing, "embed", choke)


@pytest.mark.usefixtures("choking")
def test_an_embedder_that_fails_is_not_tolerated_as_bad_data(ingestion: Ingestion) -> None:
    with pytest.raises(EmbeddingError, match="hashing-1 answered a vector of length nan"):
        ingestion.run("run-1")
    assert ingestion.rows() == []


@pytest.mark.usefixtures("choking")
def test_with_all_tolerated_only_what_cannot_be_embedded_is_set_aside(
    ingestion: Ingestion, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingestion.params["tolerate"] = "all"
    assert ingestion.run("run-1")["quarantined"] == 2
    assert set(ingestion.ledger()) == {"000.md", "001.html", "003.jsonl", "torn.jsonl"}
    letter = letters(root)["002.txt"]
    assert (letter["stage"], letter["fault"]) == ("embed", "not_embedded")
    monkeypatch.undo()
    monkeypatch.setenv("FMOPS_STORAGE_ROOT", root)
    assert ingestion.run("run-2")["added"] == 1, "the embedder may have been mended, so it is tried again"


def test_a_document_too_large_is_set_aside_without_being_read(
    ingestion: Ingestion, root: str, corpus: Path, tried: list[str]
) -> None:
    with (corpus / "huge.txt").open("wb") as file:
        file.truncate((200 << 20) + 1)
    assert ingestion.run("run-1")["quarantined"] == 2
    assert "huge.txt" not in tried
    assert letters(root)["huge.txt"]["fault"] == "size_limit"
    assert ingestion.run("run-2")["still_quarantined"] == 2


# What lasts, and what does not


def test_a_run_that_is_planned_again_comes_to_the_same_index_with_a_bad_document(
    ingestion: Ingestion, root: str
) -> None:
    first = ingestion.run("run-1")
    again = ingestion.run("run-1")
    unlike = {"chunks_embedded", "chunks_reused"}  # the parts were found again
    assert {k: v for k, v in again.items() if k not in unlike} == {k: v for k, v in first.items() if k not in unlike}
    assert Ledger(version_home(root)).pointer().version == 1
    assert letters(root)["binary.txt"]["attempt"] == 1


def test_a_missing_library_fails_the_run_and_leaves_no_trace_once_it_is_there(
    ingestion: Ingestion, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = _with_loader("tests.documents.odd_loaders:lack_library", pipeline.embed_shard)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "embed_shard", loader)
        with pytest.raises(DocumentError, match="its loader needs a library that is not installed"):
            ingestion.run("run-1")
        ingestion.params["tolerate"] = "all"
        assert ingestion.run("run-2")["quarantined"] == 2
        assert letters(root)["002.txt"]["fault"] == "unsupported"
    counts = ingestion.run("run-3")
    assert (counts["added"], counts["quarantined"]) == (1, 1)
    assert letters(root)["binary.txt"]["fault"] == "not_text"


def test_an_old_run_that_is_cleared_leaves_the_letters_of_a_later_one(
    ingestion: Ingestion, corpus: Path, root: str
) -> None:
    old = ingestion.prepare("run-1")
    ingestion.embed(old, pipeline.plan(old))
    (corpus / "binary.txt").write_bytes(b"other \x00 bytes")
    (corpus / "002.txt").write_text("changed since")
    ingestion.run("run-2")
    before = letters(root)
    with pytest.raises(StateMovedError):
        pipeline.commit(old)
    assert letters(root) == before


def test_a_document_that_another_chunker_could_not_read_is_forgotten_with_it(
    ingestion: Ingestion, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingestion.run("run-1")
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "embed_shard", _with_loader(REFUSING, pipeline.embed_shard))
        ingestion.params["chunk_tokens"] = 40
        assert ingestion.run("run-2")["quarantined"] == 2
    ingestion.params["chunk_tokens"] = 32
    ingestion.run("run-3")
    assert set(letters(root)) == {"binary.txt", "torn.jsonl"}


def test_a_full_disk_of_the_project_s_own_is_never_tolerated(
    ingestion: Ingestion, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingestion.params["tolerate"] = "all"
    config = ingestion.prepare("run-1")
    shards = pipeline.plan(config)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("include.rag.embed.write_parquet", full)
    with pytest.raises(OSError, match="No space left"):
        ingestion.embed(config, shards)
