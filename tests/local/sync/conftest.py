"""Projects, buckets and answers of S3."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse

import local.sync
from tests.local.sync.deployment import Deployment


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the loading of DAGs and plugins, which takes seconds and has tests of its own."""
    monkeypatch.setattr(local.sync, "check_loads", lambda files, say: None)


@pytest.fixture
def mine(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Deployment:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    return Deployment(tmp_path / "project")


@pytest.fixture
def synced(mine: Deployment, loads: None) -> Deployment:
    mine.sync()
    return mine


@pytest.fixture
def answering() -> Callable[..., None]:
    """Let an operation of a client be answered with a status, as S3 answers where something is not allowed."""

    class Nothing(io.BytesIO):
        def stream(self, **_: object) -> Iterator[bytes]:
            return iter(())

    def answer(client: Any, operation: str, status: int, only: Callable[[Any], bool] = lambda request: True) -> None:
        def respond(request: Any, **_: object) -> AWSResponse | None:
            return AWSResponse(request.url, status, {}, Nothing()) if only(request) else None

        client.meta.events.register(f"before-send.s3.{operation}", respond)

    return answer
