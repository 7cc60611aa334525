"""The stack for real: a fresh copy of the project, `up`, DAGs triggered by REST, two workers, `down`.

The tests run in the order of this file, on one stack; those of jobs also alone (-k job).
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.client import Client
from local.home import AirflowError
from tests.compose.stack import SECRETS, Stack, compose_command, copy_project, service_of, wait_until

pytestmark = pytest.mark.compose

PORT = 18180
UP_S = 600
VISIBLE_S = 60
RUN_S = 900
GONE_S = 60
JOB_FOLDER = "/opt/airflow/data/jobs"
LOST_AFTER_S = 20


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("clone")
    copy_project(folder)
    shutil.copy(Path(__file__).with_name("probe_dag.py"), folder / "dags" / "probe_dag.py")
    # A worker that was killed is missed after this many seconds instead of 300, and its job instead of 60.
    options = {
        "airflow-scheduler": {"environment": {"AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60"}},
        # A task waits this long with its slot for a job, so that there is time to kill both.
        "airflow-worker": {"environment": {"FMOPS_JOB_LOST_AFTER_S": str(LOST_AFTER_S), "FMOPS_JOB_INLINE_S": "30"}},
    }
    (folder / "docker-compose.override.yaml").write_text(json.dumps({"services": options}))
    stack = Stack(folder=folder, name="fmops-test", port=PORT, compose=compose_command())
    try:
        stack.run("up", "--detach", "--build", timeout_s=1800)
        stack.wait_healthy(UP_S)
        yield stack
    finally:
        stack.run("down", "--volumes", "--remove-orphans", check=False)


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[Client]:
    password = stack.exec("airflow-apiserver", "cat", f"{SECRETS}/admin_password")
    with Client(f"http://127.0.0.1:{PORT}", password) as client:
        yield client


def finished(client: Client, dag_id: str, run_id: str) -> str:
    """The state in which a run ended."""

    def ended() -> str | None:
        state = client.run_state(dag_id, run_id)
        return state if state in ("success", "failed") else None

    return wait_until(f"end of {dag_id}", ended, RUN_S)


def test_only_the_made_password_opens_the_ui(stack: Stack, client: Client) -> None:
    assert client.get("/version")["version"]
    for wrong in ("admin", "airflow", ""):
        with Client(client.url, wrong) as other, pytest.raises(AirflowError, match=r"/auth/token: 40"):
            other.get("/dags")
    assert httpx.get(f"{client.url}/api/v2/dags", trust_env=False).status_code == 401


def test_dags_run_to_results(stack: Stack, client: Client) -> None:
    start = time.monotonic()
    ingestion, probe = client.dag("rag_ingestion"), client.dag("probe_long")
    assert time.monotonic() - start < VISIBLE_S
    assert not client.get("/importErrors")["import_errors"]
    run, long_run = client.trigger(ingestion, {"corpus": "demo"}), client.trigger(probe, {})

    assert finished(client, "probe_long", long_run) == "success"
    assert client.xcom("probe_long", long_run, "long_task") >= 90
    assert {task["try_number"] for task in client.task_instances("probe_long", long_run)} == {1}
    assert client.xcom("probe_long", long_run, "surroundings") == {
        "uid": 50000,
        "path": ["/opt/airflow/config", "/opt/airflow/plugins", "/opt/airflow/dags"],
        "pythonpath": None,
        "include": "/opt/airflow/dags/include/__init__.py",
    }

    assert finished(client, "rag_ingestion", run) == "success"
    counts = client.xcom("rag_ingestion", run, "index.check")
    manifest = json.loads(stack.exec("airflow-worker", "cat", counts.pop("manifest_uri").removeprefix("file://")))
    assert manifest["run_id"] == run
    assert manifest["counts"] == counts
    assert counts["documents_total"] == counts["added"] > 0
    assert counts["chunks_embedded"] + counts["chunks_reused"] == counts["chunks_total"] > 0
    passages = stack.exec("airflow-worker", "python", "-m", "include.rag.ask", "How do I retry a task?")
    assert "score" in passages and "retr" in passages.lower()


IN_MLFLOW = """
from include.config import load_settings
from include.models.registry_mlflow import _client, tracking_uri
with _client(tracking_uri(load_settings())) as mlflow:
    mlflow.create_registered_model("probe")
    run = mlflow.create_run(mlflow.create_experiment("probe"))
    mlflow.log_text(run.info.run_id, "kept", "probe.txt")
    print(run.info.run_id)
