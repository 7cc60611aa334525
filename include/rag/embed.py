"""embed_shard(): read, chunk and embed the documents of a shard into immutable Parquet parts named by their content.

A part is a function of its documents' bytes and of the pipeline alone. A shard that is run again, after a crash or by a
person, finds the parts that it had finished and embeds only the rest.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from upath import UPath

from include.errors import DocumentError
from include.models.embeddings import Embedder, embed_metered, get_embedder
from include.models.metering import Meter
from include.rag.config import IngestConfig
from include.rag.load import load
from include.rag.plan import Due, make_chunker, pipeline_name, read_shard
from include.rag.source import FolderSource, content_digest
from include.rag.split import Chunk, Chunker
from include.rag.stores import chunk_schema
from include.storage import digest, read_json, write_json, write_parquet

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

DOCUMENTS_PER_PART = 16
"""What a crash can cost: the documents of one part are embedded again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of one document."""

    doc_id: str
    path: str
    action: Literal["added", "changed"]
    status: Literal["ok", "empty", "quarantined", "vanished"]
    content_digest: str = ""
    title: str = ""
    chunks: int = 0
    reason: str = ""
    """Why it was set aside."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Read:
    due: Due
    data: bytes
    content_digest: str


def embed_shard(config: IngestConfig, shard: str, meter: Meter) -> dict[str, Any]:
    """Make the parts of a shard and write its result last; returns small counts for the task's XCom."""
    due = read_shard(config, shard)
    worker = _Worker(config, meter)
    parts: list[str] = []
    outcomes: list[Outcome] = []
    started = time.monotonic()
    for start in range(0, len(due), DOCUMENTS_PER_PART):
        part, results = worker.make_part(due[start : start + DOCUMENTS_PER_PART])
        parts += [part] if part else []
        outcomes += results
        rate = len(outcomes) / max(time.monotonic() - started, 1e-9)
        left = (len(due) - len(outcomes)) / rate
        log.info("%s: %d of %d documents, about %.0f s left", shard, len(outcomes), len(due), left)
    result = {
        "parts": parts,
        "outcomes": [asdict(outcome) for outcome in outcomes],
        "chunks_embedded": worker.chunks_embedded,
    }
    write_json(_result(config, shard), result)
    return {
        "shard": shard,
        "documents": len(outcomes),
        "quarantined": sum(outcome.status == "quarantined" for outcome in outcomes),
        "chunks": sum(outcome.chunks for outcome in outcomes),
        "embedded": worker.chunks_embedded,
    }


def read_result(config: IngestConfig, shard: str) -> tuple[list[str], list[Outcome], int]:
    """A shard's parts, its documents' outcomes, and how many chunks it embedded."""
    path = _result(config, shard)
    if not path.exists():
        raise FileNotFoundError(f"{shard} has no result at {path}: clear its task")
    value = read_json(path)
    return value["parts"], [Outcome(**row) for row in value["outcomes"]], value["chunks_embedded"]


def part_uri(config: IngestConfig, part: str) -> UPath:
    """Where a part's rows lie; its outcomes lie beside it and are written last."""
    return config.home / "parts" / part[:2] / f"{part}.parquet"


