from __future__ import annotations

from pathlib import Path

import pytest

from tests.rag.ingestion import Ingestion


@pytest.fixture
def ingestion(root: str, corpus: Path) -> Ingestion:
    """Of the corpus that a test file makes."""
    return Ingestion(root, str(corpus))