"""


def test_mlflow_shows_this_machine_what_workers_write(stack: Stack) -> None:
    run = stack.exec("airflow-worker", "python", "-c", IN_MLFLOW).split()[-1]
    url = f"http://127.0.0.1:{PORT + 2}"
    with httpx.Client(base_url=url, trust_env=False) as browser:
        models = browser.get("/api/2.0/mlflow/registered-models/search").json()["registered_models"]
        assert [model["name"] for model in models] == ["probe"]
        assert browser.get("/get-artifact", params={"run_id": run, "path": "probe.txt"}).text == "kept"
        foreign = browser.get("/api/2.0/mlflow/registered-models/search", headers={"Host": "evil.example"})
        assert foreign.status_code == 403


class Smoke:
    """A run of the DAG `smoke`, and the folders of its job on the volume, as the triggerer sees them."""

    def __init__(self, stack: Stack, client: Client) -> None:
        self.stack, self.client = stack, client
        self.run = client.trigger(client.dag("smoke"), {"seconds": 60})

    def first(self) -> str:
        """The folder of the first generation, once there is one."""

        def told() -> str | None:
            try:
                return str(self.client.xcom("smoke", self.run, "job", "fmops_job")["folder"])
            except AirflowError:
                return None

        return wait_until("a job", told, RUN_S)

    def at_step(self, number: int, state: str) -> str:
        """The first generation's folder, once its script has come to that step and the task is in that state."""
        folder = self.first()

        def is_there() -> str | None:
            tasks = {task["task_id"]: task["state"] for task in self.client.task_instances("smoke", self.run)}
            step = self.read(f"{folder}/progress.json").get("step", 0)
            return folder if tasks["job"] == state and step >= number else None

        return wait_until(f"step {number} of the job while its task is {state}", is_there, RUN_S)

    def read(self, file: str) -> dict[str, Any]:
        """What a JSON file holds; nothing if it is not there yet."""
        text = self.stack.exec("airflow-triggerer", "sh", "-c", f"cat {file} 2>/dev/null || echo '{{}}'")
        return dict(json.loads(text))

    def result(self) -> dict[str, Any]:
        """What the task handed over; the run has ended well, and nothing of its jobs is left running."""
        assert finished(self.client, "smoke", self.run) == "success"
        result = dict(self.client.xcom("smoke", self.run, "job"))
        assert result["metrics"]["seconds"] == 60
        digest = result["job"].rpartition("-")[0]

        def are_gone() -> bool | None:
            commands = [command for _, _, command in self.stack.processes()]
            return not any(digest in command or "<defunct>" in command for command in commands) or None

        wait_until("no process of the job, and no zombie", are_gone, GONE_S)
        return result

    def generations(self) -> list[str]:
        """The folders of all that was started for this run, the first generation first."""
        digest = self.first().rpartition("-")[0]
        return sorted(self.stack.exec("airflow-triggerer", "sh", "-c", f"ls -d {digest}-g*").split())


def test_a_job_runs_in_the_jobs_environment(stack: Stack, client: Client) -> None:
    smoke = Smoke(stack, client)
    folder = smoke.at_step(1, "deferred")
    assert folder.startswith(f"{JOB_FOLDER}/")
    scripts = [command for service, _, command in stack.processes() if "fmops_job" in command and "worker" in service]
    assert scripts and all(command.startswith("/opt/fmops/jobs/bin/python") for command in scripts)
    result = smoke.result()
    assert result["job"] == Path(folder).name and result["job"].endswith("-g1")
    assert result["metrics"]["resumed_from_step"] == 0
    assert smoke.generations() == [folder]


