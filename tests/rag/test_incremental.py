"""What an unchanged, touched, renamed or edited document costs: a look at its stamp, a read, or what is new in it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from include import storage
from include.documents import source
from include.documents.reader import Reader
from include.documents.source import FolderSource
from include.errors import DriftError
from include.models.embeddings import Hashing
from include.rag import pipeline
from include.rag.plan import read_plan
from include.rag.work import read_work
from tests.rag.ingestion import Ingestion, config_of, version_home, version_store, write_corpus

COUNT = 8


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    write_corpus(folder, COUNT)
    return folder


@pytest.fixture
def ingestion(root: str, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> Ingestion:
    """One whose files have rested for a minute when it lists them."""
    start = time.time()
    monkeypatch.setattr(source.time, "time", lambda: start + 60)
    return Ingestion(root, str(corpus))


class Costs:
    """What runs did to documents since reset(): opened, parsed, embedded."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.parsed: list[str] = []
        self.embedded: list[str] = []

    def reset(self) -> None:
        self.__init__()  # type: ignore[misc]


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> Costs:
    costs = Costs()
    read, digest, parse, embed = FolderSource.read, FolderSource.digest, Reader.read, Hashing.embed

    def spy_read(self: FolderSource, path: str) -> Any:
        costs.opened.append(path)
        return read(self, path)

    def spy_digest(self: FolderSource, path: str) -> Any:
        costs.opened.append(path)
        return digest(self, path)

    def spy_parse(self: Reader, data: bytes, name: str) -> Any:
        costs.parsed.append(name)
        return parse(self, data, name)

    def spy_embed(self: Hashing, texts: list[str]) -> Any:
        costs.embedded.extend(texts)
        return embed(self, texts)

    monkeypatch.setattr(FolderSource, "read", spy_read)
    monkeypatch.setattr(FolderSource, "digest", spy_digest)
    monkeypatch.setattr(Reader, "read", spy_parse)
    monkeypatch.setattr(Hashing, "embed", spy_embed)
    return costs


def test_an_unchanged_document_is_not_opened(ingestion: Ingestion, costs: Costs) -> None:
    ingestion.run("run-1")
    assert sorted(costs.opened) == sorted(ingestion.ledger())
    costs.reset()
    assert ingestion.run("run-2")["unchanged"] == COUNT
    assert (costs.opened, costs.parsed, costs.embedded) == ([], [], [])


def test_an_unchanged_object_is_not_opened(s3_root: str, monkeypatch: pytest.MonkeyPatch, costs: Costs) -> None:
    monkeypatch.setenv("FMOPS_STORAGE_ROOT", s3_root)
    home = storage.location(s3_root) / "incoming"
    for n in range(3):
        storage.write_bytes(home / "deep" / f"{n}.txt", f"words of {n}".encode())
    ingestion = Ingestion(s3_root, str(home))
    ingestion.run("run-1")
    costs.reset()
    storage.write_bytes(home / "deep" / "1.txt", b"other words")
    counts = ingestion.run("run-2")
    assert (counts["changed"], counts["unchanged"]) == (1, 2)
    assert set(costs.opened) == {"deep/1.txt"}


def test_a_touched_document_is_opened_once_and_then_known(ingestion: Ingestion, corpus: Path, costs: Costs) -> None:
    ingestion.run("run-1")
    costs.reset()
    os.utime(corpus / "002.txt", (1, 1))
    assert ingestion.run("run-2")["unchanged"] == COUNT
    assert (costs.opened, costs.parsed) == (["002.txt"], [])
    costs.reset()
    assert ingestion.run("run-3")["unchanged"] == COUNT
    assert costs.opened == []


def test_a_lost_cache_of_stamps_costs_reading_and_nothing_else(ingestion: Ingestion, root: str, costs: Costs) -> None:
    ingestion.run("run-1")
    costs.reset()
    (version_home(root) / "stamps.parquet").unlink()
    assert ingestion.run("run-2")["unchanged"] == COUNT
    assert len(costs.opened) == COUNT
    assert (costs.parsed, costs.embedded) == ([], [])


def test_a_renamed_document_is_parsed_and_not_embedded(ingestion: Ingestion, corpus: Path, costs: Costs) -> None:
    ingestion.run("run-1")
    chunks = [row["text"] for row in ingestion.rows() if row["path"] == "006.txt"]
    costs.reset()
    # The title of a text is its file's name, and part of what is embedded: so it moves to another folder.
    (corpus / "archive").mkdir()
    (corpus / "006.txt").rename(corpus / "archive" / "006.txt")
    counts = ingestion.run("run-2")
    assert (counts["added"], counts["deleted"], counts["unchanged"]) == (1, 1, COUNT - 1)
    assert (counts["chunks_embedded"], counts["chunks_reused"]) == (0, len(chunks))
    assert (costs.parsed, costs.embedded) == (["archive/006.txt"], [])
    moved = [row["text"] for row in ingestion.rows() if row["path"] == "archive/006.txt"]
    assert sorted(moved) == sorted(chunks)


