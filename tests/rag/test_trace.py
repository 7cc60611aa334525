"""The ledger answers which version of which source a chunk is from, and which run put it there."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from include.errors import DriftError, UserError
from include.rag.search import search
from include.rag.trace import main, trace
from tests.rag.ingestion import Ingestion


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a.md").write_text("# Amber\n\nfirst words")
    (folder / "b.md").write_text("# Basalt\n\nother words")
    return folder


def chunk_of(question: str) -> str:
    return search(question, index="test", k=1)[0].id


def test_a_chunk_leads_to_its_document_its_run_and_what_was_before(ingestion: Ingestion, corpus: Path) -> None:
    ingestion.run("run-1")
    (corpus / "a.md").write_text("# Amber\n\nsecond words, changed")
    ingestion.run("run-2")
    origin = trace(chunk_of("second amber changed"), index="test")
    sha = hashlib.sha256((corpus / "a.md").read_bytes()).hexdigest()
    assert (origin.entry.path, origin.entry.content_digest, origin.entry.run_id) == ("a.md", sha, "run-2")
    assert (origin.index_version, origin.ledger_version) == ("v0001", 2)
    assert [(number, one.run_id) for number, one in origin.history] == [(1, "run-1"), (2, "run-2")]
    assert origin.history[0][1].content_digest != sha
    assert origin.chunk["run_id"] == "run-2"
    assert Path(origin.manifest_uri.removeprefix("file://")).exists()
    untouched = trace(chunk_of("basalt other"), index="test")
    assert [(number, one.run_id) for number, one in untouched.history] == [(1, "run-1")]


def test_the_command_prints_it_and_says_in_one_line_what_is_wrong(
    ingestion: Ingestion, capsys: pytest.CaptureFixture[str]
) -> None:
    ingestion.run("run-1")
    assert main([chunk_of("amber"), "--index", "test"]) == 0
    printed = capsys.readouterr().out
    assert "source/a.md" in printed and "put there by  run run-1" in printed and "ledger 1: " in printed
    assert main(["0" * 32, "--index", "test"]) == 2
    assert "the live v0001 of index 'test' holds no chunk" in capsys.readouterr().err
    with pytest.raises(UserError, match="index 'nowhere' of tenant 'default' .* has no live version"):
        trace("0" * 32, index="nowhere")


def test_a_chunk_that_the_ledger_does_not_know_is_drift(ingestion: Ingestion) -> None:
    ingestion.run("run-1")
    chunk = chunk_of("amber")
    rows = [row for row in ingestion.rows() if row["id"] == chunk]
    ingestion.store()._table().update(where=f"id = '{chunk}'", values={"content_digest": "0" * 64})
    assert rows
    with pytest.raises(DriftError, match="the ledger does not know chunk"):
        trace(chunk, index="test")