def test_a_new_dag_needs_no_build(stack: Stack, client: Client) -> None:
    (stack.folder / "dags" / "added_later.py").write_text(
        "from airflow.sdk import dag, task\n\n\n@dag(schedule=None)\ndef added_later():\n"
        "    task(lambda: 1, task_id='one')()\n\n\nadded_later()\n"
    )
    dags = wait_until(
        "the new DAG", lambda: {d["dag_id"] for d in client.pages("/dags", "dags")} & {"added_later"} or None, VISIBLE_S
    )
    assert dags == {"added_later"}


def test_opensearch_stores_and_finds(stack: Stack) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{PORT + 1}", trust_env=False, timeout=30) as search:
        search.put("/probe/_doc/1?refresh=true", json={"text": "a needle"}).raise_for_status()
        hits = search.get("/probe/_search", params={"q": "text:needle"}).raise_for_status().json()["hits"]["hits"]
    assert [hit["_id"] for hit in hits] == ["1"]


def test_a_second_up_with_two_workers_keeps_the_secrets(stack: Stack, client: Client) -> None:
    before = stack.secrets()
    stack.run("up", "--detach", "--scale", "airflow-worker=2")
    stack.wait_healthy(UP_S)
    assert stack.secrets() == before
    replies = stack.exec(
        "airflow-worker", "sh", "-c", f'CELERY_BROKER_URL="$(cat {SECRETS}/broker_url)" celery inspect ping --json'
    )
    assert len(json.loads(replies)) == 2

    with Client(client.url, before["admin_password"]) as again:  # a fresh login
        run = again.trigger(again.dag("probe_meeting"), {})
        assert finished(again, "probe_meeting", run) == "success"
        hosts = {task["hostname"] for task in again.task_instances("probe_meeting", run)}
    assert len(hosts) == 2, "four tasks at once, two a worker"


def test_two_workers_one_of_them_killed_build_the_same_index_on_opensearch(stack: Stack, client: Client) -> None:
    """The shards that a killed worker held are taken up by the other; the rows are those that one worker wrote."""
    values = {"store": "opensearch", "index": "cluster", "documents_per_shard": 20}
    run = client.trigger(client.dag("rag_ingestion"), values)

    def shards(state: str) -> list[dict[str, Any]]:
        tasks = client.task_instances("rag_ingestion", run)
        return [task for task in tasks if task["task_id"] == "embed.shard" and task["state"] == state]

    wait_until("half of the shards", lambda: shards("success")[5:] or None, RUN_S)
    busy = wait_until("a shard at work", lambda: shards("running") or None, RUN_S)[0]["hostname"]
    stack.kill(busy)
    assert finished(client, "rag_ingestion", run) == "success"
    assert max(task["try_number"] for task in shards("success")) > 1

    with httpx.Client(base_url=f"http://127.0.0.1:{PORT + 1}", trust_env=False, timeout=60) as search:
        query = {"size": 10_000, "_source": ["metadata.content_digest"]}
        found = search.post("/fmops.default.cluster/_search", json=query).raise_for_status().json()["hits"]["hits"]
    on_cluster = {hit["_id"]: hit["_source"]["metadata"]["content_digest"] for hit in found}
    assert len(on_cluster) == len(found)
    script = (
        "import json; from include.config import load_settings; from include.rag.versions import Versions; "
        "v = Versions(load_settings().root, 'default', 'docs'); n = v.live().version; s = v.open(n, v.get(n).spec); "
        "rows = s.rows(list(s.documents())).select(['id', 'content_digest']).to_pylist(); "
        "print(json.dumps({r['id']: r['content_digest'] for r in rows}))"
    )
    stack.run("up", "--detach", "--scale", "airflow-worker=2")
    stack.wait_healthy(UP_S)
    on_disk = stack.exec("airflow-worker", "python", "-c", script).splitlines()[-1]
    assert on_cluster == json.loads(on_disk)


