"""embed_shard(): read, chunk and embed the documents of a shard into immutable Parquet parts named by their content.

A part is a function of its documents' bytes and of the pipeline alone. A shard that is run again, after a crash or by a
person, finds the parts that it had finished and embeds only the rest.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from upath import UPath

from include.documents.reader import Reader
from include.documents.reading_process import one_line
from include.documents.source import content_digest
from include.errors import DocumentError, EmbeddingError, Fault
from include.models.embeddings import FREE, Embedder, embed_metered, get_embedder
from include.models.metering import Meter
from include.rag.chunking import Chunk
from include.rag.config import IngestConfig
from include.rag.plan import Due, pipeline_name, read_plan, read_shard
from include.rag.quarantine import NOT_THE_DATA
from include.rag.stores import Store, chunk_schema, vector_digest
from include.storage import digest, read_json, write_json, write_parquet

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

log = logging.getLogger(__name__)

DOCUMENTS_PER_PART = 1024
"""A part is two files, each flushed to disk: for small documents that takes longer than to read them."""
EMBEDDED_PER_PART = 16
"""Documents of a part if embedding them costs something. What a crash can cost: those of one part are embedded again.
"""
BYTES_PER_PART = 32 << 20
"""A part is closed before its files are larger together; they are in memory at once."""


class Outcome(NamedTuple):
    """What became of one document; a tuple, since a commit reads millions of them back, some times."""

    doc_id: str
    path: str
    action: Literal["added", "changed"]
    status: Literal["ok", "empty", "quarantined", "vanished"]
    stamp: str = ""
    attempt: int = 1
    content_digest: str = ""
    title: str = ""
    chunks: int = 0
    stage: Literal["", "read", "load", "chunk", "embed", "index"] = ""
    fault: Fault | Literal[""] = ""
    reason: str = ""
    """Why it was set aside."""
    rejects: tuple[tuple[str, str], ...] = ()
    """(locator, reason) of each of its records that was set aside."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Read:
    due: Due
    chunks: list[Chunk]
    outcome: Outcome


def embed_shard(config: IngestConfig, shard: str, meter: Meter) -> dict[str, Any]:
    """Make the parts of a shard and write its result last; returns small counts for the task's XCom."""
    due = read_shard(config, shard)
    parts: list[str] = []
    outcomes: list[Outcome] = []
    started = time.monotonic()
    with Reader(config.limits) as reader:
        worker = _Worker(config, meter, reader)
        for group in _groups(due, _documents_per_part(config)):
            made, results = worker.make_parts(group)
            parts += made
            outcomes += results
            rate = len(outcomes) / max(time.monotonic() - started, 1e-9)
            left = (len(due) - len(outcomes)) / rate
            log.info("%s: %d of %d documents, about %.0f s left", shard, len(outcomes), len(due), left)
    for outcome in outcomes:
        if outcome.status == "quarantined":
            log.warning("%r is set aside (%s): %s", outcome.path, outcome.fault, outcome.reason)
    counts = {"chunks_embedded": worker.chunks_embedded, "chunks_reused": worker.chunks_reused}
    write_json(_result(config, shard), {"parts": parts, "outcomes": _as_rows(outcomes), **counts}, indent=None)
    return {
        "shard": shard,
        "documents": len(outcomes),
        "quarantined": sum(outcome.status == "quarantined" for outcome in outcomes),
        "chunks": sum(outcome.chunks for outcome in outcomes),
        **counts,
    }


def read_result(config: IngestConfig, shard: str) -> dict[str, Any]:
    """A shard's `parts`, its documents' `outcomes`, `chunks_embedded` and `chunks_reused`."""
    path = _result(config, shard)
    if not path.exists():
        raise FileNotFoundError(f"{shard} has no result at {path}: clear its task")
    value: dict[str, Any] = read_json(path)
    return {**value, "outcomes": [_outcome_of(row) for row in value["outcomes"]]}


def part_uri(config: IngestConfig, part: str) -> UPath:
    """Where a part's rows lie; its outcomes lie beside it and are written last."""
    return config.home / "parts" / part[:2] / f"{part}.parquet"


