"""LlamaIndex: an IngestionPipeline with docstore, cache and LanceDB, all of them kept on disk.

LanceDB, since its Chroma store cannot take in one run more than 5,461 chunks; with the filter of its delete() mended,
which raises whenever a document has changed. Paths are metadata that is neither embedded nor counted as part of a
chunk, as with the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lancedb
from llama_index.core import Document
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.vector_stores.lancedb import LanceDBVectorStore
from pydantic import PrivateAttr

from benchmarks.peers import common

if TYPE_CHECKING:
    from pathlib import Path

    from include.models.embeddings import Hashing

TABLE = "chunks"


class _Embedding(BaseEmbedding):
    _embedder: Hashing = PrivateAttr()

    def __init__(self, embedder: Hashing) -> None:
        super().__init__(model_name=embedder.name, embed_batch_size=common.BATCH)
        self._embedder = embedder

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embedder.embed(texts).tolist()

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def ingest(source: Path, home: Path, embedder: Hashing) -> None:
    """Load the state, run the pipeline over all documents, keep the state."""
    splitter = SentenceSplitter(
        chunk_size=common.CHUNK_TOKENS, chunk_overlap=common.OVERLAP_TOKENS, tokenizer=common.words
    )
    pipeline = IngestionPipeline(
        transformations=[splitter, _Embedding(embedder)],
        docstore=SimpleDocumentStore(),
        docstore_strategy=DocstoreStrategy.UPSERTS,
        vector_store=_store(home),
    )
    state = home / "state"
    if state.exists():
        pipeline.load(str(state))
    pipeline.run(documents=[_document(path, text) for path, text in common.read(source)])
    pipeline.persist(str(state))


def contents(home: Path) -> common.Contents:
    """Every chunk of the table."""
    rows = lancedb.connect(home / "lancedb").open_table(TABLE).to_arrow()
    paths: list[dict[str, Any]] = rows["metadata"].to_pylist()
    return ((one["source"], text) for one, text in zip(paths, rows["text"].to_pylist(), strict=True))


def _document(path: str, text: str) -> Document:
    hidden = ["source"]
    return Document(
        id_=path,
        text=text,
        metadata={"source": path},
        excluded_embed_metadata_keys=hidden,
        excluded_llm_metadata_keys=hidden,
    )


class _Store(LanceDBVectorStore):
    def delete(self, ref_doc_id: str, **_: Any) -> None:
        # Its own quotes the id as if it were a column's name.
        self.table.delete(f"{self.doc_id_key} = '{ref_doc_id}'")


def _store(home: Path) -> LanceDBVectorStore:
    # Its default would replace what an earlier run wrote.
    is_there = (home / "lancedb" / f"{TABLE}.lance").is_dir()
    return _Store(str(home / "lancedb"), TABLE, mode="append" if is_there else "create")


if __name__ == "__main__":
    common.main(ingest, contents)
