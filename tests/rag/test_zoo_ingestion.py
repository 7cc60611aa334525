"""Every bad document there is, beside good ones: the run ends well, accounts for each, and reads none of them twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from include import storage
from include.documents.reader import Reader
from include.models.embeddings import Hashing
from tests.rag.ingestion import Ingestion, version_home, write_corpus
from tests.rag.zoo import SECRET, write_zoo


def test_a_zoo_of_bad_documents_is_accounted_for_and_read_once(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FMOPS_DOCUMENT_SECONDS", "2")
    monkeypatch.setenv("FMOPS_DOCUMENT_MEMORY_MB", "256")
    spent: list[object] = []
    read, embed = Reader.read, Hashing.embed

    def spy_read(self: Reader, data: bytes, name: str) -> Any:
        spent.append(name)
        return read(self, data, name)

    def spy_embed(self: Hashing, texts: list[str]) -> Any:
        spent.extend(texts)
        return embed(self, texts)

    monkeypatch.setattr(Reader, "read", spy_read)
    monkeypatch.setattr(Hashing, "embed", spy_embed)
    corpus = tmp_path / "source"
    write_corpus(corpus, 4)
    good = list(corpus.iterdir())
    zoo = write_zoo(corpus)
    ingestion = Ingestion(root, str(corpus), {"documents_per_shard": 20, "chunk_tokens": 200})

    counts = ingestion.run("run-1")
    bad = [name for name in zoo if zoo[name] != {"left_aside"}]
    assert counts["found"] == len(good) + len(bad)
    assert counts["found"] == counts["added"] + counts["empty"] + counts["quarantined"]
    assert counts["vanished"] == 0
    letters = dead_letters(root)
    assert len(letters) == counts["quarantined"]
    for letter in letters:
        assert letter["fault"] in zoo[letter["path"]]
        assert (letter["stage"], letter["attempt"]) == ("load", 1)
        assert letter["reason"]
        assert len(letter["content_digest"]) == 64
    aside = {letter["path"] for letter in letters}
    assert aside | ingestion.ledger().keys() == {*bad, *(f.name for f in good)}
    for name, (_, chunks) in ingestion.ledger().items():
        assert name not in zoo or ("ok" if chunks else "empty") in zoo[name]
    assert not any(SECRET in row["text"] for row in ingestion.rows())

    rows, ledger = ingestion.rows(), ingestion.ledger()
    spent.clear()
    counts = ingestion.run("run-2")
    assert spent == []
    assert (counts["found"], counts["still_quarantined"]) == (len(good) + len(bad), len(letters))
    assert (counts["unchanged"], counts["quarantined"]) == (len(ledger), 0)
    assert (ingestion.rows(), ingestion.ledger(), dead_letters(root)) == (rows, ledger, letters)


def dead_letters(root: str) -> list[dict[str, Any]]:
    return list(storage.read_jsonl(version_home(root) / "quarantine.jsonl"))
