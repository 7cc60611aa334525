"""What every test starts from: an Airflow home of its own, no settings of the machine, storage that is thrown away."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.home import PROJECT
from local.options import read_options
from tests.shared import share


def _isolate() -> None:
    """Before anything imports Airflow, which reads its environment once."""
    for name in [n for n in os.environ if n.startswith(("FMOPS_", "AIRFLOW_", "AWS_"))]:
        if name not in ("FMOPS_VENV", "FMOPS_JOBS_VENV", "FMOPS_PORT"):
            del os.environ[name]
    home = tempfile.mkdtemp(prefix="fmops-tests-airflow-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ |= read_options(PROJECT / "airflow.env")
    os.environ["AIRFLOW_HOME"] = home
    os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(PROJECT / "dags")
    os.environ["AIRFLOW__CORE__PLUGINS_FOLDER"] = str(PROJECT / "plugins")
    # Dummy credentials: nothing here may reach a real account.
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


_isolate()
share()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start an Airflow first: they take longest, and one that is begun last ends alone."""
    long = {item.path for item in items if item.get_closest_marker("airflow")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A storage root of the test's own, set as the project's."""
    uri = (tmp_path / "storage").as_uri()
    monkeypatch.setenv("FMOPS_STORAGE_ROOT", uri)
    return uri


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """An S3 service on loopback for the whole session."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_root(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh bucket's URI; the environment points at the local S3."""
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket=bucket)
    return f"s3://{bucket}/root"


@pytest.fixture(params=["file", "memory", "s3"])
def any_root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A root on each backend that storage supports, one after the other."""
    if request.param == "s3":
        return str(request.getfixturevalue("s3_root"))
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    return tmp_path.as_uri()
