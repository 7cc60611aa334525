"""A whole ingestion on a real OpenSearch that refuses, stalls and restarts: nothing lost, nothing twice."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from include.errors import BusyError
from include.rag import pipeline
from include.rag.search import search
from include.rag.trace import trace
from include.storage import location, read_jsonl
from tests.opensearch.proxy import Proxy
from tests.rag.ingestion import Ingestion, config_of, write_corpus

COUNT = 24


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    write_corpus(folder, COUNT)
    return folder


@pytest.fixture
def ours(proxy: Proxy, root: str, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ingestion]:
    """An ingestion into the cluster behind the proxy, under names of its own."""
    monkeypatch.setenv("FMOPS_OPENSEARCH_URL", proxy.url)
    monkeypatch.setenv("FMOPS_OPENSEARCH_PREFIX", f"t{uuid.uuid4().hex[:12]}")
    monkeypatch.setenv("FMOPS_OPENSEARCH_REPLICAS", "0")
    monkeypatch.setenv("FMOPS_OPENSEARCH_BULK_ITEMS", "20")
    monkeypatch.setenv("FMOPS_OPENSEARCH_DEADLINE_S", "30")
    ingestion = Ingestion(root, str(corpus), {"store": "opensearch", "documents_per_shard": 50})
    yield ingestion
    for version in ingestion.versions.all():
        ingestion.versions.open(version.number, version.spec).drop()


def rows(ingestion: Ingestion, number: int = 1) -> list[dict[str, Any]]:
    """As Ingestion.rows() of the embedded store."""
    store = ingestion.store(number)
    found = store.rows(list(store.documents())).drop_columns(["run_id", "ingested_at"]).to_pylist()
    return sorted(found, key=lambda row: row["id"])


def undisturbed(ingestion: Ingestion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the embedded store holds of the same source."""
    other = (tmp_path / "undisturbed").as_uri()
    with monkeypatch.context() as patch:
        patch.setenv("FMOPS_STORAGE_ROOT", other)
        embedded = Ingestion(other, ingestion.source)
        embedded.run("run-1")
        return [{name: value for name, value in row.items() if name != "search_text"} for row in embedded.rows()]


def test_it_holds_what_the_embedded_store_would_and_answers(
    ours: Ingestion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = ours.run("run-1")
    assert (counts["added"], counts["documents_total"]) == (COUNT, COUNT)
    assert rows(ours) == undisturbed(ours, tmp_path, monkeypatch)
    best = search("Title 4 word4x3", index="test", k=1)[0]
    assert best.path == "004.md"
    assert trace(best.id, index="test").entry.run_id == "run-1"
    assert ours.run("run-2")["unchanged"] == COUNT


def test_changes_deletions_and_a_wrong_row_are_put_right(
    ours: Ingestion, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours.run("run-1")
    (corpus / "002.txt").write_text("an altogether different text")
    (corpus / "001.html").unlink()
    ours.store().delete([row["doc_id"] for row in rows(ours) if row["path"] == "006.txt"])
    counts = ours.run("run-2")
    assert (counts["changed"], counts["deleted"], counts["documents_total"]) == (2, 1, COUNT - 1)
    assert rows(ours) == undisturbed(ours, tmp_path, monkeypatch)


def test_throttled_cut_and_stalled_requests_lose_and_double_nothing(
    ours: Ingestion, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = undisturbed(ours, tmp_path, monkeypatch)
    proxy.throttled = {row["id"]: 1 for row in expected[::7]}
    proxy.bulk_faults = {2: "truncate", 3: "503", 4: "drop"}
    ours.run("run-1")
    assert rows(ours) == expected
    assert proxy.counts["item 429"] >= len(expected[::7])
    assert (proxy.counts["truncate"], proxy.counts["503"], proxy.counts["drop"]) == (1, 1, 1)


def test_a_document_that_the_store_refuses_is_a_dead_letter_and_can_be_replayed(
    ours: Ingestion, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = undisturbed(ours, tmp_path, monkeypatch)
    bad = next(row for row in expected if row["path"] == "005.html")
    proxy.rejected = {bad["id"]}
    counts = ours.run("run-1")
    assert (counts["found"], counts["added"], counts["quarantined"]) == (COUNT, COUNT - 1, 1)
    (letter,) = read_jsonl(ours.home() / "quarantine.jsonl")
    assert (letter["path"], letter["stage"], letter["fault"]) == ("005.html", "index", "refused")
    assert rows(ours) == [row for row in expected if row["doc_id"] != bad["doc_id"]]
    counts = ours.run("run-2")
    assert (counts["still_quarantined"], counts["unchanged"]) == (1, COUNT - 1)
    proxy.rejected = set()
    ours.params["replay_quarantine"] = True
    assert ours.run("run-3")["added"] == 1
    assert rows(ours) == expected
    assert list(read_jsonl(ours.home() / "quarantine.jsonl")) == []


def test_a_cluster_that_stays_busy_fails_the_task_and_the_next_try_completes_it(
    ours: Ingestion, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = undisturbed(ours, tmp_path, monkeypatch)
    config = ours.prepare("run-1")
    ours.embed(config, pipeline.plan(config))
    ours.settle(config)
    with monkeypatch.context() as patch:
        patch.setenv("FMOPS_OPENSEARCH_DEADLINE_S", "1")
        proxy.throttled = {expected[3]["id"]: -1}
        with pytest.raises(BusyError, match="1 s"):
            pipeline.commit(config)
    assert ours.ledger() == {}
    proxy.throttled = {}
    pipeline.commit(config)
    pipeline.check(config)
    assert rows(ours) == expected


def test_the_alias_follows_the_live_version_and_clean_up_deletes_the_index(ours: Ingestion, proxy: Proxy) -> None:
    ours.run("run-1")
    ours.params["chunk_tokens"] = 48
    config = ours.prepare("run-2")
    ours.embed(config, pipeline.plan(config))
    ours.settle(config)
    pipeline.commit(config)
    pipeline.check(config)
    pipeline.gate(pipeline.evaluate(config, dag_id="test", task_id="evaluate"))
    assert pipeline.switch(config)["is_live"]
    names = sorted(index_names(proxy, ours))
    alias = names[0].rpartition(".")[0]
    assert [name.rpartition(".")[2] for name in names] == ["v0001", "v0002"]
    _, answer = proxy.forward("GET", f"/_alias/{alias}", {}, None)
    assert f"{alias}.v0002".encode() in answer and f"{alias}.v0001".encode() not in answer
    assert pipeline.clean_up({**config, "keep_versions": 1}) == ["v0001"]
    assert index_names(proxy, ours) == {f"{alias}.v0002"}
    assert location(str(config_of(config).home)).exists()


def index_names(proxy: Proxy, ingestion: Ingestion) -> set[str]:
    """The indexes of this test's prefix."""
    prefix = ingestion.store(ingestion.versions.all()[-1].number).uri.rpartition("/")[2].split(".")[0]
    _, answer = proxy.forward("GET", f"/_cat/indices/{prefix}.*?h=index", {}, None)
    return set(answer.decode().split())
