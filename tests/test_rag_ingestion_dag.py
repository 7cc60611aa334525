"""The ingestion DAG as a user runs it: a real scheduler, triggered by the REST API, over a folder that changes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from include import storage
from include.config import load_settings
from include.contracts import IngestionManifest
from include.rag.search import search
from local.airflow import LocalAirflow
from local.client import Client
from local.watch import follow
from tests.rag.ingestion import write_corpus
from tests.rag.killed_run import wait_until
from tests.real_airflow import QUIET_S, answer, asset_news, clear, home_with_database, question_place

pytestmark = pytest.mark.airflow

DAG = "rag_ingestion"
JOB = ("embed.hand_over", "embed.job")
"""What is skipped where mapped tasks embed."""


@dataclass
class Runs:
    """One Airflow, one source, one storage root for the tests of this file, which build on each other in order."""

    airflow: LocalAirflow
    client: Client
    source: Path
    first: tuple[str, str, list[str]] = ("", "", [])
    """What run() came to before any test."""

    def run(self, **conf: Any) -> tuple[str, str, list[str]]:
        """(final state, run id, lines said) of a run over the source."""
        lines: list[str] = []
        values = {"source": str(self.source), "index": "handbook", "documents_per_shard": 3, **conf}
        run_id = self.client.trigger(self.client.dag(DAG), values)
        state = follow(self.client, DAG, run_id, say=lines.append, check_alive=self.airflow.check_alive)
        return state, run_id, lines

    def states(self, run_id: str) -> dict[str, set[str]]:
        states: dict[str, set[str]] = {}
        for task in self.client.task_instances(DAG, run_id):
            states.setdefault(task["task_id"], set()).add(task["state"])
        return states

    def manifest(self, run_id: str) -> IngestionManifest:
        uri = self.client.xcom(DAG, run_id, "index.check")["manifest_uri"]
        return storage.read_record(storage.location(uri), IngestionManifest)

    def news(self) -> list[dict[str, Any]]:
        """What the asset's events told, oldest first."""
        return asset_news(self.client)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("ingestion")
    source = folder / "source"
    write_corpus(source, 7)
    (source / "rockets.md").write_text("# Rockets\n\nThe second stage burns liquid methane.\n")
    root = (folder / "storage").as_uri()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FMOPS_STORAGE_ROOT", root)
        options = {"FMOPS_STORAGE_ROOT": root}
        with (
            LocalAirflow(home=home_with_database(folder / "airflow"), port=0, options=options) as airflow,
            airflow.client() as client,
        ):
            runs = Runs(airflow, client, source)
            runs.first = runs.run()
            yield runs


def test_a_first_run_ends_green_and_its_index_answers(runs: Runs) -> None:
    state, run_id, _ = runs.first
    assert state == "success"
    states = runs.states(run_id)
    for name in ("source.approve", *JOB):
        assert states.pop(name) == {"skipped"}
    assert set().union(*states.values()) == {"success"}
    manifest = runs.manifest(run_id)
    assert (manifest.counts.added, manifest.counts.documents_total) == (8, 8)
    counts = manifest.counts
    assert counts.chunks_embedded + counts.chunks_reused == counts.chunks_total > 0
    best = search("what fuel does the upper stage use", index="handbook", k=1, settings=load_settings())[0]
    assert best.path == "rockets.md"


def test_the_asset_tells_the_manifest_once(runs: Runs) -> None:
    news = runs.news()
    assert len(news) == 1
    manifest = storage.read_record(storage.location(news[0]["manifest_uri"]), IngestionManifest)
    assert (manifest.index, manifest.ledger_version) == ("handbook", 1)


