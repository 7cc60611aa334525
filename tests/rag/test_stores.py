"""One contract for every vector store."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from include.errors import UserError
from include.rag.stores import MIXED, Store, check_name, chunk_schema, open_store
from include.storage import location
from tests.opensearch.launcher import server
from tests.opensearch.proxy import Proxy
from tests.rag.stores.chunks import AXES, DIMENSION, opensearch_at, place, rows


@pytest.fixture(params=["lancedb", "opensearch", "opensearch serverless"])
def store(request: pytest.FixtureRequest, root: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Each store; of OpenSearch also one behind a proxy that can do no more than a serverless collection."""
    if request.param == "lancedb":
        yield open_store("lancedb", place(root), DIMENSION)
    elif request.param == "opensearch":
        with opensearch_at(server().url, place(root), monkeypatch) as store:
            yield store
    else:
        with Proxy(server().url) as proxy:
            proxy.is_serverless = True
            serverless = opensearch_at(proxy.url, place(root), monkeypatch, service="aoss", engine="faiss")
            with serverless as store:
                yield store


def test_an_index_that_was_never_written_is_empty(store: Store) -> None:
    assert store.documents() == {}
    assert store.rows(["nothing"]).num_rows == 0
    assert store.vectors(["nothing"]) == {}
    assert store.dense(AXES[0], 5, {}) == []
    assert store.full_text("word", 5, {}) == []
    store.delete(["nothing"])
    store.finish()
    store.drop()


def test_what_is_written_is_found_by_meaning_and_by_words(store: Store) -> None:
    assert store.replace(["a"], rows("a", ["red apples"], axis=0)) == []
    store.replace(["b"], rows("b", ["green pears"], axis=1))
    assert [hit.id for hit in store.dense(AXES[1], 1, {})] == ["b-0"]
    assert [hit.id for hit in store.dense(AXES[1], 5, {})] == ["b-0", "a-0"]
    hit = store.full_text("apple", 5, {})[0]
    assert (hit.id, hit.row["text"], hit.row["headings"]) == ("a-0", "red apples", ["A", "B"])
    assert "vector" not in hit.row


def test_words_of_title_and_headings_find_a_chunk(store: Store) -> None:
    below = rows("a", ["it is on by default"])
    below = below.set_column(below.schema.get_field_index("headings"), below.schema.field("headings"), [[["Catchup"]]])
    below = below.set_column(below.schema.get_field_index("title"), below.schema.field("title"), [["Scheduling"]])
    store.replace(["a", "b"], pa.concat_tables([below, rows("b", ["nothing of the kind"])]))
    for words in ("catchup", "scheduling", "catchup default"):
        hit = store.full_text(words, 5, {})[0]
        assert (hit.id, hit.row["text"]) == ("a-0", "it is on by default")
    assert sorted(hit.row) == sorted(name for name in chunk_schema(DIMENSION).names if name != "vector")


def test_words_are_found_the_same_before_and_after_finish(store: Store) -> None:
    store.replace(["a"], rows("a", ["red apples"]))
    before = [hit.id for hit in store.full_text("apples", 5, {})]
    store.finish()
    assert [hit.id for hit in store.full_text("apples", 5, {})] == before == ["a-0"]


def test_replacing_leaves_exactly_the_new_chunks_and_touches_no_other_document(store: Store) -> None:
    store.replace(["a", "b"], pa.concat_tables([rows("a", ["one", "two", "three"]), rows("b", ["kept"])]))
    store.replace(["a"], rows("a", ["one", "changed"]))
    assert store.documents() == {"a": ("digest of a", 2), "b": ("digest of b", 1)}
    assert store.full_text("three", 5, {}) == []
    assert [hit.row["text"] for hit in store.full_text("changed", 5, {})] == ["changed"]


def test_writing_twice_is_writing_once(store: Store) -> None:
    for _ in range(2):
        store.replace(["a"], rows("a", ["one", "two"]))
    assert store.documents() == {"a": ("digest of a", 2)}


def test_replacing_by_nothing_and_deleting_remove_a_document(store: Store) -> None:
    store.replace(["a", "b", "c"], pa.concat_tables([rows(d, ["text"]) for d in "abc"]))
    store.replace(["a"], rows("a", []))
    store.delete(["b", "unknown"])
    assert store.documents() == {"c": ("digest of c", 1)}
    assert [hit.row["doc_id"] for hit in store.full_text("text", 5, {})] == ["c"]