class _Worker:
    """What the parts of one shard share: chunker, embedder and the process that reads, each started once."""

    def __init__(self, config: IngestConfig, meter: Meter, reader: Reader) -> None:
        self.config = config
        self.meter = meter
        self.reader = reader
        self.source = config.open_source()
        self.chunker = config.chunker()
        self.embedder: Embedder = get_embedder(config.embedder)
        self.pipeline = pipeline_name(config)
        self.chunks_embedded = 0
        self.chunks_reused = 0

    def make_parts(self, due: list[Due]) -> tuple[list[str], list[Outcome]]:
        """Read some documents and make their part, unless it is there already; no part if none could be read.

        If the embedding model fails, or a library is missing, and all is tolerated, each document becomes a part of its
        own or is set aside: a part holds only what the documents themselves brought about.
        """
        reads, lost = self._read(due)
        parts: list[str] = []
        outcomes = lost
        groups = [reads] if reads else []
        while groups:
            group = groups.pop()
            try:
                part, made = self._make_part(group)
                parts.append(part)
                outcomes = outcomes + made
            except _NotTheDataError as error:
                if self.config.tolerate != "all":
                    raise error.cause from None
                if len(group) > 1:
                    groups += [[one] for one in group]
                else:
                    due_one, _, content = group[0]
                    outcomes = [*outcomes, _set_aside(due_one, error.stage, error.fault, error.cause, content)]
        return parts, outcomes

    def _read(self, due: list[Due]) -> tuple[list[tuple[Due, bytes, str]], list[Outcome]]:
        reads: list[tuple[Due, bytes, str]] = []
        lost: list[Outcome] = []
        for document in due:
            try:
                if document.size > self.config.limits.document_mb << 20:
                    lost.append(self._too_large(document))
                    continue
                data = self.source.read(document.path)
                # Changed since it was listed, or just now: then the stamp does not speak of these bytes.
                if document.stamp and self.source.stamp(document.path) != document.stamp:
                    reads.append((document._replace(stamp=""), data, content_digest(data)))
                else:
                    reads.append((document, data, content_digest(data)))
            except (FileNotFoundError, NotADirectoryError):
                lost.append(_outcome(document, "vanished", reason="deleted while the run was on"))
            except OSError as error:
                # A file that is forbidden stays so; whatever else fails may pass, and the task is tried again.
                if not isinstance(error, PermissionError) and self.config.tolerate != "all":
                    raise
                lost.append(_set_aside(document, "read", "unreadable", error))
        return reads, lost

    def _too_large(self, due: Due) -> Outcome:
        limit = self.config.limits.document_mb
        error = DocumentError(f"{due.size:,} bytes, more than the {limit} MiB that a document may have: split it")
        return _set_aside(due, "load", "size_limit", error, self.source.digest(due.path))

    def _make_part(self, reads: list[tuple[Due, bytes, str]]) -> tuple[str, list[Outcome]]:
        name = digest(
            self.config.tenant,
            self.config.use_case,
            self.config.source,
            self.pipeline,
            self.config.limits.name,
            *(f"{due.doc_id} {content} {due.attempt}" for due, _, content in reads),
        )
        uri = part_uri(self.config, name)
        manifest = uri.with_suffix(".json")
        if manifest.exists() and uri.exists():
            # What differs from run to run is not the part's to say.
            dues = {due.doc_id: due for due, _, _ in reads}
            return name, [_outcome_of(row, dues[row["doc_id"]]) for row in read_json(manifest)]
        made = [self._load(*read) for read in reads]
        write_parquet(uri, self._rows(made))
        outcomes = [read.outcome for read in made]
        write_json(manifest, _as_rows(outcomes), indent=None)
        return name, outcomes

    def _load(self, due: Due, data: bytes, content: str) -> _Read:
        try:
            document = self.reader.read(data, due.path)
        except DocumentError as error:
            if error.fault in NOT_THE_DATA:
                raise _NotTheDataError("load", error.fault, error) from error
            return _Read(due=due, chunks=[], outcome=_set_aside(due, "load", error.fault, error, content))
        try:
            chunks = self.chunker.split(document)
        except Exception as error:
            # Of any class: whatever a document does to the chunker, the documents beside it can still be used.
            return _Read(due=due, chunks=[], outcome=_set_aside(due, "chunk", "malformed", error, content))
        rejects = tuple((reject.locator, reject.reason) for reject in document.rejects)
        found = {"content_digest": content, "title": document.title, "chunks": len(chunks), "rejects": rejects}
        return _Read(due=due, chunks=chunks, outcome=_outcome(due, "ok" if chunks else "empty", **found))

    def _rows(self, reads: list[_Read]) -> pa.Table:
        """The chunks of some documents, column by column, which takes half the time of row by row."""
        import pyarrow as pa

        config, model = self.config, self.embedder
        schema = chunk_schema(model.dimension)
        pure = pa.schema([field for field in schema if field.name not in ("run_id", "ingested_at")])
        rows = [(read, chunk) for read in reads for chunk in read.chunks]
        texts = [chunk.for_embedding(read.outcome.title) for read, chunk in rows]
        digests = [digest(model.name, text)[:32] for text in texts]
        vectors = self._vectors(dict(zip(digests, texts, strict=True)), digests)
        same = {"tenant": config.tenant, "use_case": config.use_case, "source": config.source}
        same |= {"chunker": self.chunker.name, "embedder": model.name}
        of_chunk = ("locator", "page", "text", "headings", "ordinal", "start", "end")
        columns: dict[str, Any] = {
            "id": [
                chunk_id(config.tenant, read.due.doc_id, self.pipeline, chunk.ordinal, chunk.text)
                for read, chunk in rows
            ],
            "doc_id": [read.due.doc_id for read, _ in rows],
            "path": [read.due.path for read, _ in rows],
            "title": [read.outcome.title for read, _ in rows],
            "content_digest": [read.outcome.content_digest for read, _ in rows],
            "embedding_digest": digests,
            "vector_digest": list(map(vector_digest, digests, vectors)),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), model.dimension),
            **{name: [getattr(chunk, name) for _, chunk in rows] for name in of_chunk},
            **{name: [value] * len(rows) for name, value in same.items()},
        }
        return pa.Table.from_pydict(columns, schema=pure)

    def _vectors(self, texts: dict[str, str], digests: list[str]) -> np.ndarray[Any, Any]:
        """A row for each digest: the index's own vector for a text that it holds already, else the embedder's."""
        import numpy as np

        known = self._known(list(texts))
        missing = [one for one in texts if one not in known]
        if missing:
            known |= dict(zip(missing, self._embed([texts[one] for one in missing]), strict=True))
        self.chunks_embedded += len(missing)
        self.chunks_reused += len(digests) - len(missing)
        vectors = np.zeros((len(digests), self.embedder.dimension), dtype=np.float32)
        for row, one in enumerate(digests):
            vectors[row] = known[one]
        return vectors

    def _embed(self, texts: list[str]) -> np.ndarray[Any, Any]:
        try:
            return embed_metered(self.embedder, texts, self.meter)
        except Exception as error:
            raise _NotTheDataError("embed", "not_embedded", error) from error

    def _known(self, digests: list[str]) -> dict[str, np.ndarray[Any, Any]]:
        known: dict[str, np.ndarray[Any, Any]] = {}
        for store in self._stores:
            if missing := [one for one in digests if one not in known]:
                known |= store.vectors(missing)
        return known

    @cached_property
    def _stores(self) -> list[Store]:
        """Where vectors of this embedder may lie: the version that is worked on, unless it is empty; the live one."""
        config, versions = self.config, self.config.versions
        stores = [config.open_store()] if read_plan(config).expected_version else []
        live = versions.live().version
        if live not in (None, config.version):
            version = versions.get(live)
            # What somebody else built has nothing that proves whose text a vector is of.
            if version.adopted is None and version.spec.embedder_version == config.spec.embedder_version:
                stores.append(versions.open(live, version.spec))
        return stores


