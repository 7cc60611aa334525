"""What an ingestion takes for a source, and what in it for a document; wrong Params are refused before any work."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from include import storage
from include.documents.source import FolderSource
from include.errors import UserError
from include.rag.plan import MAX_SHARDS, make_plan
from tests.rag.ingestion import Ingestion, config_of, write_corpus


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    write_corpus(folder)
    return folder


def test_two_sources_share_an_index_and_delete_only_their_own(ingestion: Ingestion, root: str, tmp_path: Path) -> None:
    ingestion.run("run-1")
    other = tmp_path / "other"
    write_corpus(other, 2)
    counts = Ingestion(root, str(other)).run("run-2")
    assert (counts["added"], counts["deleted"], counts["documents_total"]) == (2, 0, 10)
    (other / "000.md").unlink()
    assert Ingestion(root, str(other)).run("run-3")["documents_total"] == 9


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"source": "/does/not/exist"}, "source '/does/not/exist' is not a folder"),
        ({"source": "gs://bucket/x"}, "'gs://bucket/x' is not a URI that we read"),
        ({"source": "http://example.com/"}, "'http://example.com' is not a URI that we read"),
        ({"store": "pinecone"}, "store 'pinecone' is not known; choose one of lancedb"),
        ({"embedder": "ada"}, "embedder 'ada' is not known; choose one of cohere"),
        ({"overlap_tokens": 32}, "overlap_tokens=32 must be smaller than chunk_tokens=32"),
        ({"embedder": "minilm", "chunk_tokens": 300}, "chunk_tokens=300 is more than embedder 'minilm' reads"),
        ({"chunk_tokens": 3}, "chunk_tokens=3"),
        ({"index": "No Good"}, "index='No Good'"),
        ({"tenant": "../other"}, "tenant='../other'"),
    ],
)
def test_a_wrong_param_is_one_line_before_any_work(
    ingestion: Ingestion, root: str, params: dict[str, Any], message: str
) -> None:
    ingestion.params |= params
    with pytest.raises(UserError) as error:
        ingestion.prepare("run-1")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not storage.location(root).exists()


ODD_FILES = {
    "front-matter.md": b"---\na: !!bool maybe\n---\ntext",
    "surrogate.md": b'---\ntitle: "\\ud800x"\n---\ntext',
    "charset.html": b'<meta charset="unicode_escape"><p>\\ud800</p>',
    "binary.txt": b"abc\x00def",
}


def test_one_odd_document_does_not_fail_the_documents_beside_it(ingestion: Ingestion, corpus: Path) -> None:
    for name, data in ODD_FILES.items():
        (corpus / name).write_bytes(data)
    counts = ingestion.run("run-1")
    assert counts["added"] + counts["empty"] + counts["quarantined"] == 8 + len(ODD_FILES)
    assert counts["added"] >= 8
    assert "binary.txt" not in ingestion.ledger()


def test_what_is_no_document_is_left_aside_and_counted(ingestion: Ingestion, corpus: Path, tmp_path: Path) -> None:
    os.mkfifo(corpus / "pipe.txt")
    (corpus / "loop.txt").symlink_to("loop.txt")
    (corpus / "dangling.md").symlink_to("nowhere.md")
    (corpus / "linked.md").symlink_to(tmp_path)
    (corpus / "good.md").symlink_to(corpus / "000.md")
    (corpus / ".hidden.md").write_text("hidden")
    os.close(os.open(os.fsencode(corpus) + b"/\xff.txt", os.O_CREAT))
    counts = ingestion.run("run-1")
    assert (counts["found"], counts["added"], counts["skipped"]) == (9, 9, 5)


def test_a_known_document_that_cannot_be_read_any_more_is_quarantined_and_kept(
    ingestion: Ingestion, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingestion.run("run-1")
    rows = ingestion.rows()
    read = FolderSource.read

    def refuse(self: FolderSource, path: str) -> Any:
        if path == "002.txt":
            raise PermissionError(13, "Permission denied")
        return read(self, path)

    monkeypatch.setattr(FolderSource, "read", refuse)
    (corpus / "002.txt").write_text("changed, and forbidden since")
    counts = ingestion.run("run-2")
    assert (counts["quarantined"], counts["unchanged"]) == (1, 7)
    assert ingestion.rows() == rows


def test_a_folder_that_cannot_be_listed_fails_the_run_and_deletes_nothing(
    ingestion: Ingestion, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (corpus / "sub").mkdir()
    (corpus / "sub" / "a.md").write_text("# A\n\ntext")
    ingestion.run("run-1")
    rows = ingestion.rows()
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if str(path).endswith("/sub"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError):
        ingestion.run("run-2")
    monkeypatch.undo()
    assert ingestion.rows() == rows


def test_the_project_s_own_storage_is_no_document(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = f"file://{corpus}/data"
    monkeypatch.setenv("FMOPS_STORAGE_ROOT", root)
    ingestion = Ingestion(root, str(corpus))
    assert ingestion.run("run-1")["found"] == 8
    assert ingestion.run("run-2")["unchanged"] == 8


@pytest.mark.parametrize("name", ["my notes", "sharp#", "per%20cent", "Zürich ☃"])
def test_any_folder_name_is_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    folder = tmp_path / name
    write_corpus(folder / name, 2)
    root = f"file://{folder}/store"
    monkeypatch.setenv("FMOPS_STORAGE_ROOT", root)
    assert Ingestion(root, str(folder)).run("run-1")["added"] == 2
    assert (folder / "store" / "default" / "rag" / "test").is_dir()
    for spelling in (f"file://{folder}", (folder).as_uri(), f"{folder}/../{name}/"):
        assert Ingestion(root, spelling).run("run-2")["unchanged"] == 2


def test_a_source_without_documents_is_refused_so_that_nothing_is_deleted(ingestion: Ingestion, corpus: Path) -> None:
    ingestion.run("run-1")
    before = ingestion.rows()
    for path in corpus.iterdir():
        path.unlink()
    (corpus / "only.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"holds no document that can be read; left aside: 1 \.png"):
        ingestion.run("run-2")
    assert ingestion.rows() == before


def test_patterns_choose_and_leave_out(ingestion: Ingestion, corpus: Path) -> None:
    (corpus / "guides").mkdir()
    (corpus / "guides" / "a.md").write_text("# A\n\ntext")
    (corpus / "guides" / "draft.md").write_text("# Draft\n\ntext")
    ingestion.params |= {"include": ["guides/*.md"], "exclude": ["*draft*"]}
    counts = ingestion.run("run-1")
    assert (counts["found"], counts["skipped"]) == (1, 9)
    assert set(ingestion.ledger()) == {"guides/a.md"}


def test_the_names_of_the_shards_fit_an_xcom_however_many_documents(ingestion: Ingestion, corpus: Path) -> None:
    write_corpus(corpus, MAX_SHARDS + 50)
    ingestion.params["documents_per_shard"] = 1
    plan = make_plan(config_of(ingestion.prepare("run-1")))
    assert len(plan.shards) <= MAX_SHARDS
    assert len(json.dumps(plan.shards)) < 4096


@pytest.mark.parametrize(("error", "status"), [(PermissionError(13, "no"), "quarantined"), (OSError(5, "EIO"), None)])
def test_a_file_that_cannot_be_looked_at_is_not_deleted_from_the_index(
    ingestion: Ingestion, error: OSError, status: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingestion.run("run-1")
    rows = ingestion.rows()
    look, read = os.stat, FolderSource.read

    def refuse(path: Any, *rest: Any, **named: Any) -> Any:
        if str(path).endswith("002.txt"):
            raise error
        return look(path, *rest, **named)

    def refuse_read(self: FolderSource, path: str) -> Any:
        if path == "002.txt":
            raise error
        return read(self, path)

    monkeypatch.setattr("include.documents.source.os.stat", refuse)
    monkeypatch.setattr(FolderSource, "read", refuse_read)
    monkeypatch.setattr(FolderSource, "digest", refuse_read)
    if status is None:
        with pytest.raises(OSError, match="EIO"):
            ingestion.run("run-2")
    else:
        assert ingestion.run("run-2")[status] == 1
    monkeypatch.undo()
    assert ingestion.rows() == rows


def test_params_too_long_to_hand_on_are_refused(ingestion: Ingestion, root: str) -> None:
    ingestion.params["exclude"] = ["\u00e9" * 100] * 12
    with pytest.raises(UserError, match="source, golden, include and exclude take .* bytes .*, at most 4,000"):
        ingestion.prepare("run-1")
    assert not storage.location(root).exists()
    ingestion.params["exclude"] = ["e" * 100] * 12
    assert len(json.dumps(ingestion.prepare("run-1"))) < 4096


def test_the_storage_root_itself_is_no_source(root: str) -> None:
    storage.write_bytes(storage.location(root) / "notes.md", b"# Notes")
    with pytest.raises(UserError, match="is the storage root itself, where runs write: name another folder"):
        Ingestion(root, root).prepare("run-1")
