"""LangChain: index() with its record manager in SQLite, and LanceDB.

LanceDB took 4.9 CPU-seconds where Chroma took 12.7 and Qdrant's local mode 14.2. Clean-up is "full": "incremental"
deletes and embeds again what the batches of one document are divided by.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import lancedb
from langchain_classic.indexes import SQLRecordManager
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import index
from langchain_lancedb import LanceDB
from langchain_text_splitters import RecursiveCharacterTextSplitter

from benchmarks.peers import common

if TYPE_CHECKING:
    from pathlib import Path

    from include.models.embeddings import Hashing

TABLE = "chunks"


class _Embeddings(Embeddings):
    def __init__(self, embedder: Hashing) -> None:
        self._embedder = embedder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self._embedder.embed(texts).tolist()

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def ingest(source: Path, home: Path, embedder: Hashing) -> None:
    """Split all documents, and let index() find what is new or gone."""
    splitter = RecursiveCharacterTextSplitter(
        chunk_size=common.CHUNK_TOKENS, chunk_overlap=common.OVERLAP_TOKENS, length_function=embedder.count_tokens
    )
    documents = (Document(page_content=text, metadata={"source": path}) for path, text in common.read(source))
    records = SQLRecordManager(TABLE, db_url=f"sqlite:///{home / 'records.sqlite'}")
    records.create_schema()
    index(
        (chunk for document in documents for chunk in splitter.split_documents([document])),
        records,
        LanceDB(_Embeddings(embedder), uri=str(home / "lancedb"), table_name=TABLE),
        cleanup="full",
        source_id_key="source",
        batch_size=common.BATCH,
        key_encoder="blake2b",
    )


def contents(home: Path) -> common.Contents:
    """Every chunk of the table."""
    rows = lancedb.connect(home / "lancedb").open_table(TABLE).to_arrow()
    paths = (json.loads(metadata)["source"] for metadata in rows["metadata"].to_pylist())
    return zip(paths, rows["text"].to_pylist(), strict=True)


if __name__ == "__main__":
    common.main(ingest, contents)
