"""Bulk writes to OpenSearch through a proxy that fails by plan."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pyarrow as pa
import pytest

from include.errors import BusyError
from include.rag.stores import Place, Store, chunk_schema, vector_digest
from include.rag.stores import opensearch_client as client
from tests.opensearch.launcher import server
from tests.opensearch.proxy import Proxy
from tests.rag.stores.chunks import AXES, DIMENSION, opensearch_at, rows

WIDTH = 8
CHUNKS = 5
DOCUMENTS = 2_000


def many(first: int, last: int) -> pa.Table:
    """Documents of CHUNKS chunks each, with vectors of WIDTH that differ."""
    vectors = np.random.default_rng(first).standard_normal(((last - first) * CHUNKS, WIDTH)).astype(np.float32)
    made = []
    for number, vector in enumerate(vectors):
        doc, ordinal = first + number // CHUNKS, number % CHUNKS
        row = {"id": f"d{doc}-{ordinal}", "doc_id": f"d{doc}", "ordinal": ordinal, "text": f"text {number} of d{doc}"}
        row |= {"tenant": "acme", "title": f"d{doc}", "headings": [], "content_digest": f"content {doc}"}
        row |= {"embedding_digest": f"e{doc}-{ordinal}", "vector": vector}
        made.append(row | {"vector_digest": vector_digest(f"e{doc}-{ordinal}", vector)})
    return pa.Table.from_pylist(made, schema=chunk_schema(WIDTH))


def test_ten_thousand_chunks_through_every_fault(proxy: Proxy, where: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_REQUEST_SECONDS", 10.0)  # the stall is longer; a slow answer is not
    written = [many(first, first + 500) for first in range(0, DOCUMENTS, 500)]
    ids = [key for table in written for key in table["id"].to_pylist()]
    proxy.rejected = set(ids[500::1_000])
    proxy.throttled = {key: 1 + number % 3 for number, key in enumerate(ids[7::100])}
    expected_429 = sum(proxy.throttled.values())
    node = server()
    proxy.bulk_faults = {10: "truncate", 30: "stall", 50: node.restart if node.can_restart else "drop", 70: "garble"}
    proxy.stall_seconds = 30.0
    refused = []
    with opensearch_at(proxy.url, where, monkeypatch, WIDTH, deadline_s=120, bulk_items=100) as store:
        with store.loading(live=False):
            for table in written:
                refused += store.replace(sorted(set(table["doc_id"].to_pylist())), table)
        store.finish()
        held = store.documents()
        assert proxy.counts["item 429"] == expected_429 >= 0.01 * len(ids)
        assert proxy.counts["item 400"] >= 10  # one more for each that was sent again with a lost request
        assert (proxy.counts["truncate"], proxy.counts["stall"]) == (1, 1)
        assert proxy.counts["garble"] == proxy.counts["called" if node.can_restart else "drop"] == 1
        named = {refusal.doc_id: refusal.reason for refusal in refused}
        assert sorted(named) == sorted({key.split("-")[0] for key in proxy.rejected})
        assert set(named.values()) == {"mapper_parsing_exception: planned by the test"}
        kept = [f"d{number}" for number in range(DOCUMENTS) if f"d{number}" not in named]
        assert held == {key: (f"content {key[1:]}", CHUNKS) for key in kept}
        found = store.rows([f"d{number}" for number in range(DOCUMENTS)])
        whole = pa.concat_tables(written)
        wanted = whole.filter(pa.compute.is_in(whole["doc_id"], pa.array(kept)))
        assert found.sort_by("id").to_pylist() == wanted.sort_by("id").to_pylist()


@pytest.mark.parametrize("fault", ["truncate", "garble", "drop", "429", "500", "502", "503", "504"])
def test_a_request_that_failed_for_now_is_sent_again(proxy: Proxy, store: Store, fault: str) -> None:
    store.replace(["a"], rows("a", ["former"]))
    proxy.bulk_faults = {2: fault, 3: fault}
    proxy.faults = [fault] * 3
    assert store.replace(["a"], rows("a", ["one", "two"])) == []
    assert store.documents() == {"a": ("digest of a", 2)}
    assert proxy.counts[fault] == 5


def test_what_is_refused_for_load_until_the_deadline_is_an_error_that_may_pass(
    proxy: Proxy, where: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opensearch_at(proxy.url, where, monkeypatch, deadline_s=2) as store:
        store.replace(["b"], rows("b", ["kept"]))
        proxy.throttled = {"a-1": -1}
        with pytest.raises(
            BusyError, match=r"1 of 1 items were refused for load; given up after 2 s \(at most opensea"
        ):
            store.replace(["a"], rows("a", ["one", "two"]))
        proxy.throttled = {}
        assert store.replace(["a"], rows("a", ["one", "two"])) == []
        assert store.documents() == {"a": ("digest of a", 2), "b": ("digest of b", 1)}


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        ("503", BusyError, "503 planned"),
        ("drop", ConnectionError, "no connection"),
        ("stall", TimeoutError, "no answer"),
    ],
)
def test_a_server_that_is_away_until_the_deadline(
    proxy: Proxy, where: Place, monkeypatch: pytest.MonkeyPatch, fault: str, kind: type[Exception], says: str
) -> None:
    with opensearch_at(proxy.url, where, monkeypatch, deadline_s=2) as store:
        proxy.stall_seconds = 10.0
        proxy.bulk_faults = dict.fromkeys(range(1, 1_000), fault)
        with pytest.raises(kind, match=says):
            store.replace(["a"], rows("a", ["one"]))
        proxy.bulk_faults, proxy.faults = {}, [fault] * 1_000
        with pytest.raises(kind, match=says):
            store.documents()
        proxy.faults = []


def test_a_request_that_is_too_large_is_sent_in_halves_and_a_chunk_that_is_too_large_refused(
    proxy: Proxy, store: Store
) -> None:
    texts = np.random.default_rng(1).bytes(16 * 400).hex()
    huge = np.random.default_rng(2).bytes(20_000).hex()
    proxy.largest_body = 8_000
    fits = rows("a", [texts[start : start + 200] for start in range(0, len(texts), 200)])
    refused = store.replace(["a", "b"], pa.concat_tables([fits, rows("b", ["small", huge])]))
    assert [refusal.doc_id for refusal in refused] == ["b"]
    assert "is more than OpenSearch takes" in refused[0].reason
    assert proxy.counts["413"] > 1
    assert store.documents() == {"a": ("digest of a", fits.num_rows)}


def test_requests_are_bounded_in_bytes_and_in_items(
    proxy: Proxy, where: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opensearch_at(proxy.url, where, monkeypatch, bulk_mb=0.05, bulk_items=20) as store:
        long = rows("a", [f"{number} " + "word " * 2_000 for number in range(30)])
        store.replace(["a", "b"], pa.concat_tables([long, rows("b", [str(number) for number in range(70)])]))
        assert store.documents() == {"a": ("digest of a", 30), "b": ("digest of b", 70)}
    bodies = [gzip.decompress(body) for body in proxy.bodies]
    items = [len(body.splitlines()) // 2 for body in bodies]
    assert max(items) == 20
    assert max(len(body) for body in bodies) <= 0.05 * (1 << 20)
    assert min(items[:-1]) < 5  # the long ones went by bytes, the short ones by number
    assert all(len(body) < len(plain) for body, plain in zip(proxy.bodies, bodies, strict=True))


def test_a_document_that_the_server_itself_calls_wrong_is_removed_and_named(store: Store) -> None:
    store.replace(["a", "b"], pa.concat_tables([rows("a", ["one"]), rows("b", ["two"])]))
    wrong = rows("a", ["new", "zero"]).to_pylist()
    wrong[1]["vector"] = [0.0] * DIMENSION  # has no direction, so that no cosine can be told
    changed = pa.concat_tables([pa.Table.from_pylist(wrong, schema=chunk_schema(DIMENSION)), rows("b", ["three"])])
    refused = store.replace(["a", "b"], changed)
    assert [refusal.doc_id for refusal in refused] == ["a"]
    assert "zero vector" in refused[0].reason
    assert "\n" not in refused[0].reason
    assert store.documents() == {"b": ("digest of b", 1)}
    assert store.replace(["a"], rows("a", ["mended"])) == []


def test_an_index_that_may_not_be_written_sets_no_document_aside(proxy: Proxy, store: Store) -> None:
    store.replace(["a"], rows("a", ["one"]))
    name = store.uri.rsplit("/", 1)[-1]
    proxy.forward("PUT", f"/{name}/_settings", {}, json.dumps({"index.blocks.write": True}).encode())
    with pytest.raises(PermissionError, match=r"refused to write \(403\): cluster_block_exception"):
        store.replace(["a"], rows("a", ["two"]))
    assert store.documents() == {"a": ("digest of a", 1)}
    assert [hit.row["text"] for hit in store.dense(AXES[0], 5, {})] == ["one"]