@pytest.mark.parametrize("state", ["running", "deferred"])
def test_a_job_whose_worker_is_killed_goes_on_at_the_other(stack: Stack, client: Client, state: str) -> None:
    """The worker's container takes the job with it, and the task too unless that waits in the triggerer."""
    stack.run("up", "--detach", "--scale", "airflow-worker=2")
    stack.wait_healthy(UP_S)
    smoke = Smoke(stack, client)
    folder = smoke.at_step(6, state)
    stack.kill(smoke.read(f"{folder}/started.json")["host"])
    result = smoke.result()
    assert result["metrics"]["resumed_from_step"] >= 3
    first, second = smoke.generations()
    assert (Path(first), Path(second).name) == (Path(folder), result["job"])
    lost, begun = smoke.read(f"{first}/status.json"), smoke.read(f"{second}/started.json")
    assert (lost["state"], lost["cause"]) == ("failed", "lost")
    beat = float(stack.exec("airflow-triggerer", "stat", "-c", "%.Y", f"{first}/heartbeat"))
    assert datetime.fromisoformat(begun["started_at"]).timestamp() > beat + LOST_AFTER_S


def test_a_job_outlives_scheduler_and_triggerer(stack: Stack, client: Client) -> None:
    smoke = Smoke(stack, client)
    folder = smoke.at_step(6, "deferred")
    services = ("airflow-scheduler", "airflow-triggerer")
    stack.kill(*(one["Id"] for one in stack.containers() if service_of(one) in services))
    stack.run("up", "--detach", "--scale", "airflow-worker=2")
    stack.wait_healthy(UP_S)
    result = smoke.result()
    assert result["job"] == Path(folder).name and result["metrics"]["resumed_from_step"] == 0
    assert smoke.generations() == [folder]
    assert {task["try_number"] for task in client.task_instances("smoke", smoke.run)} == {1}


def test_each_secret_is_for_its_reader_alone(stack: Stack) -> None:
    modes = stack.exec("postgres", "sh", "-c", f"stat -c '%n %a %u' {SECRETS}/*").splitlines()
    owners = {}
    for line in modes:
        name, mode, uid = line.rsplit(" ", 2)
        assert mode == "600", name
        owners[Path(name).name] = int(uid)
    assert {name for name, uid in owners.items() if uid == 50000} == {
        "admin_password",
        "api_secret_key",
        "broker_url",
        "fernet_key",
        "jwt_secret",
        "sql_alchemy_conn",
    }
    assert {name for name, uid in owners.items() if uid == 0} == {"postgres_password", "redis_password"}
    assert set(owners) - {name for name, uid in owners.items() if uid in (0, 50000)} == {"redis.conf"}


def test_no_secret_shows(stack: Stack) -> None:
    secrets = stack.secrets()
    config = secrets.pop("redis.conf")
    assert secrets["redis_password"] in config
    assert all(len(value) >= 40 for value in secrets.values())
    assert len(set(secrets.values())) == len(secrets)
    places = {
        "docker-compose config": stack.run("config"),
        "docker inspect": json.dumps(stack.containers()),
        "logs": stack.run("logs", "--no-color"),
        "processes": "\n".join(command for _, _, command in stack.processes()),
        "task logs": stack.exec("airflow-worker", "sh", "-c", "cat $(find /opt/airflow/logs -type f)"),
    }
    for place, text in places.items():
        assert text, place
        for name, value in secrets.items():
            assert value not in text, f"{name} shows in {place}"


def test_no_process_is_root(stack: Stack) -> None:
    seen = set()
    for service, uid, command in stack.processes():
        assert uid != 0, f"{service}: {command}"
        seen.add(service)
    assert len(seen) == 8


def test_packages_beside_airflow_s_agree(stack: Stack) -> None:
    assert "No broken requirements" in stack.exec("airflow-apiserver", "python", "-m", "pip", "check")


def test_down_leaves_no_container_and_keeps_the_data(stack: Stack) -> None:
    before = stack.secrets()
    stack.run("down")
    assert stack.containers() == []
    stack.run("up", "--detach", "postgres")
    stack.wait_healthy(UP_S)
    assert stack.secrets() == before
    tables = "select count(*) from dag_run where state = 'success'"
    command = f'PGPASSWORD="$(cat {SECRETS}/postgres_password)" psql -h 127.0.0.1 -U airflow -tAc "{tables}" airflow'
    assert int(stack.exec("postgres", "sh", "-c", command)) >= 3