def test_filters_narrow_and_are_never_a_query_language(store: Store) -> None:
    store.replace(["a"], rows("a", ["shared words"], tenant="acme"))
    store.replace(["b"], rows("b", ["shared words"], tenant="other"))
    assert [hit.id for hit in store.full_text("shared", 5, {"tenant": "acme"})] == ["a-0"]
    assert [hit.id for hit in store.dense(AXES[0], 5, {"tenant": "other"})] == ["b-0"]
    assert [hit.id for hit in store.dense(AXES[0], 5, {"tenant": "acme", "path": "a.md"})] == ["a-0"]
    assert [hit.id for hit in store.dense(AXES[0], 5, {"id": "b-0"})] == ["b-0"]
    assert store.dense(AXES[0], 5, {"tenant": "x' OR '1'='1"}) == []
    with pytest.raises(UserError, match="filter 'text'='shared words' is not known; choose among id, tenant"):
        store.dense(AXES[0], 5, {"text": "shared words"})
    with pytest.raises(UserError, match="filter 'path'=None is not known"):
        store.dense(AXES[0], 5, {"path": None})  # type: ignore[dict-item]


@pytest.mark.parametrize("query", ['"unbalanced', "a AND OR (", "*", "field:value", "\x00", "☃" * 500])
def test_any_words_are_a_query(store: Store, query: str) -> None:
    store.replace(["a"], rows("a", ["plain text"]))
    assert store.full_text(query, 5, {}) == []


def test_an_id_twice_in_one_write_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="an id twice"):
        store.replace(["a"], pa.concat_tables([rows("a", ["one"]), rows("a", ["one"])]))
    assert store.documents() == {}


def test_a_document_made_of_two_contents_is_told_apart(store: Store) -> None:
    mixed = rows("a", ["one", "two"]).to_pylist()
    mixed[1]["content_digest"] = "another"
    store.replace(["a"], pa.Table.from_pylist(mixed, schema=chunk_schema(DIMENSION)))
    assert store.documents() == {"a": (MIXED, 2)}


def test_a_load_is_whole_after_finish_and_an_error_in_it_comes_out(store: Store) -> None:
    with store.loading(live=False):
        store.replace(["a"], rows("a", ["red apples"]))
        store.replace(["a", "b"], pa.concat_tables([rows("a", ["green apples", "pears"]), rows("b", ["plums"])]))
        store.delete(["b"])
    store.finish()
    assert store.documents() == {"a": ("digest of a", 2)}
    assert store.full_text("red plums", 5, {}) == []
    with pytest.raises(KeyError, match="of the load's own"), store.loading(live=True):
        store.replace(["c"], rows("c", ["cherries"]))
        raise KeyError("of the load's own")
    store.finish()
    assert [hit.id for hit in store.full_text("cherries", 5, {})] == ["c-0"]


def test_a_dropped_version_is_empty_and_can_be_made_again(store: Store) -> None:
    store.replace(["a"], rows("a", ["one"]))
    store.go_live()
    store.go_live()
    for _ in range(2):
        store.drop()
        assert store.documents() == {}
        assert store.dense(AXES[0], 5, {}) == []
    store.replace(["b"], rows("b", ["two"]))
    assert store.documents() == {"b": ("digest of b", 1)}


def test_every_vector_comes_back_bit_for_bit(store: Store) -> None:
    numbers = np.random.default_rng(1).standard_normal((64, DIMENSION)).astype(np.float32)
    numbers[0] = [1e-38, 3.4e38, -1e-45, 1 / 3]  # the ends of float32, one of them subnormal
    written = [
        {**row, "vector": vector} for row, vector in zip(rows("a", ["t"] * 64).to_pylist(), numbers, strict=True)
    ]
    store.replace(["a"], pa.Table.from_pylist(written, schema=chunk_schema(DIMENSION)))
    found = store.rows(["a"]).sort_by("ordinal")["vector"].combine_chunks().flatten().to_numpy().reshape(-1, DIMENSION)
    np.testing.assert_array_equal(found, numbers)


