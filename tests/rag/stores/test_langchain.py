"""LangChain's own classes read what the stores wrote, by their defaults; our own search is the supported way."""

from __future__ import annotations

import pyarrow as pa
from langchain_core.embeddings import Embeddings

from include.rag.stores import Place, Store, chunk_schema, open_store
from tests.opensearch.proxy import Proxy
from tests.rag.stores.chunks import AXES, DIMENSION, rows


class OneAxis(Embeddings):
    """Every text lies along the axis that it names."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [AXES[int(text)].tolist() for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def written(store: Store) -> None:
    store.replace(["a", "b"], pa.concat_tables([rows("a", ["apples"], axis=0), rows("b", ["pears"], axis=1)]))
    store.finish()


def test_opensearch_vector_search_finds_texts_and_metadata(proxy: Proxy, where: Place, store: Store) -> None:
    from langchain_community.vectorstores import OpenSearchVectorSearch

    written(store)
    store.go_live()
    reader = OpenSearchVectorSearch(proxy.url, where.alias, OneAxis())
    best, second = reader.similarity_search("1", k=2)
    assert (best.page_content, second.page_content) == ("pears", "apples")
    assert best.metadata["id"] == "b-0"
    assert best.metadata["path"] == "b.md"
    assert sorted(best.metadata) == sorted(set(chunk_schema(DIMENSION).names) - {"text", "vector"})
    only = {"term": {"metadata.doc_id": "a"}}
    assert [hit.page_content for hit in reader.similarity_search("1", k=2, efficient_filter=only)] == ["apples"]


def test_langchain_lancedb_finds_texts_without_metadata(where: Place) -> None:
    from langchain_lancedb import LanceDB

    store = open_store("lancedb", where, DIMENSION)
    written(store)
    reader = LanceDB(uri=(where.home / "lancedb").path, embedding_function=OneAxis(), table_name="chunks")
    assert [hit.page_content for hit in reader.similarity_search("1", k=2)] == ["pears", "apples"]
    # It reads metadata from one JSON column, in which LanceDB could neither filter nor type what ours are.
    assert set(reader.similarity_search("1", k=1)[0].metadata) == {"source"}
