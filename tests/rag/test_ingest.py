"""An ingestion from end to end without Airflow: what changes, what does not, and what a crash may cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from include import storage
from include.contracts import IngestionCounts
from include.errors import DriftError, StateMovedError
from include.models.embeddings import Hashing
from include.rag import embed, pipeline
from include.rag.ledger import Ledger
from tests.rag.ingestion import Ingestion, config_of, version_home, version_store, write_corpus


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    write_corpus(folder)
    return folder


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every text that was embedded."""
    texts: list[str] = []
    original = Hashing.embed

    def spy(self: Hashing, batch: list[str]) -> Any:
        texts.extend(batch)
        return original(self, batch)

    monkeypatch.setattr(Hashing, "embed", spy)
    yield texts


def store_files(root: str) -> set[str]:
    home = version_home(root)
    return {str(path) for path in (home / "lancedb").rglob("*")} | {str(p) for p in (home / "ledger").rglob("*")}


def test_a_cold_run_indexes_every_document(ingestion: Ingestion, corpus: Path) -> None:
    counts = ingestion.run("run-1")
    assert (counts["found"], counts["added"], counts["documents_total"]) == (8, 8, 8)
    assert counts["chunks_written"] == counts["chunks_total"] == len(ingestion.rows())
    assert counts["chunks_written"] == counts["chunks_embedded"] + counts["chunks_reused"]
    assert set(ingestion.ledger()) == {path.name for path in corpus.iterdir()}
    manifest = json.loads(storage.location(counts["manifest_uri"]).read_text())
    assert manifest["counts"]["chunks_total"] == counts["chunks_total"]


def test_an_unchanged_source_costs_no_embedding_and_no_write(
    ingestion: Ingestion, root: str, embedded: list[str]
) -> None:
    ingestion.run("run-1")
    embedded.clear()
    files = store_files(root)
    counts = ingestion.run("run-2")
    assert embedded == []
    assert store_files(root) == files
    assert (counts["unchanged"], counts["chunks_written"], counts["chunks_embedded"]) == (8, 0, 0)


def test_one_changed_one_added_one_deleted_are_exactly_those(
    ingestion: Ingestion, corpus: Path, embedded: list[str]
) -> None:
    ingestion.run("run-1")
    before = {row["id"]: row for row in ingestion.rows()}
    embedded.clear()
    (corpus / "002.txt").write_text("an altogether different text")
    (corpus / "new.md").write_text("# New\n\nfresh words")
    (corpus / "001.html").unlink()
    counts = ingestion.run("run-2")
    assert {n: counts[n] for n in ("added", "changed", "deleted", "unchanged")} == {
        "added": 1, "changed": 1, "deleted": 1, "unchanged": 6,
    }  # fmt: skip
    assert len(embedded) == 2
    after = {row["id"]: row for row in ingestion.rows()}
    assert {row["path"] for key, row in after.items() if key not in before} == {"002.txt", "new.md"}
    assert {row["path"] for key, row in before.items() if key not in after} == {"002.txt", "001.html"}


def test_another_chunker_cuts_everything_again_in_a_version_of_its_own(ingestion: Ingestion) -> None:
    ingestion.run("run-1")
    ingestion.params["chunk_tokens"] = 48
    counts = ingestion.run("run-2")
    assert counts["added"] == 8
    assert {row["chunker"] for row in ingestion.rows(2)} == {"structured-1/48/4"}
    assert {row["chunker"] for row in ingestion.rows(1)} == {"structured-1/32/4"}


def test_a_document_that_turns_bad_keeps_its_last_good_chunks(ingestion: Ingestion, corpus: Path) -> None:
    ingestion.run("run-1")
    before = ingestion.rows()
    (corpus / "002.txt").write_bytes(b"\xff\xfe broken \x00")
    counts = ingestion.run("run-2")
    assert counts["quarantined"] == 1
    assert ingestion.rows() == before


def test_a_document_deleted_between_plan_and_read_is_counted_and_gone_after_the_next_run(
    ingestion: Ingestion, corpus: Path
) -> None:
    config = ingestion.prepare("run-1")
    shards = pipeline.plan(config)
    (corpus / "000.md").unlink()
    ingestion.embed(config, shards)
    pipeline.commit(config)
    assert pipeline.check(config)["vanished"] == 1
    assert ingestion.run("run-2")["unchanged"] == 7


def test_a_document_changed_between_plan_and_read_is_indexed_as_it_was_read(ingestion: Ingestion, corpus: Path) -> None:
    config = ingestion.prepare("run-1")
    shards = pipeline.plan(config)
    (corpus / "002.txt").write_text("changed while the run was on")
    ingestion.embed(config, shards)
    pipeline.commit(config)
    pipeline.check(config)
    assert ingestion.run("run-2")["unchanged"] == 8