class _Worker:
    """What the parts of one shard share: the chunker and the embedder, loaded once."""

    def __init__(self, config: IngestConfig, meter: Meter) -> None:
        self.config = config
        self.meter = meter
        self.source = FolderSource(config)
        self.chunker: Chunker = make_chunker(config)
        self.embedder: Embedder = get_embedder(config.embedder)
        self.pipeline = pipeline_name(config)
        self.chunks_embedded = 0

    def make_part(self, due: list[Due]) -> tuple[str | None, list[Outcome]]:
        """Read some documents and make their part, unless it is there already; None if no document could be read."""
        reads, lost = self._read(due)
        if not reads:
            return None, lost
        name = digest(
            self.config.tenant,
            self.config.use_case,
            self.config.source,
            self.pipeline,
            *(f"{read.due.doc_id} {read.content_digest}" for read in reads),
        )
        uri = part_uri(self.config, name)
        manifest = uri.with_suffix(".json")
        if not manifest.exists():
            outcomes, chunks = self._split(reads)
            write_parquet(uri, self._rows(reads, outcomes, chunks))
            write_json(manifest, [asdict(outcome) for outcome in outcomes])
        # What is added or changed differs from run to run and is not the part's to say.
        actions = {read.due.doc_id: read.due.action for read in reads}
        made = [Outcome(**{**row, "action": actions[row["doc_id"]]}) for row in read_json(manifest)]
        return name, made + lost

    def _read(self, due: list[Due]) -> tuple[list[_Read], list[Outcome]]:
        reads: list[_Read] = []
        lost: list[Outcome] = []
        for document in due:
            try:
                data = self.source.read(document.path)
                reads.append(_Read(due=document, data=data, content_digest=content_digest(data)))
            except FileNotFoundError:
                lost.append(_outcome(document, "vanished", reason="deleted while the run was on"))
            except OSError as error:
                reason = f"read: {type(error).__name__}: {error.strerror or error}"
                lost.append(_outcome(document, "quarantined", reason=reason))
        return reads, lost

    def _split(self, reads: list[_Read]) -> tuple[list[Outcome], list[list[Chunk]]]:
        outcomes: list[Outcome] = []
        chunks: list[list[Chunk]] = []
        for read in reads:
            found: dict[str, Any] = {"content_digest": read.content_digest}
            try:
                document = load(read.data, read.due.path)
                pieces = self.chunker.split(document)
                # What is not text (lone surrogates) must not fail the documents beside it when they are written.
                "".join(piece.for_embedding(document.title) for piece in pieces).encode()
                found |= {"title": document.title, "chunks": len(pieces)}
                outcomes.append(_outcome(read.due, "ok" if pieces else "empty", **found))
            except Exception as error:
                # Of any class: whatever a document does to a parser, it is that document's fault and not the run's.
                pieces = []
                why = str(error) if isinstance(error, DocumentError) else f"{type(error).__name__}: {error}"
                outcomes.append(_outcome(read.due, "quarantined", reason=f"load: {why}", **found))
            chunks.append(pieces)
        return outcomes, chunks

    def _rows(self, reads: list[_Read], outcomes: list[Outcome], chunks: list[list[Chunk]]) -> pa.Table:
        import pyarrow as pa

        schema = chunk_schema(self.embedder.dimension)
        pure = pa.schema([field for field in schema if field.name not in ("run_id", "ingested_at")])
        config = self.config
        rows = [
            {
                "id": digest(config.tenant, read.due.doc_id, self.pipeline, str(chunk.ordinal), chunk.text)[:32],
                "doc_id": read.due.doc_id,
                "tenant": config.tenant,
                "use_case": config.use_case,
                "source": config.source,
                "path": read.due.path,
                "title": outcome.title,
                "locator": chunk.locator,
                "text": chunk.text,
                "headings": list(chunk.headings),
                "ordinal": chunk.ordinal,
                "content_digest": read.content_digest,
                "chunker": self.chunker.name,
                "embedder": self.embedder.name,
            }
            for read, outcome, chunk in _flat(reads, outcomes, chunks)
        ]
        texts = [chunk.for_embedding(outcome.title) for _, outcome, chunk in _flat(reads, outcomes, chunks)]
        table = pa.Table.from_pylist(rows, schema=pa.schema([field for field in pure if field.name != "vector"]))
        return table.append_column(pure.field("vector"), self._embed(texts))

    def _embed(self, texts: list[str]) -> pa.Array:
        import pyarrow as pa

        size = self.embedder.dimension
        if not texts:
            return pa.array([], type=pa.list_(pa.float32(), size))
        vectors = embed_metered(self.embedder, texts, self.meter)
        self.chunks_embedded += len(texts)
        return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), type=pa.float32()), size)


def _flat(
    reads: list[_Read], outcomes: list[Outcome], chunks: list[list[Chunk]]
) -> Iterator[tuple[_Read, Outcome, Chunk]]:
    for read, outcome, pieces in zip(reads, outcomes, chunks, strict=True):
        for chunk in pieces:
            yield read, outcome, chunk


def _outcome(due: Due, status: Literal["ok", "empty", "quarantined", "vanished"], **rest: Any) -> Outcome:
    return Outcome(doc_id=due.doc_id, path=due.path, action=due.action, status=status, **rest)


def _result(config: IngestConfig, shard: str) -> UPath:
    return config.run_home / "shards" / f"{shard}.json"
