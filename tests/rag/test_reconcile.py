"""The store against its ledger after a commit: what differs fails the run by name, and the next run repairs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from include.errors import DriftError
from include.rag import pipeline
from tests.rag.ingestion import Ingestion, version_store, write_corpus


@pytest.fixture
def ingestion(root: str, tmp_path: Path) -> Ingestion:
    write_corpus(tmp_path / "source", 6)
    ingestion = Ingestion(root, str(tmp_path / "source"))
    ingestion.run("run-1")
    return ingestion


@pytest.fixture
def table(ingestion: Ingestion, root: str) -> Any:
    """The store's own table, to do harm to."""
    store: Any = version_store(root)
    return store._table()


def test_a_store_that_agrees_passes(ingestion: Ingestion) -> None:
    assert pipeline.check(ingestion.prepare("run-1"))["documents_total"] == 6


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda table: table.delete("path = '002.txt'"), r"002.txt: ledger \d+ chunks .*, store nothing"),
        (lambda table: table.delete("path = '002.txt' and ordinal = 0"), r"002.txt: ledger 2 chunks .*, store 1"),
        (lambda table: table.add(table.to_arrow().slice(0, 1)), r"ledger (\d+) chunks .*, store \d+ chunks"),
        (lambda table: table.update(where="path = '002.txt'", values={"text": "tampered"}), "002.txt: its chunks"),
        (lambda table: table.update(where="path = '002.txt'", values={"vector": [0.5] * 256}), "002.txt: its chunks"),
        (lambda table: table.update(where="path = '002.txt'", values={"content_digest": "0"}), r"002.txt: ledger"),
    ],
    ids=["document lost", "chunk lost", "chunk twice", "text altered", "vector altered", "of another version"],
)  # fmt: skip
def test_whatever_differs_fails_the_check_by_name_and_the_next_run_repairs_it(
    ingestion: Ingestion, table: Any, harm: Any, message: str
) -> None:
    rows = ingestion.rows()
    harm(table)
    with pytest.raises(DriftError, match=rf"1 documents differ .* the next run repairs them: .*{message}"):
        pipeline.check(ingestion.prepare("run-1"))
    ingestion.run("run-2")
    assert ingestion.rows() == rows


def test_a_document_that_no_ledger_knows_is_removed_by_the_next_run(ingestion: Ingestion, table: Any) -> None:
    rows = ingestion.rows()
    stranger = table.to_arrow().slice(0, 1).to_pylist()[0] | {"id": "0" * 32, "doc_id": "f" * 32}
    table.add([stranger])
    with pytest.raises(DriftError, match="f{32}: ledger nothing, store 1 chunks"):
        pipeline.check(ingestion.prepare("run-1"))
    ingestion.run("run-2")
    assert ingestion.rows() == rows


@pytest.mark.parametrize("harm", ["lost", "altered"])
def test_what_differs_of_a_document_that_turned_bad_leaves_the_index_for_good(
    ingestion: Ingestion, table: Any, tmp_path: Path, harm: str
) -> None:
    (tmp_path / "source" / "002.txt").write_bytes(b"turned \x00 bad")
    assert ingestion.run("run-2")["quarantined"] == 1
    if harm == "lost":
        table.delete("path = '002.txt'")
    else:
        table.update(where="path = '002.txt'", values={"text": "tampered"})
        with pytest.raises(DriftError, match="002.txt: its chunks were altered"):
            ingestion.run("run-3")
    counts = ingestion.run("run-4")
    assert (counts["still_quarantined"], counts["documents_total"]) == (1, 5)
    assert not any(row["path"] == "002.txt" for row in ingestion.rows())
    (tmp_path / "source" / "002.txt").write_text("good again")
    assert ingestion.run("run-5")["added"] == 1