@pytest.mark.parametrize("step", ["plan", "embed", "commit", "check"])
def test_any_step_run_again_comes_to_the_same_index(ingestion: Ingestion, step: str, embedded: list[str]) -> None:
    ingestion.run("run-1")
    rows, ledger = ingestion.rows(), ingestion.ledger()
    embedded.clear()
    config = ingestion.prepare("run-1")
    steps = ["plan", "embed", "commit", "check"]
    for name in steps[steps.index(step) :]:
        if name == "plan":
            assert len(pipeline.plan(config)) == 3
        elif name == "embed":
            ingestion.embed(config, ["shard-0000", "shard-0001", "shard-0002"])
        elif name == "commit":
            assert pipeline.commit(config)["version"] == 1
        else:
            counts = pipeline.check(config)
            assert (counts["added"], counts["documents_total"]) == (8, 8)
    assert (ingestion.rows(), ingestion.ledger()) == (rows, ledger)
    assert embedded == []


@pytest.mark.parametrize(("free", "parts"), [({"hashing"}, 1), (set(), 2)])
def test_a_part_holds_fewer_documents_if_embedding_them_costs_something(
    free: set[str], parts: int, ingestion: Ingestion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "FREE", free)
    monkeypatch.setattr(embed, "EMBEDDED_PER_PART", 2)
    config = ingestion.prepare("run-1")
    shard = pipeline.plan(config)[0]
    assert ingestion.embed(config, [shard])[0]["documents"] == 3
    assert len(embed.read_result(config_of(config), shard)["parts"]) == parts


class Crash(BaseException):
    """A process that dies: nothing may catch it."""


def test_a_crash_at_any_write_is_repaired_by_running_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = tmp_path / "small"
    write_corpus(corpus, 4)

    def at(name: str) -> Ingestion:
        uri = (tmp_path / name).as_uri()
        monkeypatch.setenv("FMOPS_STORAGE_ROOT", uri)
        return Ingestion(uri, str(corpus))

    monkeypatch.setattr(embed, "DOCUMENTS_PER_PART", 2)
    undisturbed = at("undisturbed")
    undisturbed.run("run-1")
    original = storage.os.replace
    crash_at, survived = 0, False
    while not survived:
        ingestion = at(f"crash-{crash_at}")
        writes = iter(range(10_000))

        def replace(old: str, new: str, writes: Iterator[int] = writes, last: int = crash_at) -> None:
            if next(writes) == last:
                raise Crash
            original(old, new)

        monkeypatch.setattr(storage.os, "replace", replace)
        try:
            ingestion.run("run-1")
            survived = True
        except Crash:
            monkeypatch.setattr(storage.os, "replace", original)
            ingestion.run("run-1")
        assert ingestion.rows() == undisturbed.rows()
        assert ingestion.ledger() == undisturbed.ledger()
        crash_at += 1
    assert crash_at > 12


def test_a_commit_refuses_if_another_run_came_between(ingestion: Ingestion, corpus: Path) -> None:
    early = ingestion.prepare("run-early")
    ingestion.embed(early, pipeline.plan(early))
    (corpus / "002.txt").write_text("changed since")
    ingestion.run("run-late")
    rows = ingestion.rows()
    with pytest.raises(StateMovedError, match="from version 0 to 1; clear the plan task"):
        pipeline.commit(early)
    assert ingestion.rows() == rows, "it refuses before it writes"


def test_a_commit_of_what_another_run_committed_meanwhile_writes_nothing(ingestion: Ingestion, root: str) -> None:
    early = ingestion.prepare("run-early")
    ingestion.embed(early, pipeline.plan(early))
    ingestion.run("run-late")
    files = store_files(root)
    assert pipeline.commit(early)["version"] == 1
    assert store_files(root) == files
    assert pipeline.check(early)["added"] == 8


def test_a_commit_of_an_older_run_that_is_cleared_changes_nothing(ingestion: Ingestion, corpus: Path) -> None:
    ingestion.run("run-1")
    (corpus / "002.txt").write_text("the newer text")
    counts = ingestion.run("run-2")
    rows = ingestion.rows()
    old = ingestion.prepare("run-1")
    with pytest.raises(StateMovedError):
        pipeline.commit(old)
    assert ingestion.rows() == rows
    assert pipeline.check(old)["chunks_total"] != counts["chunks_total"], "it still tells its own totals"


def test_drift_fails_the_check_by_name_and_the_next_run_repairs_it(ingestion: Ingestion, root: str) -> None:
    config = ingestion.prepare("run-1")
    ingestion.run("run-1")
    rows = ingestion.rows()
    store = version_store(root)
    store.delete([rows[0]["doc_id"]])
    with pytest.raises(
        DriftError, match=rf"1 documents differ .*{rows[0]['path']}: ledger \d+ chunks .* store nothing"
    ):
        pipeline.check(config)
    assert ingestion.run("run-2")["changed"] == 1
    assert ingestion.rows() == rows


