"""The view of releases on an MLflow server, and on one that SageMaker manages."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator

import pytest

from include.config import load_settings
from include.models.registry_mlflow import Synced, sync_mlflow, tracking_uri
from include.training import curve
from tests.models.mlflow_view import client, place, plant_three, view

ARN = "arn:aws:sagemaker:us-east-1:123456789012:mlflow-tracking-server/fmops"


@pytest.fixture
def three(root: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A root with planted releases; drawing their curves would take longer than all else."""
    monkeypatch.setattr(curve, "draw", lambda *_: b"a curve")
    return plant_three(root)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an MLflow server as docker-compose.yaml starts one."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "files"),
    ]
    off = dict.fromkeys(("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "MLFLOW_ENABLE_AI_GATEWAY"), "false")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, env=os.environ | off, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
        url = f"http://127.0.0.1:{port}"
        try:
            wait_for(f"{url}/health", process)
            yield url
        finally:
            process.terminate()
            process.wait(timeout=30)


@pytest.fixture
def server(running: str) -> Iterator[str]:
    """The server, which shows nothing."""
    yield running
    with client(running) as mlflow:
        for model in mlflow.search_registered_models():
            mlflow.delete_registered_model(model.name)
        for experiment in mlflow.search_experiments():
            if experiment.name != "Default":
                mlflow.rename_experiment(experiment.experiment_id, uuid.uuid4().hex)
                mlflow.delete_experiment(experiment.experiment_id)


def wait_for(url: str, process: subprocess.Popen[bytes], timeout_s: float = 90.0) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{url} did not answer")


def test_a_server_shows_the_same_as_a_file(
    three: str, server: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    sync_mlflow(three, "acme", place(three))
    before = view(place(three))
    monkeypatch.setenv("FMOPS_MLFLOW_TRACKING_URI", server)
    assert tracking_uri(load_settings()) == server
    assert sync_mlflow(three, "acme", server) == Synced(models=2, versions=4, written=4)
    assert sync_mlflow(three, "acme", server).written == 0
    assert "View run" not in (said := capfd.readouterr()).out and "request headers" not in said.err
    found = view(server)
    for one in (before, found):
        sources = [version.pop("source") for model in one.values() for version in model["versions"]]
    assert found == before
    assert all(one.startswith("mlflow-artifacts:/") and one.endswith("/artifacts/release") for one in sources), (
        "a server takes no path on another machine's disk"
    )


def test_a_server_that_sagemaker_manages_is_asked_by_its_arn(
    three: str, server: str, s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from requests import PreparedRequest
    from sagemaker_mlflow.auth import AuthBoto

    with client(server) as mlflow:  # SageMaker's server keeps artifacts in a bucket, to which its clients write
        for name in ("base", "other"):
            mlflow.create_experiment(f"acme/{name}", artifact_location=f"{s3_root}/{name}")
    monkeypatch.setenv("FMOPS_MLFLOW_TRACKING_URI", ARN)
    monkeypatch.setenv("SAGEMAKER_MLFLOW_CUSTOM_ENDPOINT", server)  # where the plugin sends what it has signed
    signed: list[PreparedRequest] = []
    sign = AuthBoto.__call__

    def signing(self: AuthBoto, request: PreparedRequest) -> PreparedRequest:
        signed.append(sign(self, request))
        return signed[-1]

    monkeypatch.setattr(AuthBoto, "__call__", signing)
    assert tracking_uri(load_settings()) == ARN
    assert sync_mlflow(three, "acme", ARN).written == 4
    assert sync_mlflow(three, "acme", ARN).written == 0
    assert signed and all(
        request.headers["Authorization"].startswith("AWS4-HMAC-SHA256") and "us-east-1/sagemaker-mlflow" in
        request.headers["Authorization"] for request in signed
    )  # fmt: skip
    assert view(server)["acme.base"]["aliases"] == {"champion": 2, "challenger": 3}
