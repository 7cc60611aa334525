"""kill -9 of a task's process in a real Airflow: its retry finishes the work, and the index is that of a quiet run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from include.storage import location
from local.airflow import LocalAirflow
from local.client import Client
from local.processes import marked
from local.watch import follow
from tests.rag.ingestion import Ingestion
from tests.real_airflow import home_with_database

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

DAG = "rag_ingestion"
DOCUMENTS = 200
WORDS = 3000
DEADLINE_S = 300
"""Until a test gives up on a task that should run, or should have died."""
PARAMS: dict[str, Any] = {
    "index": "test",
    "embedder": "hashing",
    "chunk_tokens": 32,
    "overlap_tokens": 4,
    "documents_per_shard": 25,
    "min_recall_at_5": 0,
    "min_mrr": 0,
}


def write_documents(folder: Path, version: int) -> None:
    """Enough words that a task of the run takes seconds; every document differs from version to version."""
    folder.mkdir(exist_ok=True)
    for n in range(DOCUMENTS):
        (folder / f"{n:03d}.txt").write_text(" ".join(f"v{version}d{n}w{i}" for i in range(WORDS)))


@dataclass
class Scene:
    """One Airflow over one source; the tests of this file build on each other in order."""

    airflow: LocalAirflow
    client: Client
    source: Path
    root: str

    def trigger(self) -> str:
        return self.client.trigger(self.client.dag(DAG), {"source": str(self.source), **PARAMS})

    def tasks(self, run_id: str, task_id: str) -> list[dict[str, Any]]:
        return [task for task in self.client.task_instances(DAG, run_id) if task["task_id"] == task_id]

    def kill(self, run_id: str, task_id: str, is_time: Callable[[], bool]) -> int:
        """Kill the process of a task that runs, once it is time; its map index."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            self.airflow.check_alive()
            assert self.client.run_state(DAG, run_id) in ("queued", "running"), f"the run ended before {task_id} died"
            for task in self.tasks(run_id, task_id):
                if is_time() and self._die(run_id, task):
                    return int(task["map_index"])
            time.sleep(0.1)
        raise AssertionError(f"no {task_id} could be killed within {DEADLINE_S} s")

    def _die(self, run_id: str, task: dict[str, Any]) -> bool:
        """Whether the process of a task was there to be killed, and Airflow took notice of its death."""
        if task["state"] != "running" or not task["pid"]:
            return False
        mine = [one for one in marked(self.airflow.running.mark) if one.pid == task["pid"]]
        if not mine:
            return False
        try:
            mine[0].kill()
        except psutil.NoSuchProcess:
            return False
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            [after] = [one for one in self.tasks(run_id, task["task_id"]) if one["map_index"] == task["map_index"]]
            if after["state"] != "running" or after["try_number"] > task["try_number"]:
                return bool(after["state"] == "up_for_retry" or after["try_number"] > task["try_number"])
            time.sleep(0.1)
        raise AssertionError(f"Airflow took no notice of the death of {task['task_id']}")

    def assert_ends_well(self, run_id: str, killed: str, map_index: int) -> None:
        lines: list[str] = []
        state = follow(self.client, DAG, run_id, say=lines.append, check_alive=self.airflow.check_alive)
        assert state == "success", "\n".join(lines)
        tries = {
            (task["task_id"], task["map_index"]): task["try_number"]
            for task in self.client.task_instances(DAG, run_id)
            if task["try_number"] != 1
        }
        assert tries == {(killed, map_index): 2}

    def assert_like_a_quiet_run(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Rows and ledger are those of one run over the same source that nobody disturbed."""
        index = Ingestion(self.root, str(self.source))
        uri = folder.as_uri()
        monkeypatch.setenv("FMOPS_STORAGE_ROOT", uri)
        quiet = Ingestion(uri, str(self.source), PARAMS)
        counts = quiet.run("run-1")
        assert counts["added"] == DOCUMENTS
        assert index.ledger() == quiet.ledger()
        assert index.rows() == quiet.rows()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("killed")
    root = (folder / "storage").as_uri()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FMOPS_STORAGE_ROOT", root)
        options = {"FMOPS_STORAGE_ROOT": root}
        with (
            LocalAirflow(home=home_with_database(folder / "airflow"), port=0, options=options) as airflow,
            airflow.client() as client,
        ):
            yield Scene(airflow, client, folder / "source", root)


def test_a_killed_shard_is_finished_by_its_retry(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_documents(scene.source, 1)
    parts = Path(location(scene.root).path) / "default" / "rag" / "test" / "parts"
    run_id = scene.trigger()
    map_index = scene.kill(run_id, "embed.shard", lambda: any(parts.rglob("*.json")))
    scene.assert_ends_well(run_id, "embed.shard", map_index)
    scene.assert_like_a_quiet_run(tmp_path, monkeypatch)


def test_a_killed_commit_is_finished_by_its_retry(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_documents(scene.source, 2)
    run_id = scene.trigger()
    map_index = scene.kill(run_id, "index.commit", lambda: True)
    scene.assert_ends_well(run_id, "index.commit", map_index)
    scene.assert_like_a_quiet_run(tmp_path, monkeypatch)
