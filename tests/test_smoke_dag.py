"""The smoke DAG as users run it first: by dag.test() on this machine, and in a real Airflow on the AWS endpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from include.storage import location
from local.airflow import LocalAirflow
from local.client import Client
from local.home import PROJECT
from local.watch import follow
from tests.aws.endpoint import AwsEndpoint, aws_endpoint
from tests.real_airflow import home_with_database

pytestmark = pytest.mark.airflow
slow = pytest.mark.slow

DAG = "smoke"
IN_PROCESS = """
import json, sys
from airflow.dag_processing.dagbag import DagBag

sys.path += sys.argv[3:]  # as Airflow has them: the folder of DAGs, and that of plugins
dag = DagBag(sys.argv[1]).get_dag("smoke")
run = dag.test(run_conf=json.loads(sys.argv[2]))
print(run.state.value if hasattr(run.state, "value") else run.state)
"""


@pytest.mark.parametrize("inline_s", [pytest.param(15, marks=slow), 0])
def test_by_dag_test_on_this_machine(tmp_path: Path, inline_s: int) -> None:
    """With no second to wait inline it is deferred, and its trigger runs in the same process."""
    environment = os.environ | {
        "AIRFLOW_HOME": str(home_with_database(tmp_path / "airflow")),
        "FMOPS_STORAGE_ROOT": (tmp_path / "storage").as_uri(),
        "FMOPS_JOB_INLINE_S": str(inline_s),
    }
    dags = PROJECT / "dags"
    given = [dags / "operations" / "smoke.py", json.dumps({"seconds": 2}), dags, PROJECT / "plugins"]
    done = subprocess.run(
        [sys.executable, "-c", IN_PROCESS, *map(str, given)],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "success", done.stdout + done.stderr
    (note,) = (tmp_path / "storage" / "default" / "jobs" / "outputs" / DAG).glob("*.json")
    output = json.loads(note.read_text())
    assert output["metrics"]["seconds"] == 2 and output["backend"] == "local"


class Aws:
    """An Airflow with target aws."""

    def __init__(self, airflow: LocalAirflow, client: Client, endpoint: AwsEndpoint) -> None:
        self.airflow, self.client, self.endpoint = airflow, client, endpoint

    def run(self, **conf: Any) -> tuple[str, str, list[str]]:
        lines: list[str] = []
        run_id = self.client.trigger(self.client.dag(DAG), conf)
        state = follow(self.client, DAG, run_id, say=lines.append, check_alive=self.airflow.check_alive)
        return state, run_id, lines


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with aws_endpoint() as endpoint:
        endpoint.client("s3").create_bucket(Bucket="smoke")
        options = {
            **endpoint.deployment("s3://smoke/root"),
            "FMOPS_JOB_INLINE_S": "1",
            "FMOPS_JOB_POLL_S": "1",
        }
        home = home_with_database(tmp_path_factory.mktemp("smoke"))
        with LocalAirflow(home=home, port=0, options=options) as airflow, airflow.client() as client:
            yield Aws(airflow, client, endpoint)


@pytest.mark.parametrize("kind", ["training", pytest.param("processing", marks=slow)])
def test_on_sagemaker(aws: Aws, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    aws.endpoint.reset()
    state, run_id, lines = aws.run(seconds=4, kind=kind)
    assert state == "success", lines
    result = aws.client.xcom(DAG, run_id, "job")
    assert result["metrics"]["seconds"] == 4 and result["billed_s"] > 0
    assert [(job["kind"], job["name"], job["status"]) for job in aws.endpoint.jobs()] == [
        (kind, result["job"], "Completed")
    ]
    for name, value in aws.endpoint.environment.items():
        monkeypatch.setenv(name, value)
    assert (location(result["output_uri"]) / "manifest.json").exists()


def test_a_spot_job_that_is_interrupted_goes_on(aws: Aws) -> None:
    aws.endpoint.reset()
    aws.endpoint.plan("interrupt", line='"step": 5', seconds=0.5)  # a checkpoint was taken at the third or fourth
    state, run_id, lines = aws.run(seconds=8, spot=True)
    assert state == "success", lines
    result = aws.client.xcom(DAG, run_id, "job")
    assert result["metrics"]["resumed_from_step"] >= 3
    assert len(aws.endpoint.jobs()) == 1 and not aws.endpoint.faults_left()


def test_what_is_missing_is_reported_before_any_job(aws: Aws) -> None:
    aws.endpoint.reset()
    aws.endpoint.set_account(quotas={"ml.m5.large for training job usage": 0.0}, denied=["iam:PassRole"])
    state, run_id, lines = aws.run(budget_usd=0.01, usd_per_hour=0.2)
    assert state == "failed" and not aws.endpoint.jobs()
    said = "\n".join(lines)
    assert "UserError: preflight: " in said
    for problem in ("may not pass", "is 0, the job wants 1", "budget: at most 0.03 USD of 0.01 USD"):
        assert problem in said
    (task,) = [one for one in aws.client.task_instances(DAG, run_id) if one["task_id"] == "preflight"]
    assert task["try_number"] == 1, "a second try cannot help"