def test_an_emptied_index_holds_nothing(store: Store) -> None:
    store.replace(["a"], rows("a", ["one"]))
    store.delete(["a"])
    assert store.documents() == {}


def test_documents_are_counted_whole_however_their_chunks_lie(store: Store) -> None:
    store.replace(["a", "b"], pa.concat_tables([rows("a", ["one"]), rows("b", ["two"]), rows("c", ["three"])]))
    store.replace(["b"], rows("b", ["two", "four"]))
    grown = pa.concat_tables([rows("a", ["one", "five"]), rows("d", ["six"])])
    store.replace(["a", "d"], grown)
    assert store.documents() == {key: (f"digest of {key}", n) for key, n in {"a": 2, "b": 2, "c": 1, "d": 1}.items()}
    assert sum(number for _, number in store.documents().values()) == 6


def test_the_rows_of_documents_come_back_as_they_were_written(store: Store) -> None:
    written = rows("a", ["one", "two"], axis=2)
    store.replace(["a", "b", "c"], pa.concat_tables([written, rows("b", ["three"]), rows("c", ["four"])]))
    found = store.rows(["a", "unknown", "a"])
    assert found.schema == chunk_schema(DIMENSION)
    assert found.sort_by("ordinal").to_pylist() == written.to_pylist()
    many = [f"unknown {n}" for n in range(2_500)]
    assert sorted(store.rows([*many, "c", "b"])["id"].to_pylist()) == ["b-0", "c-0"]


def test_vectors_are_found_by_the_digest_of_what_was_embedded(store: Store) -> None:
    store.replace(["a", "b"], pa.concat_tables([rows("a", ["one", "same"]), rows("b", ["it's \u2603"], axis=1)]))
    store.replace(["c"], rows("c", ["same"]))
    others = [f"unknown {n}" for n in range(2_500)]
    found = store.vectors([*others, "embedded same", "embedded it's \u2603", "embedded same"])
    assert sorted(found) == ["embedded it's \u2603", "embedded same"]
    np.testing.assert_array_equal(found["embedded same"], AXES[0])
    np.testing.assert_array_equal(found["embedded it's \u2603"], AXES[1])
    assert found["embedded same"].dtype == np.float32


def test_a_vector_that_is_not_what_was_made_of_its_text_is_not_handed_out(store: Store) -> None:
    altered = rows("a", ["one", "two"]).to_pylist()
    altered[0]["vector"] = AXES[2].tolist()
    store.replace(["a"], pa.Table.from_pylist(altered, schema=chunk_schema(DIMENSION)))
    assert list(store.vectors(["embedded one", "embedded two"])) == ["embedded two"]


def test_what_has_another_dimension_is_refused(store: Store, root: str, request: pytest.FixtureRequest) -> None:
    store.replace(["a"], rows("a", ["one"]))
    name = "lancedb" if "lancedb" in request.node.name else "opensearch"
    longer = open_store(name, place(root, store.uri.rsplit("/", 1)[-1]), 2 * DIMENSION)
    for refused in (longer.documents, lambda: longer.delete(["a"]), lambda: longer.rows(["a"])):
        with pytest.raises(UserError, match="holds vectors of 4 dimensions, not 8"):
            refused()


def test_a_table_of_another_release_is_refused_and_named(root: str) -> None:
    import lancedb

    old = rows("a", ["one"]).drop_columns(["embedding_digest", "start"])
    lancedb.connect(location(root).path + "/lancedb").create_table("chunks", old)
    store = open_store("lancedb", place(root), DIMENSION)
    refusals = [store.documents, lambda: store.replace(["a"], rows("a", ["one"]))]
    for refused in refusals:
        with pytest.raises(
            UserError,
            match=r"another release: its columns differ in embedding_digest, search_text, start; choose another name",
        ):
            refused()


def test_an_unknown_store_and_a_place_it_cannot_use_are_one_line() -> None:
    with pytest.raises(UserError, match="store 'pinecone' is not known; choose one of lancedb, opensearch"):
        check_name("pinecone")
    with pytest.raises(UserError, match="file:// or s3://, not on memory://"):
        open_store("lancedb", place("memory://x"), DIMENSION)
