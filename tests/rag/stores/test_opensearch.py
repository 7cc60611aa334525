"""What only OpenSearch has: an index of its own making, settings for a load, an alias, and what serverless lacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from include.errors import UserError
from include.rag.stores import Place, Store, chunk_schema, open_store
from local.home import PROJECT
from tests.opensearch.proxy import Proxy
from tests.rag.stores.chunks import AXES, DIMENSION, opensearch_at, place, rows


def asked(proxy: Proxy, method: str, path: str, body: object = None) -> Any:
    """The server's own answer."""
    status, answer = proxy.forward(method, path, {}, None if body is None else json.dumps(body).encode())
    assert status == 200, answer
    return json.loads(answer)


def load_settings_of(proxy: Proxy, where: Place) -> tuple[str | None, str]:
    """Refresh interval and replicas."""
    found = asked(proxy, "GET", f"/{where.name}/_settings")[where.name]["settings"]["index"]
    return found.get("refresh_interval"), found["number_of_replicas"]


def test_a_chunk_lies_as_langchain_reads_it_and_its_fields_are_mapped_by_name(
    proxy: Proxy, where: Place, store: Store
) -> None:
    store.replace(["a"], rows("a", ["one"]))
    (hit,) = asked(proxy, "GET", f"/{where.name}/_search")["hits"]["hits"]
    source = hit["_source"]
    assert (hit["_id"], source["text"], source["vector_field"]) == ("a-0", "one", [1.0, 0.0, 0.0, 0.0])
    assert sorted(source["metadata"]) == sorted(set(chunk_schema(DIMENSION).names) - {"text", "vector"})
    assert source["search_text"] == "a > A > B\none"
    mapping = asked(proxy, "GET", f"/{where.name}/_mapping")[where.name]["mappings"]
    assert mapping["dynamic"] == mapping["properties"]["metadata"]["dynamic"] == "false"
    within = mapping["properties"]["metadata"]["properties"]
    assert {"tenant", "doc_id", "embedding_digest"} < set(within)
    assert "ordinal" not in within
    method = mapping["properties"]["vector_field"]["method"]
    assert (method["engine"], method["space_type"]) == ("lucene", "cosinesimil")


def test_an_index_file_is_merged_over_what_a_new_index_gets(
    proxy: Proxy, where: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "index.json"
    file.write_text(
        '{"settings": {"index": {"number_of_shards": 2}, "analysis": {"analyzer": {"plain": {"type": "whitespace"}}}},'
        ' "mappings": {"properties": {"search_text": {"analyzer": "plain"}, "own": {"type": "keyword"}}}}'
    )
    with opensearch_at(proxy.url, where, monkeypatch, index_file=file) as store:
        store.replace(["a"], rows("a", ["Red apples"]))
        assert store.full_text("apple", 5, {}) == []  # no stemming any more
        assert [hit.id for hit in store.full_text("apples", 5, {})] == ["a-0"]
        made = asked(proxy, "GET", f"/{where.name}")[where.name]
        assert made["settings"]["index"]["number_of_shards"] == "2"
        assert made["mappings"]["properties"]["search_text"] == {"type": "text", "analyzer": "plain"}
        assert made["mappings"]["properties"]["own"] == {"type": "keyword"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "must be a JSON object of"),
        ('{"aliases": {}}', "must be a JSON object of"),
        ("{", "Expecting"),
        (None, "No"),
    ],
)
def test_an_index_file_that_cannot_be_used_is_one_line(
    proxy: Proxy, where: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, says: str
) -> None:
    file = tmp_path / "index.json"
    if text is not None:
        file.write_text(text)
    with opensearch_at(proxy.url, where, monkeypatch, index_file=file) as store:
        with pytest.raises(UserError, match=f"opensearch_index_file=.*index.json.*{says}"):
            store.replace(["a"], rows("a", ["one"]))