def test_a_run_s_report_lies_beside_its_manifest_and_is_linked_from_its_task(runs: Runs) -> None:
    run_id = runs.client.pages(f"/dags/{DAG}/dagRuns", "dag_runs")[0]["dag_run_id"]
    evaluated = runs.client.xcom(DAG, run_id, "quality.evaluate")
    assert evaluated["verdict"] == "not_judged", "a few documents make too few questions"
    page = storage.location(evaluated["report_uri"])
    assert page.parent == storage.location(runs.client.xcom(DAG, run_id, "index.check")["manifest_uri"]).parent
    assert "Retrieval quality of index handbook" in page.read_text()
    links = runs.client.get(f"/dags/{DAG}/dagRuns/{run_id}/taskInstances/quality.evaluate/links")["extra_links"]
    assert "/fmops/report?" in links["Report"]


def test_mapped_tasks_have_readable_names_and_xcoms_stay_small(runs: Runs) -> None:
    run_id = runs.client.pages(f"/dags/{DAG}/dagRuns", "dag_runs")[0]["dag_run_id"]
    tasks = runs.client.task_instances(DAG, run_id)
    names = {task["rendered_map_index"] for task in tasks if task["task_id"] == "embed.shard"}
    assert names == {"shard-0000", "shard-0001", "shard-0002"}
    place = f"/dags/{DAG}/dagRuns/{run_id}/taskInstances"
    seen: set[tuple[str, str]] = set()
    for task in tasks:
        entries = f"{place}/{task['task_id']}/xcomEntries"
        for entry in runs.client.get(entries, map_index=task["map_index"])["xcom_entries"]:
            value = runs.client.get(f"{entries}/{entry['key']}", map_index=task["map_index"])["value"]
            assert len(json.dumps(value)) < 4096
            seen.add((task["task_id"], entry["key"]))
    assert {key for _, key in seen} == {"return_value"}
    silent = {"source.approve", "live.remember", *JOB}
    assert {task_id for task_id, _ in seen} == {task["task_id"] for task in tasks} - silent


def test_a_run_without_changes_embeds_writes_and_tells_nothing(runs: Runs) -> None:
    state, run_id, _ = runs.run()
    assert state == "success"
    counts = runs.manifest(run_id).counts
    assert (counts.unchanged, counts.chunks_embedded, counts.chunks_written) == (8, 0, 0)
    states = runs.states(run_id)
    assert (states["embed.shard"], states["live.publish"]) == ({"skipped"}, {"skipped"})
    assert len(runs.news()) == 1


@pytest.mark.slow
def test_a_run_after_changes_takes_up_exactly_those_and_tells_of_it(runs: Runs) -> None:
    (runs.source / "rockets.md").write_text("# Rockets\n\nThe second stage burns hydrogen.\n")
    (runs.source / "ships.md").write_text("# Ships\n\nThe hull is painted turquoise.\n")
    (runs.source / "002.txt").unlink()
    state, run_id, _ = runs.run()
    assert state == "success"
    counts = runs.manifest(run_id).counts
    assert (counts.added, counts.changed, counts.deleted, counts.unchanged) == (1, 1, 1, 6)
    assert search("colour of the hull", index="handbook", k=1)[0].path == "ships.md"
    everything = search("methane hydrogen word2x0", index="handbook", k=100)
    assert "hydrogen" in everything[0].text
    assert not any("methane" in passage.text or passage.path == "002.txt" for passage in everything)
    assert [news["ledger_version"] for news in runs.news()] == [1, 2]


@pytest.mark.slow
def test_cleared_tasks_come_to_the_same_result(runs: Runs) -> None:
    run = max(runs.client.pages(f"/dags/{DAG}/dagRuns", "dag_runs"), key=lambda run: str(run["run_after"]))
    before = runs.manifest(run["dag_run_id"])
    clear(runs.client, DAG, run["dag_run_id"], "source.plan", downstream=True)
    state = follow(runs.client, DAG, run["dag_run_id"], say=lambda _: None, check_alive=runs.airflow.check_alive)
    assert state == "success"
    after = runs.manifest(run["dag_run_id"])
    assert after.ledger_version == before.ledger_version
    unlike = {"chunks_embedded", "chunks_reused"}  # the parts were found, so nothing was embedded again
    assert after.counts.model_dump(exclude=unlike) == before.counts.model_dump(exclude=unlike)
    assert after.counts.chunks_embedded == 0


