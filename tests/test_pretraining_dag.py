"""The pre-training DAG as a user runs it: a real scheduler, triggered by the REST API, on documents made up for it."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from include.contracts import ModelRelease
from include.models import registry
from include.storage import list_files, location, read_json
from local.airflow import LocalAirflow
from local.client import Client
from local.home import PROJECT
from local.watch import follow
from tests.real_airflow import QUIET_S, answer, asset_news, clear, home_with_database, job_name, question_place
from tests.training.in_jobs import jobs_python
from tests.training.made_up import LEARNT, write_documents

pytestmark = pytest.mark.airflow
slow = pytest.mark.slow

DAG = "pretraining"
SEGMENTS = [f"train.segment_{number}" for number in range(1, 5)]
DEADLINE_S = 600
"""Until a test gives up on what should happen."""


@dataclass
class Runs:
    """One Airflow, one source, one storage root for the tests of this file, which build on each other in order."""

    airflow: LocalAirflow
    client: Client
    root: str
    documents: Path

    def start(self, **conf: Any) -> str:
        source = {"name": "made-up", "uri": str(self.documents), "kind": "records", "licence": "CC0-1.0"}
        return self.client.trigger(self.client.dag(DAG), {"sources": [source], **LEARNT, **conf})

    def end(self, run_id: str) -> tuple[str, list[str]]:
        """Final state and what was said of a run."""
        lines: list[str] = []
        return follow(self.client, DAG, run_id, say=lines.append, check_alive=self.airflow.check_alive), lines

    def until(self, look: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + DEADLINE_S
        while not (found := look()):
            self.airflow.check_alive()
            assert time.monotonic() < deadline, f"{what}: not within {DEADLINE_S} s"
            time.sleep(0.05)
        return found

    def states(self, run_id: str) -> dict[str, str]:
        """Of each task; of a mapped one any instance's."""
        return {task["task_id"]: task["state"] for task in self.client.task_instances(DAG, run_id)}

    def answer(self, run_id: str, place: int, attempt: int = 1) -> str:
        """Wait for the question of an attempt, and answer with that of its options; its subject."""

        def asked() -> bool:
            task = next(task for task in self.client.task_instances(DAG, run_id) if task["task_id"] == "approve")
            return bool(task["state"] == "awaiting_input" and task["try_number"] >= attempt)

        self.until(asked, "the question")
        asked_at = time.monotonic()
        self.until(lambda: time.monotonic() > asked_at + QUIET_S, "a quiet moment")
        path = question_place(DAG, run_id, "approve")
        question = self.client.get(path)
        answer(self.client, path, question["options"][place])
        return str(question["subject"])

    def clear(self, run_id: str, task_id: str) -> None:
        clear(self.client, DAG, run_id, task_id, downstream=True)

    def jobs(self) -> set[str]:
        """Every job that was started."""
        return {folder.name for folder in (Path(self.root.removeprefix("file://")) / "jobs").glob("[!.]*-g*")}

    def news(self) -> list[dict[str, Any]]:
        """What the events of released_model told, oldest first."""
        return asset_news(self.client)

    def versions(self, model: str = "docs-lm") -> list[ModelRelease]:
        return registry.list_versions(self.root, "default", model)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("pretraining")
    (folder / "documents.jsonl").write_bytes(write_documents())
    dags = folder / "dags"  # of this DAG alone: the others would be parsed again and again
    dags.mkdir()
    for name in ("provider/pretraining.py", ".airflowignore"):
        shutil.copy(PROJECT / "dags" / name, dags)
    (dags / "include").symlink_to(PROJECT / "include")
    root = (folder / "storage").as_uri()
    options = {"FMOPS_STORAGE_ROOT": root, "FMOPS_JOB_PYTHON": str(jobs_python()), "FMOPS_JOB_LOST_AFTER_S": "20"}
    with (
        LocalAirflow(home=home_with_database(folder / "airflow"), dags=dags, port=0, options=options) as airflow,
        airflow.client() as client,
    ):
        yield Runs(airflow, client, root, folder / "documents.jsonl")