def test_an_index_that_the_server_does_not_make_is_the_users_to_mend(
    proxy: Proxy, where: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "index.json"
    file.write_text('{"settings": {"index": {"number_of_sharks": 2}}}')
    with opensearch_at(proxy.url, where, monkeypatch, index_file=file) as store:
        with pytest.raises(UserError, match=f"index {where.name} could not be made: .*number_of_sharks"):
            store.replace(["a"], rows("a", ["one"]))


def test_two_writers_may_make_the_index_at_once(where: Place, store: Store) -> None:
    writers = [open_store("opensearch", where, DIMENSION) for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        done = [threads.submit(w.replace, [str(n)], rows(str(n), ["text"])) for n, w in enumerate(writers)]
        assert [future.result() for future in done] == [[]] * 4
    assert sorted(store.documents()) == ["0", "1", "2", "3"]


def test_an_index_of_another_program_is_refused_and_what_it_lacks_named(
    proxy: Proxy, where: Place, store: Store
) -> None:
    asked(proxy, "PUT", f"/{where.name}", {"mappings": {"properties": {"text": {"type": "text"}}}})
    for refused in (store.finish, lambda: store.replace(["a"], rows("a", ["one"])), lambda: store.rows(["a"])):
        with pytest.raises(
            UserError, match=r"another release or program: it lacks the fields search_text, vector_fiel"
        ):
            refused()


def test_a_title_beyond_any_keyword_is_kept(store: Store) -> None:
    long = rows("a", ["one"]).to_pylist()
    long[0]["title"] = "\u2603" * 20_000
    assert store.replace(["a"], pa.Table.from_pylist(long, schema=chunk_schema(DIMENSION))) == []
    assert store.rows(["a"])["title"].to_pylist() == ["\u2603" * 20_000]


@pytest.mark.parametrize("long", [" ".join(f"word{n}" for n in range(20_000)), "\u6c34\u706b" * 9_000, "a." * 50_000])
def test_a_query_of_any_length_is_a_query(store: Store, long: str) -> None:
    store.replace(["a"], rows("a", ["needle \u91dd"]))
    assert [hit.id for hit in store.full_text(f"needle {long}", 5, {})] == ["a-0"]
    assert store.full_text(f"\ud800{long}", 5, {}) == []


def test_pages_hold_every_chunk_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("include.rag.stores.opensearch._HITS_PER_PAGE", 3)
    monkeypatch.setattr("include.rag.stores.opensearch._VALUES_PER_QUERY", 2)
    monkeypatch.setattr("include.rag.stores.opensearch._BUCKETS_PER_PAGE", 2)
    tables = {key: rows(key, [f"{key} {n}" for n in range(7)]) for key in "abcde"}
    store.replace(list(tables), pa.concat_tables(tables.values()))
    assert sorted(store.rows(list(tables))["id"].to_pylist()) == sorted(f"{k}-{n}" for k in tables for n in range(7))
    assert store.documents() == {key: (f"digest of {key}", 7) for key in tables}
    assert len(store.vectors([f"embedded {key} {n}" for key in tables for n in range(7)])) == 35
    store.replace(["a", "b"], rows("a", ["only"]))
    assert store.documents() == {"a": ("digest of a", 1)} | {key: (f"digest of {key}", 7) for key in "cde"}


@pytest.mark.parametrize("read", ["documents", "rows", "full_text"])
def test_what_some_shards_say_is_no_answer(proxy: Proxy, store: Store, read: str) -> None:
    store.replace(["a"], rows("a", ["one"]))
    asks: dict[str, Callable[[], object]] = {
        "documents": store.documents,
        "rows": lambda: store.rows(["a"]).num_rows,
        "full_text": lambda: [hit.id for hit in store.full_text("one", 5, {})],
    }
    whole = asks[read]()
    asked_before = len(proxy.requests)
    asks[read]()
    reads = [path.endswith("/_search") for _, path, _ in proxy.requests[asked_before:]]
    proxy.faults = ["partial" if is_search else "pass" for is_search in reads[: reads.index(True) + 1]]
    assert asks[read]() == whole
    assert proxy.counts["partial"] == 1
    assert whole


# Settings for a load


@pytest.mark.parametrize(("live", "during"), [(False, ("-1", "0")), (True, ("-1", "1"))])
def test_load_settings_are_put_back_after_success_and_after_failure(
    proxy: Proxy, where: Place, monkeypatch: pytest.MonkeyPatch, live: bool, during: tuple[str, str]
) -> None:
    with opensearch_at(proxy.url, where, monkeypatch, replicas=1) as store:
        with store.loading(live=live):
            assert load_settings_of(proxy, where) == during
        assert load_settings_of(proxy, where) == (None, "1")
        asked(proxy, "PUT", f"/{where.name}/_settings", {"index": {"refresh_interval": "7s"}})
        with pytest.raises(KeyError), store.loading(live=live):
            assert load_settings_of(proxy, where) == during
            raise KeyError
        assert load_settings_of(proxy, where) == ("7s", "1")


_KILLED = """
import os, signal, sys
from include.rag.stores import Place, open_store
from include.storage import location
store = open_store("opensearch", Place(home=location("memory://x"), name=sys.argv[1], alias="x"), 4)
with store.loading(live=False):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("by", ["finish", "loading"])
def test_load_settings_of_a_killed_load_are_put_back(
    proxy: Proxy, where: Place, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    with opensearch_at(proxy.url, where, monkeypatch, replicas=2) as store:
        for _ in range(2):  # the second one must not take the first one's settings for the index's own
            killed = subprocess.run(
                [sys.executable, "-c", _KILLED, where.name], cwd=PROJECT, env=os.environ, check=False
            )
            assert killed.returncode == -9
            assert load_settings_of(proxy, where) == ("-1", "0")
        if by == "finish":
            store.finish()
        else:
            with store.loading(live=True):
                assert load_settings_of(proxy, where) == ("-1", "2")
        assert load_settings_of(proxy, where) == (None, "2")


# The alias


@pytest.fixture
def next_version(proxy: Proxy, where: Place, root: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    after = Place(home=where.home, name=f"{where.name}-2", alias=where.alias)
    with opensearch_at(proxy.url, after, monkeypatch) as store:
        yield store


def test_a_reader_of_the_alias_sees_the_one_version_and_then_the_other(
    proxy: Proxy, where: Place, store: Store, next_version: Store
) -> None:
    store.replace(["a"], rows("a", ["old"]))
    next_version.replace(["a"], rows("a", ["new"]))
    store.go_live()
    seen: list[list[str]] = []
    over = threading.Event()

    def poll() -> None:
        while not over.is_set():
            hits = asked(proxy, "GET", f"/{where.alias}/_search")["hits"]["hits"]
            seen.append([hit["_source"]["text"] for hit in hits])

    reader = threading.Thread(target=poll)
    reader.start()
    for version in (next_version, store) * 10:
        before = len(seen)
        version.go_live()
        while len(seen) < before + 3 and reader.is_alive():
            threading.Event().wait(0.001)
    over.set()
    reader.join()
    assert len(seen) >= 60
    assert {tuple(texts) for texts in seen} == {("old",), ("new",)}
    assert list(asked(proxy, "GET", f"/_alias/{where.alias}")) == [where.name]


def test_an_alias_whose_name_an_index_has_is_refused(proxy: Proxy, where: Place, store: Store) -> None:
    asked(proxy, "PUT", f"/{where.alias}")
    try:
        with pytest.raises(UserError, match=f"alias {where.alias} cannot be set: an index has that name"):
            store.go_live()
    finally:
        asked(proxy, "DELETE", f"/{where.alias}")
    store.go_live()
    assert list(asked(proxy, "GET", f"/_alias/{where.alias}")) == [where.name]


def test_a_version_named_as_an_alias_is_not_written(where: Place, store: Store) -> None:
    store.go_live()
    through = open_store("opensearch", Place(home=where.home, name=where.alias, alias="other"), DIMENSION)
    with pytest.raises(UserError, match=f"{where.alias} is an alias of {where.name}, not an index"):
        through.replace(["a"], rows("a", ["one"]))


# Serverless


@pytest.fixture
def serverless(proxy: Proxy, where: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    """Shows what was written only when the test says so."""
    proxy.is_serverless, proxy.refreshes = True, False
    never = tmp_path / "never.json"
    never.write_text('{"settings": {"index": {"refresh_interval": "-1"}}}')
    settings: dict[str, object] = {"service": "aoss", "engine": "faiss", "index_file": never}
    with opensearch_at(proxy.url, where, monkeypatch, **settings) as store:
        yield store


def test_serverless_says_what_it_cannot_do_and_is_not_asked_for_it(
    proxy: Proxy, where: Place, serverless: Store
) -> None:
    can = serverless.capabilities
    assert not (can.own_ids or can.refresh or can.alias or can.atomic_replace)
    with serverless.loading(live=False):
        serverless.replace(["a"], rows("a", ["one"]))
    serverless.go_live()
    assert proxy.counts["unsupported"] == 0
    status, _ = proxy.forward("GET", f"/_alias/{where.alias}", {}, None)
    assert status == 404


def test_serverless_lucene_is_refused_before_anything_is_made(
    proxy: Proxy, where: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opensearch_at(proxy.url, where, monkeypatch, service="aoss") as store:
        with pytest.raises(UserError, match="opensearch_engine='lucene' is not to be had on serverless; set FMOPS_"):
            store.replace(["a"], rows("a", ["one"]))


def test_serverless_finish_waits_until_writes_are_seen_and_removes_what_was_sent_twice(
    proxy: Proxy, where: Place, serverless: Store
) -> None:
    proxy.bulk_faults = {1: "truncate"}
    serverless.replace(["a", "b"], pa.concat_tables([rows("a", ["one", "two"]), rows("b", ["three"])]))
    with ThreadPoolExecutor(1) as thread:
        finished = thread.submit(serverless.finish)
        searches = len(proxy.requests)
        while len(proxy.requests) < searches + 4 and not finished.done():  # until it has looked, in vain
            threading.Event().wait(0.01)
        assert not finished.done()
        while not finished.done():
            proxy.show(where.name)
            threading.Event().wait(0.05)
        finished.result()
    assert proxy.counts["unsupported"] == 0
    assert serverless.documents() == {"a": ("digest of a", 2), "b": ("digest of b", 1)}
    assert sorted(serverless.rows(["a", "b"])["id"].to_pylist()) == ["a-0", "a-1", "b-0"]


def test_serverless_writes_that_are_never_seen_are_an_error_that_may_pass(
    proxy: Proxy, where: Place, serverless: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FMOPS_OPENSEARCH_DEADLINE_S", "1")
    impatient = open_store("opensearch", where, DIMENSION)
    impatient.replace(["a"], rows("a", ["one"]))
    with pytest.raises(TimeoutError, match="what was written last is not visible yet"):
        impatient.finish()


def test_serverless_what_is_refused_or_deleted_before_it_is_seen_is_gone_after_finish(
    proxy: Proxy, where: Place, serverless: Store
) -> None:
    proxy.rejected = {"a-1"}
    proxy.bulk_faults = {1: "truncate"}
    both = pa.concat_tables([rows("a", ["one", "two"]), rows("b", ["three"]), rows("c", ["four"])])
    assert [refusal.doc_id for refusal in serverless.replace(["a", "b", "c"], both)] == ["a"]
    serverless.delete(["b"])
    proxy.refreshes = True
    proxy.show(where.name)
    serverless.finish()
    assert serverless.documents() == {"c": ("digest of c", 1)}
    assert [hit.id for hit in serverless.dense(AXES[0], 5, {})] == ["c-0"]


def test_another_place_is_another_index(root: str, proxy: Proxy, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.replace(["a"], rows("a", ["one"]))
    with opensearch_at(proxy.url, place(root), monkeypatch) as other:
        assert other.documents() == {}
