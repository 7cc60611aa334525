"""search() as a LangChain retriever, for chains and agents."""

from __future__ import annotations

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from include.rag.search import search


class IndexRetriever(BaseRetriever):
    """Passages of an index as LangChain documents, with source, title, headings and score as metadata."""

    index: str
    k: int = 5
    tenant: str | None = None
    filters: dict[str, str] = {}

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        passages = search(query, index=self.index, k=self.k, tenant=self.tenant, filters=self.filters)
        return [
            Document(
                id=passage.id,
                page_content=passage.text,
                metadata={
                    "source": passage.source,
                    "path": passage.path,
                    "title": passage.title,
                    "headings": list(passage.headings),
                    "locator": passage.locator,
                    "score": passage.score,
                },
            )
            for passage in passages
        ]