def test_of_an_edited_document_only_what_is_new_is_embedded(ingestion: Ingestion, corpus: Path, costs: Costs) -> None:
    paragraphs = [" ".join(f"w{p}x{n}" for n in range(25)) for p in range(6)]
    (corpus / "long.txt").write_text("\n\n".join(paragraphs))
    ingestion.params["overlap_tokens"] = 0
    ingestion.run("run-1")
    costs.reset()
    paragraphs[3] = "altogether " + " ".join(f"new{n}" for n in range(24))
    (corpus / "long.txt").write_text("\n\n".join(paragraphs))
    counts = ingestion.run("run-2")
    assert counts["changed"] == 1
    assert costs.embedded == [f"long\n{paragraphs[3]}"]
    assert (counts["chunks_embedded"], counts["chunks_reused"]) == (1, 5)
    assert sum("altogether" in row["text"] for row in ingestion.rows()) == 1
    assert not any("w3x" in row["text"] for row in ingestion.rows())


def test_a_reused_vector_is_the_one_that_embedding_would_make(
    ingestion: Ingestion, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingestion.run("run-1")
    (corpus / "sub").mkdir()
    (corpus / "002.txt").rename(corpus / "sub" / "002.txt")
    ingestion.run("run-2")
    uri = (tmp_path / "fresh").as_uri()
    monkeypatch.setenv("FMOPS_STORAGE_ROOT", uri)
    fresh = Ingestion(uri, str(corpus))
    fresh.run("run-1")
    assert ingestion.rows() == fresh.rows()


def test_one_document_in_a_hundred_changed_costs_that_one(ingestion: Ingestion, corpus: Path, costs: Costs) -> None:
    write_corpus(corpus, 100)
    ingestion.params["documents_per_shard"] = 50
    ingestion.run("run-1")
    costs.reset()
    (corpus / "042.txt").write_text("an altogether different text")
    counts = ingestion.run("run-2")
    assert (counts["changed"], counts["unchanged"], counts["chunks_written"]) == (1, 99, 1)
    assert (set(costs.opened), costs.parsed, len(costs.embedded)) == ({"042.txt"}, ["042.txt"], 1)


def test_an_object_put_back_while_a_run_read_another_is_seen(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMOPS_STORAGE_ROOT", s3_root)
    home = storage.location(s3_root) / "incoming"
    for n in range(2):
        storage.write_bytes(home / f"{n}.txt", f"words of {n}".encode())
    ingestion = Ingestion(s3_root, str(home))
    config = ingestion.prepare("run-1")
    shards = pipeline.plan(config)
    storage.write_bytes(home / "1.txt", b"a wrong release")
    ingestion.embed(config, shards)
    pipeline.commit(config)
    pipeline.check(config)
    storage.write_bytes(home / "1.txt", b"words of 1")
    assert ingestion.run("run-2")["changed"] == 1
    assert {row["text"] for row in ingestion.rows()} == {"words of 0", "words of 1"}


def test_a_vector_that_was_altered_in_the_store_is_not_reused(ingestion: Ingestion, root: str, corpus: Path) -> None:
    ingestion.run("run-1")
    store: Any = version_store(root)
    store._table().update(where="path = '006.txt'", values={"vector": [1.0] + [0.0] * 255})
    (corpus / "copy").mkdir()
    (corpus / "copy" / "006.txt").write_bytes((corpus / "006.txt").read_bytes())
    with pytest.raises(DriftError, match="006.txt: its chunks were altered"):
        ingestion.run("run-2")
    copied = [row for row in ingestion.rows() if row["path"] == "copy/006.txt"]
    assert copied
    assert all(row["vector"][0] != 1.0 for row in copied)


def test_a_part_is_closed_before_its_files_are_too_large(
    ingestion: Ingestion, corpus: Path, costs: Costs, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingestion.params["documents_per_shard"] = 50
    largest = max(path.stat().st_size for path in corpus.iterdir())
    monkeypatch.setattr("include.rag.embed.BYTES_PER_PART", largest)
    config = ingestion.prepare("run-1")
    ingestion.embed(config, pipeline.plan(config))
    work = read_work(config_of(config), read_plan(config_of(config)))
    assert len(work.parts) > 1
    assert len(work.stored) == COUNT
