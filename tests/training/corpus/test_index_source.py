"""A corpus of what an ingestion indexed, listed from the ledger that the ingestion itself wrote."""

from __future__ import annotations

from pathlib import Path

from include.documents.source import content_digest
from tests.rag.ingestion import Ingestion
from tests.training.corpus.curation import Curation, write_texts
from tests.training.corpus.texts import english


def test_a_corpus_follows_the_ingestions_of_an_index(root: str, tmp_path: Path) -> None:
    texts = {f"{number}.md": f"# Title {number}\n\n{english(number)}" for number in range(5)}
    write_texts(tmp_path / "docs", texts)
    ingestion = Ingestion(root, str(tmp_path / "docs"))
    curation = Curation(root, [{"name": "handbook", "uri": "test", "kind": "index", "licence": "internal"}])
    ingestion.run("run-1")
    first = curation.make_listing()
    assert (first.units, curation.make_listing().digest) == (5, first.digest)

    (tmp_path / "docs" / "1.md").unlink()
    texts["2.md"] = english(20)
    write_texts(tmp_path / "docs", {"2.md": texts["2.md"]})
    assert curation.make_listing().digest == first.digest, "nothing was ingested since"

    ingestion.run("run-2")
    assert curation.make_listing().digest != first.digest
    curation.run()
    assert {row["path"]: row["text"] for row in curation.rows()} == {
        path: text for path, text in texts.items() if path != "1.md"
    }
    assert {(row["source"], row["licence"]) for row in curation.rows()} == {("handbook", "internal")}
    digests = {path: digest for path, (digest, _) in ingestion.ledger().items()}
    assert digests == {path: content_digest(texts[path].encode()) for path in digests}
