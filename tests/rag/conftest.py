from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.models.model_server import DIMENSION, ModelServer, serving
from tests.rag.ingestion import Ingestion


@pytest.fixture
def ingestion(root: str, corpus: Path) -> Ingestion:
    """Of the corpus that a test file makes."""
    return Ingestion(root, str(corpus))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    """A model server that the embedder `openai` is set to."""
    with serving() as running:
        monkeypatch.setenv("FMOPS_EMBEDDING_URL", f"{running.url}/v1")
        monkeypatch.setenv("FMOPS_EMBEDDING_MODEL", "first:latest")
        monkeypatch.setenv("FMOPS_EMBEDDING_DIMENSION", str(DIMENSION))
        yield running
