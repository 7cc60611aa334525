"""`make ui-mlflow`: what it serves, where it only points to, and that nothing of it is left."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

import local.ui_mlflow as verb
from include.config import load_settings
from include.errors import UserError
from local.home import PROJECT, AirflowError
from local.processes import alive
from local.ui_mlflow import ui_mlflow
from tests.models.mlflow_view import plant_three

ARN = "arn:aws:sagemaker:eu-west-1:123456789012:mlflow-tracking-server/fmops"


@pytest.fixture
def launcher(root: str) -> Iterator[subprocess.Popen[str]]:
    """The verb at work on planted releases, in a terminal of its own."""
    plant_three(root)
    environment = {**os.environ, "FMOPS_TENANT": "acme", "FMOPS_MLFLOW_PORT": "0"}
    process = subprocess.Popen(
        [sys.executable, "-m", "local", "ui-mlflow"],
        cwd=PROJECT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    family = psutil.Process(process.pid)
    try:
        yield process
    finally:
        if process.poll() is None:
            for one in (*family.children(recursive=True), family):
                one.kill()
            process.wait()


def read_until(process: subprocess.Popen[str], pattern: str) -> str:
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if found := re.search(pattern, line):
            return found[0]
    raise AssertionError(f"it ended and said: {said}")


def test_it_shows_the_releases_until_ctrl_c_and_leaves_nothing(launcher: subprocess.Popen[str], root: str) -> None:
    url = read_until(launcher, r"http://127\.0\.0\.1:\d+")
    found = httpx.get(f"{url}/api/2.0/mlflow/registered-models/search", trust_env=False).json()
    aliases = {model["name"]: model.get("aliases") for model in found["registered_models"]}
    assert list(aliases) == ["acme.base", "acme.other"]
    assert {one["alias"]: one["version"] for one in aliases["acme.base"]} == {"champion": "2", "challenger": "3"}
    page = httpx.get(url, trust_env=False)
    assert page.is_success and "<title>MLflow</title>" in page.text
    assert "https://" not in re.sub(r"<!--.*?-->", "", page.text, flags=re.DOTALL), "the page needs nothing else"
    telemetry = httpx.get(f"{url}/ajax-api/3.0/mlflow/ui-telemetry", trust_env=False).json()
    assert telemetry["disable_ui_telemetry"] is True
    children = psutil.Process(launcher.pid).children(recursive=True)
    listening = [one.laddr for child in children for one in child.net_connections() if one.status == "LISTEN"]
    assert listening and {address.ip for address in listening} == {"127.0.0.1"}
    os.kill(launcher.pid, signal.SIGINT)
    assert "mlflow: ended, no process is left" in launcher.communicate(timeout=60)[0]
    assert launcher.returncode == 0
    assert [child for child in children if alive(child)] == []
    assert (Path(root.removeprefix("file://")) / "mlflow.db").exists()


def told(monkeypatch: pytest.MonkeyPatch, uri: str) -> str:
    monkeypatch.setenv("FMOPS_MLFLOW_TRACKING_URI", uri)
    said: list[str] = []
    assert ui_mlflow(load_settings(), {}, said.append) == 0
    return "\n".join(said)


def test_of_a_server_it_says_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(monkeypatch, "http://mlflow:5000") == "mlflow: the models are shown at http://mlflow:5000"
    assert told(monkeypatch, ARN).endswith(
        "create-presigned-mlflow-tracking-server-url --region eu-west-1 --tracking-server-name fmops"
    )
    app = ARN.replace("mlflow-tracking-server", "mlflow-app")
    assert told(monkeypatch, app).endswith("open it from SageMaker Studio")


def test_without_a_view_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMOPS_STORAGE_ROOT", "s3://bucket/root")
    with pytest.raises(UserError, match="no MLflow is set for s3://bucket/root: set FMOPS_MLFLOW_TRACKING_URI"):
        ui_mlflow(load_settings(), {}, print)


def test_a_port_that_is_taken_is_told_with_the_variable_that_moves_it(root: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        with pytest.raises(UserError, match=f"port {port} cannot be used .*, or set FMOPS_MLFLOW_PORT"):
            ui_mlflow(load_settings(), {"FMOPS_MLFLOW_PORT": port}, print)
    with pytest.raises(UserError, match="FMOPS_MLFLOW_PORT=x is not a port"):
        ui_mlflow(load_settings(), {"FMOPS_MLFLOW_PORT": "x"}, print)


def test_a_server_that_does_not_start_is_told_with_its_last_words(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/sh")  # sh does not know the options
    with pytest.raises(AirflowError, match=r"mlflow ended with status 2; its last words:\n  .*"):
        with verb._serving(f"sqlite:///{root.removeprefix('file://')}/mlflow.db", 1):
            pass