@pytest.mark.slow
def test_a_job_embeds_instead_of_the_mapped_tasks(runs: Runs) -> None:
    state, run_id, _ = runs.run(index="by-job", embed_on="job")
    assert state == "success"
    states = runs.states(run_id)
    assert states["embed.shard"] == {"skipped"}
    assert [states[name] for name in JOB] == [{"success"}, {"success"}]
    counts = runs.manifest(run_id).counts
    metrics = runs.client.xcom(DAG, run_id, "embed.job")["metrics"]
    assert metrics["documents"] == counts.added > 0
    assert metrics["chunks_embedded"] == counts.chunks_embedded > 0
    assert search("colour of the hull", index="by-job", k=1)[0].path == "ships.md"


def test_a_job_that_cannot_embed_is_refused_before_any_work(runs: Runs) -> None:
    state, run_id, lines = runs.run(index="by-job", embed_on="job", embedder="titan-v2")
    assert state == "failed"
    assert "embed_on='job': embedder titan-v2 needs AWS credentials" in lines[-1]
    assert runs.states(run_id)["source.prepare"] == {"failed"}


def test_a_wrong_param_fails_before_any_work_at_the_first_try_with_one_line(runs: Runs) -> None:
    state, run_id, lines = runs.run(overlap_tokens=200)
    assert state == "failed"
    first = next(task for task in runs.client.task_instances(DAG, run_id) if task["task_id"] == "source.prepare")
    assert (first["state"], first["try_number"]) == ("failed", 1)
    told = [line for line in lines if "overlap_tokens=200 must be smaller than chunk_tokens=200" in line]
    assert len(told) == 1
    assert lines[-1] == told[0]


@pytest.mark.slow
def test_many_deletions_are_asked_about_while_embedding_goes_on(runs: Runs) -> None:
    for file in sorted(runs.source.glob("00*"))[:5]:
        file.unlink()
    (runs.source / "trains.md").write_text("# Trains\n\nThe wagon is painted green.\n")
    client = runs.client
    run_id = client.trigger(client.dag(DAG), {"source": str(runs.source), "index": "handbook"})
    wanted = ({"awaiting_input"}, {"success"})
    wait_until(
        lambda: (runs.states(run_id)["source.approve"], runs.states(run_id)["embed.shard"]) == wanted,
        "the question, and the end of embedding",
    )
    assert runs.states(run_id)["index.commit"] == {None}
    place = question_place(DAG, run_id, "source.approve")
    assert "Delete 5 of" in client.get(place)["subject"]
    asked_at = time.monotonic()
    wait_until(lambda: time.monotonic() > asked_at + QUIET_S, "a quiet moment")
    answer(client, place, "Keep them")
    assert follow(client, DAG, run_id, say=lambda _: None, check_alive=runs.airflow.check_alive) == "success"
    counts = runs.manifest(run_id).counts
    assert (counts.deleted, counts.deletions_held, counts.added) == (0, 5, 1)


@pytest.mark.slow
def test_another_chunk_size_goes_live_as_the_next_version_and_back_by_the_other_dag(runs: Runs) -> None:
    state, run_id, _ = runs.run(chunk_tokens=64, overlap_tokens=8, on_many_deletions="delete")
    assert state == "success"
    assert runs.manifest(run_id).index_version == 2
    client = runs.client
    told = len(runs.news())
    back = client.trigger(client.dag("rag_index_versions"), {"index": "handbook", "action": "roll-back"})
    say: list[str] = []
    assert follow(client, "rag_index_versions", back, say=say.append, check_alive=runs.airflow.check_alive) == "success"
    assert client.xcom("rag_index_versions", back, "look_after")[0] == "v0001 is live again instead of v0002"
    assert len(runs.news()) == told + 1