def chunk_id(tenant: str, doc_id: str, pipeline: str, ordinal: int, text: str) -> str:
    """A chunk's id: the digest of what it is, so that a row that was altered does not prove itself."""
    return digest(tenant, doc_id, pipeline, str(ordinal), text)[:32]


class _NotTheDataError(Exception):
    """Something failed on documents that is no fault of theirs."""

    def __init__(self, stage: Literal["load", "embed"], fault: Fault, cause: Exception) -> None:
        super().__init__(str(cause))
        self.stage: Literal["load", "embed"] = stage
        self.fault: Fault = fault
        self.cause = cause


def _documents_per_part(config: IngestConfig) -> int:
    return DOCUMENTS_PER_PART if config.embedder in FREE else min(EMBEDDED_PER_PART, DOCUMENTS_PER_PART)


def _groups(due: list[Due], most: int) -> Iterator[list[Due]]:
    """What is due, in groups that become a part each."""
    group: list[Due] = []
    size = 0
    for one in due:
        if group and (len(group) == most or size + one.size > BYTES_PER_PART):
            yield group
            group, size = [], 0
        group.append(one)
        size += one.size
    if group:
        yield group


def _set_aside(
    due: Due, stage: Literal["read", "load", "chunk", "embed"], fault: Fault, error: Exception, content: str = ""
) -> Outcome:
    reason = str(error) if isinstance(error, DocumentError | EmbeddingError) else f"{type(error).__name__}: {error}"
    why: dict[str, Any] = {"stage": stage, "fault": fault, "reason": one_line(reason), "content_digest": content}
    return _outcome(due, "quarantined", **why)


def _outcome(due: Due, status: Literal["ok", "empty", "quarantined", "vanished"], **rest: Any) -> Outcome:
    return Outcome(doc_id=due.doc_id, path=due.path, status=status, **_own(due), **rest)


def _own(due: Due) -> dict[str, Any]:
    """What a run knows of a document, where its part knows only its content."""
    return {"action": due.action, "stamp": due.stamp, "attempt": due.attempt}


def _as_rows(outcomes: Iterable[Outcome]) -> list[dict[str, Any]]:
    """Outcomes to be written, without the fields that are empty, as most are of a document that is well."""
    return [{name: value for name in Outcome._fields if (value := getattr(outcome, name))} for outcome in outcomes]


def _outcome_of(row: dict[str, Any], due: Due | None = None) -> Outcome:
    """An outcome read back; of a part, with what this run knows of the document."""
    own = _own(due) if due else {}
    if rejects := row.get("rejects"):
        own["rejects"] = tuple((locator, reason) for locator, reason in rejects)
    return Outcome(**{**row, **own})


def _result(config: IngestConfig, shard: str) -> UPath:
    return config.run_home / "shards" / f"{shard}.json"
