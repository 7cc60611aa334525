"""Haystack: a pipeline that ends in a DocumentWriter, and FAISS, saved when it has run.

FAISS took three quarters of the processor time of Qdrant's local mode; Chroma and LanceDB were ended unfinished, after
100 and 40 seconds. The splitter counts words between blanks, so sizes are divided by the words and signs of a word.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from haystack import Document, Pipeline, component
from haystack.components.converters import TextFileToDocument
from haystack.components.preprocessors import DocumentSplitter
from haystack.components.writers import DocumentWriter
from haystack.document_stores.types import DuplicatePolicy
from haystack_integrations.document_stores.faiss import FAISSDocumentStore

from benchmarks.peers import common
from include.models.embeddings import Hashing

TOKENS_PER_WORD = 1.23
"""Of this corpus."""


@component
class _Embed:
    def __init__(self, embedder: Hashing) -> None:
        self._embedder = embedder

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        vectors = self._embedder.embed([document.content or "" for document in documents]).tolist()
        made = [replace(one, embedding=vector) for one, vector in zip(documents, vectors, strict=True)]
        return {"documents": made}


def ingest(source: Path, home: Path, embedder: Hashing) -> None:
    """Run the pipeline over all files: it keeps no ledger."""
    store = _store(home)
    size, overlap = (round(tokens / TOKENS_PER_WORD) for tokens in (common.CHUNK_TOKENS, common.OVERLAP_TOKENS))
    pipeline = Pipeline()
    pipeline.add_component("read", TextFileToDocument(store_full_path=True))
    pipeline.add_component("split", DocumentSplitter("word", size, overlap))
    pipeline.add_component("embed", _Embed(embedder))
    pipeline.add_component("write", DocumentWriter(store, DuplicatePolicy.OVERWRITE))
    for left, right in (("read", "split"), ("split", "embed"), ("embed", "write")):
        pipeline.connect(left, right)
    pipeline.run({"read": {"sources": list(common.files(source))}})
    store.save(home / "faiss")
    (home / "source").write_text(str(source))


def contents(home: Path) -> common.Contents:
    """Every chunk of the store."""
    source = Path((home / "source").read_text())
    for one in _store(home).filter_documents():
        yield Path(one.meta["file_path"]).relative_to(source).as_posix(), one.content or ""


def _store(home: Path) -> FAISSDocumentStore:
    return FAISSDocumentStore(str(home / "faiss"), embedding_dim=Hashing.dimension)


if __name__ == "__main__":
    common.main(ingest, contents)