@dataclass
class Ended:
    """A run that is over: its final state, what was said of it, its tasks' states, and what there was then."""

    run_id: str
    state: str
    lines: list[str]
    tasks: dict[str, str]
    jobs: set[str]
    news: list[dict[str, Any]]

    @classmethod
    def of(cls, runs: Runs, run_id: str) -> Ended:
        state, lines = runs.end(run_id)
        return cls(run_id, state, lines, runs.states(run_id), runs.jobs(), runs.news())


@pytest.fixture(scope="module")
def rejected(runs: Runs) -> Ended:
    """A run whose cost a person has to approve, and does not."""
    run_id = runs.start(usd_per_hour=100, approve_above_usd=1)  # the start of its jobs alone costs 4 USD
    assert runs.answer(run_id, 1).startswith("Pre-train docs-lm for about ")
    return Ended.of(runs, run_id)


@pytest.fixture(scope="module")
def released(runs: Runs, rejected: Ended) -> Ended:
    """The same run after its question was cleared and answered with yes."""
    runs.clear(rejected.run_id, "approve")
    runs.answer(rejected.run_id, 0, attempt=2)
    return Ended.of(runs, rejected.run_id)


def test_a_dear_run_that_nobody_wants_ends_before_anything_is_spent(rejected: Ended) -> None:
    assert rejected.state == "failed"
    assert any("not approved: admin answered 'Reject'; nothing was spent" in line for line in rejected.lines)
    states = dict(rejected.tasks)
    done = {name: states.pop(name) for name in ("prepare", "list_documents", "plan", "approve", "settle")}
    assert done == {**dict.fromkeys(done, "success"), "settle": "failed"}
    assert set(states.values()) == {"upstream_failed"}
    assert (rejected.jobs, rejected.news) == (set(), [])


def test_once_it_is_approved_it_ends_in_a_release(runs: Runs, released: Ended) -> None:
    assert released.state == "success", released.lines
    assert set(released.tasks.values()) == {"success"}
    [found] = runs.versions()
    registry.verify(found, with_digests=True)
    told = runs.client.xcom(DAG, released.run_id, "release.publish")
    assert (told["model"], told["version"], told["alias"]) == ("docs-lm", 1, "champion")
    assert told["value"] == found.metrics["held_out.bits_per_byte"] < found.metrics["baselines.ngram.bits_per_byte"]
    assert released.news == [told]
    assert registry.find(runs.root, "default", "docs-lm@champion") == found
    assert (found.licences, found.lineage.run_id) == (("CC0-1.0",), released.run_id)
    assert set(found.lineage.jobs) == released.jobs and len(released.jobs) == len(SEGMENTS) + 1
    assert found.cost.usd == pytest.approx(found.cost.instance_seconds / 3600 * 100)


def test_mlflow_shows_the_release(runs: Runs, released: Ended) -> None:
    view = runs.client.xcom(DAG, released.run_id, "release.register")
    assert (view["models"], view["versions"]) == (1, 1)
    # Its client takes longer to import than all of this.
    with closing(sqlite3.connect(view["tracking_uri"].removeprefix("sqlite:///"))) as database:
        aliases = database.execute("SELECT name, alias, version FROM registered_model_aliases").fetchall()
        metrics = dict(database.execute("SELECT key, value FROM latest_metrics").fetchall())
    assert aliases == [("default.docs-lm", "champion", 1)]
    [found] = runs.versions()
    assert metrics["held_out.bits_per_byte"] == pytest.approx(found.metrics["held_out.bits_per_byte"])


@slow
def test_runs_of_the_same_inputs_need_no_job_and_only_one_that_passes_the_gate_is_released(
    runs: Runs, released: Ended
) -> None:
    before, told = runs.versions(), runs.news()
    run_ids = [runs.start(), runs.start(baseline_margin=0.9, model_name="better-lm")]
    again, refused = (Ended.of(runs, run_id) for run_id in run_ids)
    assert (again.state, refused.state) == ("success", "failed")
    assert any("GateError: the model is refused: " in one and "of ngram less 90.0%" in one for one in refused.lines)
    last = [refused.tasks.pop(f"release.{name}") for name in ("gate", "publish", "register")]
    assert last == ["failed", "upstream_failed", "upstream_failed"]
    for states in (again.tasks, refused.tasks):
        assert states.pop("approve") == "skipped", "this machine costs nothing"
        assert set(states.values()) == {"success"}
    assert refused.jobs == released.jobs
    assert runs.versions() == before, "the same content is the same release"
    assert not list_files(registry.model_home(runs.root, "default", "better-lm"))
    assert refused.news == [*told, told[-1]]


