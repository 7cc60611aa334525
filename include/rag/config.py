"""What one ingestion run shall do: its Params and the settings, resolved and checked before any work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from upath import UPath

from include.config import Settings, load_settings
from include.documents.demo import demo_home
from include.documents.reader import Limits
from include.documents.source import FolderSource, source_uri
from include.errors import UserError
from include.models import embeddings
from include.names import NAME
from include.rag import stores
from include.rag.chunking import Chunker
from include.rag.versions import Spec, Versions
from include.storage import local_uri, run_key


class IngestConfig(BaseModel):
    """One run's instructions: plain values only, so that tasks can hand it on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: str
    tenant: str = Field(pattern=NAME)
    use_case: str = Field(pattern=NAME)
    run_id: str
    index: str = Field(pattern=NAME)
    version: int = 0
    """Which version of the index the run works on; chosen once, when all else is known."""
    source: str
    """URI of a folder or prefix."""
    include: tuple[str, ...] = ()
    """Shell patterns on the path below the source, `*` crossing folders; empty: every file that can be read."""
    exclude: tuple[str, ...] = ()
    embedder: str
    store: str
    chunk_tokens: int = Field(ge=16)
    overlap_tokens: int = Field(ge=0)
    documents_per_shard: int = Field(ge=1)
    embed_on: Literal["tasks", "job"] = "tasks"
    document_seconds: float = Field(default=60, gt=0)
    document_memory_mb: int = Field(default=768, ge=128)
    tolerate: Literal["none", "bad_data", "all"] = "bad_data"
    replay_quarantine: bool = False
    max_deleted_percent: float = Field(default=10, ge=0, le=100)
    """Of the source's documents in the index; a run that would delete more asks a person first."""
    on_many_deletions: Literal["ask", "keep", "delete"] = "ask"
    answer_hours: float = Field(default=24, gt=0, le=720)
    """Until a question that nobody answered counts as answered with no."""
    golden: str | None = None
    """URI of a JSON lines file of questions; None: they are made from the source."""
    min_recall_at_5: float = Field(default=0.5, ge=0, le=1)
    min_mrr: float = Field(default=0.4, ge=0, le=1)
    max_drop: float = Field(default=0.02, ge=0, le=1)
    """How much worse than the live version a new one may be."""
    rebuild: bool = False
    keep_versions: int = Field(default=2, ge=1)

    @property
    def limits(self) -> Limits:
        """What reading one document may cost."""
        return Limits(seconds=self.document_seconds, memory_mb=self.document_memory_mb)

    @model_validator(mode="after")
    def _values_fit_together(self) -> IngestConfig:
        if self.overlap_tokens >= self.chunk_tokens:
            raise ValueError(
                f"overlap_tokens={self.overlap_tokens} must be smaller than chunk_tokens={self.chunk_tokens}"
            )
        limit = embeddings.get_embedder(self.embedder).limit_tokens
        if self.chunk_tokens > limit:
            raise ValueError(
                f"chunk_tokens={self.chunk_tokens} is more than embedder {self.embedder!r} reads: at most {limit}"
            )
        return self

    @property
    def versions(self) -> Versions:
        """The versions of the index."""
        return Versions(self.root, self.tenant, self.index)

    @property
    def home(self) -> UPath:
        """Where the run's version of the index lies: its ledger, parts, quarantine, and the embedded store."""
        return self.versions.home_of(self.version)

    @property
    def run_home(self) -> UPath:
        """Where this run keeps its plan, its results and its manifest."""
        return self.versions.home / "runs" / run_key(self.run_id)

    @property
    def spec(self) -> Spec:
        """What this run makes rows by."""
        return Spec(
            store=self.store,
            embedder=embeddings.lasting_name(self.embedder),
            embedder_version=embeddings.get_embedder(self.embedder).name,
            chunker=self.chunker().name,
        )

    def chunker(self) -> Chunker:
        """The run's chunker, counting tokens as the run's embedder does."""
        model = embeddings.get_embedder(self.embedder)
        return Chunker(self.chunk_tokens, self.overlap_tokens, model.count_tokens, model.limit_tokens)

    def open_source(self) -> FolderSource:
        """The files of the source, without those that the run leaves aside."""
        return FolderSource(self.source, root=self.root, include=self.include, exclude=self.exclude)

    def open_store(self) -> stores.Store:
        """The store of the run's version; in the process that uses it, as stores.open_store() says."""
        return self.versions.open(self.version, self.spec)


def resolve(params: Mapping[str, Any], run_id: str, settings: Settings | None = None) -> IngestConfig:
    """The run's configuration from its Params; None takes the setting, then the target's own.

    Raises UserError with one line that names the Param, its value and what is allowed.
    """
    settings = settings or load_settings()
    known = IngestConfig.model_fields.keys() - {"root", "run_id", "version"}
    values = {name: value for name, value in params.items() if name in known and value is not None}
    values.setdefault("tenant", settings.tenant)
    values.setdefault("use_case", settings.use_case)
    values |= {"document_seconds": settings.document_seconds, "document_memory_mb": settings.document_memory_mb}
    values.setdefault("embedder", embeddings.default_embedder(settings))
    values.setdefault("store", stores.default_store(settings))
    stores.check_name(values["store"])
    embeddings.check_installed(values["embedder"])
    source = values.get("source")
    values["source"] = source_uri(source) if source else str(demo_home(settings.root))
    if values["source"] == settings.root:
        raise UserError(f"source {source!r} is the storage root itself, where runs write: name another folder")
    golden = values.get("golden")
    if golden and "://" not in golden:
        values["golden"] = local_uri(golden)
    try:
        return IngestConfig(root=settings.root, run_id=run_id, **values)
    except ValidationError as error:
        raise UserError("; ".join(_line(detail) for detail in error.errors())) from None


def _line(detail: Any) -> str:
    message = str(detail["msg"]).removeprefix("Value error, ")
    return message if not detail["loc"] else f"{detail['loc'][0]}={detail['input']!r}: {message}"
