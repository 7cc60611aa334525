from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.rag.stores import Place, Store
from tests.opensearch.launcher import server
from tests.opensearch.proxy import Proxy
from tests.rag.stores.chunks import opensearch_at, place


@pytest.fixture
def where(root: str) -> Place:
    return place(root)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """In front of a real OpenSearch; it fails as a test plans."""
    with Proxy(server().url) as proxy:
        yield proxy


@pytest.fixture
def store(proxy: Proxy, where: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The store `opensearch` behind the proxy."""
    with opensearch_at(proxy.url, where, monkeypatch) as store:
        yield store