@pytest.mark.parametrize("undo", ["remove", "revert"])
def test_a_commit_that_died_for_good_is_repaired_by_the_next_run(
    ingestion: Ingestion, corpus: Path, undo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingestion.run("run-1")
    rows, old = ingestion.rows(), (corpus / "002.txt").read_bytes()
    (corpus / "new.txt").write_text("written to the store, never to the ledger")
    (corpus / "002.txt").write_text("changed in the store, never in the ledger")
    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(Ledger, "commit", _die)
        ingestion.run("run-2")
    assert ingestion.rows() != rows
    if undo == "remove":
        (corpus / "new.txt").unlink()
    (corpus / "002.txt").write_bytes(old)
    ingestion.run("run-3")
    kept = [row for row in ingestion.rows() if row["path"] != "new.txt"]
    assert kept == rows
    assert (len(ingestion.rows()) > len(rows)) == (undo == "revert")


def _die(*_: object, **__: object) -> None:
    raise Crash


def test_a_plan_cleared_after_its_run_committed_sees_what_changed_back(ingestion: Ingestion, corpus: Path) -> None:
    ingestion.run("run-1")
    rows, old = ingestion.rows(), (corpus / "002.txt").read_bytes()
    (corpus / "002.txt").write_text("two")
    ingestion.run("run-2")
    (corpus / "002.txt").write_bytes(old)
    ingestion.run("run-2")
    assert ingestion.rows() == rows


def test_the_news_is_told_once_for_each_version(ingestion: Ingestion, corpus: Path) -> None:
    counts = ingestion.run("run-1")
    first = ingestion.prepare("run-1")
    news = pipeline.publish(first)
    assert news is not None
    assert news["manifest_uri"] == counts["manifest_uri"]
    assert pipeline.publish(first) == news, "a run that dies before it can remember tells it again"
    pipeline.remember(first, news)
    assert pipeline.publish(first) is None
    ingestion.run("run-2")
    assert pipeline.publish(ingestion.prepare("run-2")) is None
    (corpus / "new.txt").write_text("new")
    ingestion.run("run-3")
    told = pipeline.publish(ingestion.prepare("run-3"))
    assert told is not None
    assert told["ledger_version"] == 2


def test_a_first_run_that_can_read_nothing_makes_no_index_and_no_news(ingestion: Ingestion, corpus: Path) -> None:
    for path in corpus.iterdir():
        path.write_bytes(b"\x00")
    counts = ingestion.run("run-1")
    assert (counts["found"], counts["quarantined"], counts["documents_total"]) == (8, 8, 0)
    assert pipeline.publish(ingestion.prepare("run-1")) is None


def test_an_unchanged_run_that_is_cleared_later_keeps_its_own_version(ingestion: Ingestion, corpus: Path) -> None:
    ingestion.run("run-1")
    ingestion.run("run-2")
    (corpus / "new.txt").write_text("new")
    ingestion.run("run-3")
    assert pipeline.commit(ingestion.prepare("run-2"))["version"] == 1


def test_all_of_it_runs_on_s3(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMOPS_TARGET", "aws")
    monkeypatch.setenv("FMOPS_STORAGE_ROOT", s3_root)
    source = storage.location(s3_root) / "incoming"
    for n in range(4):
        storage.write_bytes(source / "deep" / f"{n}.md", f"# Doc {n}\n\nwords of document {n}".encode())
    ingestion = Ingestion(s3_root, str(source), {"store": "lancedb"})
    assert ingestion.run("run-1")["added"] == 4
    (source / "deep" / "1.md").unlink()
    counts = ingestion.run("run-2")
    assert (counts["deleted"], counts["unchanged"], counts["documents_total"]) == (1, 3, 3)
    assert {row["path"] for row in ingestion.rows()} == {"deep/0.md", "deep/2.md", "deep/3.md"}


def test_every_embedded_part_is_metered(ingestion: Ingestion, root: str) -> None:
    counts = ingestion.run("run-1")
    files = list((storage.location(root) / "default" / "usage").rglob("*.jsonl"))
    events = [event for file in files for event in storage.read_jsonl(file)]
    assert len(files) == 3, "one object for each task"
    assert {event["run_id"] for event in events} == {"run-1"}
    assert {event["model"] for event in events} == {"hashing-1"}
    assert sum(event["tokens_in"] for event in events) > counts["chunks_embedded"]


def test_another_use_case_reaches_every_row(ingestion: Ingestion) -> None:
    ingestion.run("run-1")
    ingestion.params["use_case"] = "support"
    assert ingestion.run("run-2")["changed"] == 8
    assert {row["use_case"] for row in ingestion.rows()} == {"support"}


def test_counts_that_lose_a_document_are_refused() -> None:
    whole = dict.fromkeys(IngestionCounts.model_fields, 0)
    assert IngestionCounts(**{**whole, "found": 2, "added": 1, "quarantined": 1}).found == 2
    with pytest.raises(ValueError, match="3 documents were found, but 1 are accounted for"):
        IngestionCounts(**{**whole, "found": 3, "added": 1})