def job_of(runs: Runs, run_id: str, task_id: str) -> Path:
    """The folder of a task's job, once there is one."""
    name = runs.until(lambda: job_name(runs.client, DAG, run_id, task_id), f"a job of {task_id}")
    return Path(runs.root.removeprefix("file://")) / "jobs" / str(name)


def process_of(folder: Path, *, is_supervisor: bool) -> psutil.Process:
    """Of a job's processes that which watches the others, or the script's, which leads a group."""
    for process in psutil.process_iter():
        try:
            is_one = process.environ().get("FMOPS_ML_ROOT") == str(folder) and os.getpgid(process.pid) == process.pid
            if is_one and ("--detach" in process.cmdline()) is is_supervisor:
                return process
        except (psutil.Error, OSError):  # it ended meanwhile, or is somebody else's
            continue
    raise AssertionError(f"{folder.name} has no such process")


@slow
def test_training_that_is_killed_goes_on_and_comes_to_the_same_weights(runs: Runs, released: Ended) -> None:
    """kill -9 of a script, after which somebody clears its task, and of a supervisor, after which Airflow retries."""
    run_id = runs.start(checkpoint_every_s=1e-6)  # other instructions, so that all segments are trained again

    def kill(task_id: str, *, is_supervisor: bool) -> None:
        folder = job_of(runs, run_id, task_id)
        checkpoints = folder.parent / "checkpoints" / folder.name.split("-")[-2]
        runs.until(lambda: list(checkpoints.glob("step-*")), f"a checkpoint of {task_id}")
        process_of(folder, is_supervisor=is_supervisor).kill()
        assert not (folder / "status.json").exists(), "it was over already"

    kill(SEGMENTS[1], is_supervisor=False)
    state, lines = runs.end(run_id)
    assert state == "failed" and any("UserCodeError" in line and "SIGKILL" in line for line in lines)
    runs.clear(run_id, SEGMENTS[1])
    kill(SEGMENTS[2], is_supervisor=True)
    state, lines = runs.end(run_id)
    assert state == "success", lines
    tries = {task["task_id"]: task["try_number"] for task in runs.client.task_instances(DAG, run_id)}
    assert [tries[name] for name in SEGMENTS] == [1, 2, 2, 1]
    for task_id in SEGMENTS[1:3]:
        assert re.search(r"goes on from step \d+: step-", (job_of(runs, run_id, task_id) / "log").read_text())
    weights = []
    for one in (released.run_id, run_id):
        output = location(runs.client.xcom(DAG, one, SEGMENTS[3])["output_uri"])
        files = {file["path"]: file["sha256"] for file in read_json(output / "manifest.json")["files"]}
        weights.append(files["state/state.safetensors"])
    assert weights[0] == weights[1]
    assert len(runs.versions()) == 1, "the same content is the same release"


@slow
@pytest.mark.parametrize("architecture", ["decoder", "encoder_decoder"])
def test_the_defaults_end_in_a_release(runs: Runs, architecture: str) -> None:
    """Minutes of two cores each."""
    conf = {"architecture": architecture, "model_name": architecture.replace("_", "-")}
    run_id = runs.client.trigger(runs.client.dag(DAG), conf)
    state, lines = runs.end(run_id)
    assert state == "success", lines
    [found] = runs.versions(conf["model_name"])
    registry.verify(found, with_digests=True)
    assert (found.architecture, found.size, found.licences) == (architecture, "tiny", ("Apache-2.0",))
    assert runs.news()[-1]["release_uri"] == found.uri
    assert registry.find(runs.root, "default", conf["model_name"]) == found
