from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from airflow.sdk import ExceptionRetryPolicy, RetryAction

from include.callbacks import log_failure
from include.dag_defaults import default_args, retry_policy
from include.errors import DocumentError, DriftError, GateError, StateMovedError, ToleranceError, UserError
from tests.real_airflow import home_with_database

PROJECT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (UserError("x"), RetryAction.FAIL),
        (DocumentError("x"), RetryAction.FAIL),
        (StateMovedError("x"), RetryAction.FAIL),
        (DriftError("x"), RetryAction.FAIL),
        (ToleranceError("x"), RetryAction.FAIL),
        (GateError("x"), RetryAction.FAIL),
        (PermissionError("x"), RetryAction.FAIL),
        (ConnectionResetError("x"), RetryAction.RETRY),
        (TimeoutError("x"), RetryAction.RETRY),
        (ValueError("x"), RetryAction.DEFAULT),
        (ImportError("x"), RetryAction.DEFAULT),
    ],
)
def test_what_is_retried(error: Exception, action: RetryAction) -> None:
    policy = retry_policy()
    assert policy.evaluate(error, try_number=1, max_tries=2).action is action
    # Matched by import path too, which is all that a copy of the policy in another process would hold.
    copy = ExceptionRetryPolicy.deserialize(json.loads(json.dumps(policy.serialize())))
    assert copy.evaluate(error, try_number=1, max_tries=2).action is action


def test_default_args() -> None:
    args = default_args(owner="search")
    assert args["owner"] == "search"
    assert args["retries"] == 2
    assert args["on_failure_callback"] == [log_failure]
    assert default_args()["owner"] == "fmops"
    assert default_args() is not default_args(), "a DAG may change its own"


@pytest.mark.airflow
def test_in_a_real_run(tmp_path: Path) -> None:
    """Airflow itself consults the policy and calls the callback, on a database of its own."""
    dags = tmp_path / "dags"
    dags.mkdir()
    shutil.copy(PROJECT / "tests" / "failing_dag.py", dags)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "AIRFLOW_HOME": str(home_with_database(tmp_path / "airflow")),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": str(PROJECT),
    }
    done = subprocess.run(
        [sys.executable, dags / "failing_dag.py"],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout
    tries = {file.stem: len(file.read_text()) for file in dags.glob("*.tries")}
    assert tries == {"wrong_setting": 1, "shaky_network": 2, "shard": 3}, done.stdout
    failures = [line.partition("FAILED ")[2] for line in done.stdout.splitlines() if "FAILED failing_dag" in line]
    assert len(failures) == 2, done.stdout
    texts = {line.partition(" task ")[2].partition("; log: ")[0] for line in failures}
    assert texts == {
        "wrong_setting, try 1: UserError: chunk_tokens=0: must be 16 or more",
        "shard[0], try 3: RuntimeError: nobody expected this",
    }
    assert all("; log: http://localhost:8080/dags/failing_dag/runs/manual" in line for line in failures)
