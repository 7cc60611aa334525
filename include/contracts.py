"""The records that cross a boundary: between tasks and DAGs, between runs, and to whoever reads the results.

Each carries `schema_version`, `tenant`, `use_case` and `created_at`. Readers refuse a version they do not know.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from include.errors import Fault
from include.names import NAME


def now() -> datetime:
    """The current time in UTC, with its zone."""
    return datetime.now(UTC)


class Record(BaseModel):
    """What every record has. Frozen; an unknown field is an error, not a silent loss."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    tenant: str
    use_case: str
    created_at: datetime = Field(default_factory=now)


class UsageEvent(Record):
    """One metered use of a model, written by whoever calls it; priced later, by effective date."""

    event_id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    """Unique; a reader deduplicates by it."""

    kind: Literal["chat", "embedding", "job"]
    model: str
    status: Literal["ok", "error"]
    num_requests: int = 1
    """How many calls this event sums up; an embedder writes one event for each of its batches of documents."""

    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    tokens_exact: bool = True
    """False where the provider reports no counts and they were estimated."""

    latency_ms: float = 0.0
    instance_seconds: float = 0.0
    """Compute time of a job."""

    price_version: str | None = None
    """Version of the price list that was in force, where the caller priced it; None: priced by the usage DAG."""

    dag_id: str | None = None
    run_id: str | None = None
    task_id: str | None = None
    error: str | None = None


class DeadLetter(Record):
    """A document, or one record of it, that an ingestion set aside; kept beside the results until it can be read."""

    index: str
    run_id: str
    """The run that tried it last."""
    doc_id: str
    source: str
    path: str
    locator: str | None = None
    """The record within the document, such as `line 7`; None: all of the document."""
    content_digest: str = ""
    """Of the bytes that could not be used; empty if they could not be had. The same bytes are not tried again."""
    stage: Literal["read", "load", "chunk", "embed", "index"]
    fault: Fault
    reason: str
    attempt: int = 1
    """How often these bytes were tried, this time included."""
    reader: str = ""
    """What tried them: chunker, embedder and limits. Another one tries them again."""


class IngestionCounts(BaseModel):
    """How many documents a run saw and what became of them; `found` is the sum of the next seven."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    found: int
    unchanged: int
    added: int
    changed: int
    empty: int
    """New or changed, without any text; kept in the ledger with no chunk."""
    quarantined: int
    """Tried by this run and set aside; the reasons lie in the quarantine file. What the index held of them stays."""
    still_quarantined: int
    """Set aside by an earlier run and unchanged since, so not tried again."""
    vanished: int
    """Listed, but gone when it was to be read; the next run counts it as deleted."""
    deleted: int
    """In the ledger but no longer in the source; not part of `found`."""
    deletions_held: int = 0
    """As `deleted`, but not agreed to: they stay in the index; a version that lacks them does not go live."""
    skipped: int
    """Files of kinds that are not read, or excluded by a pattern; not part of `found`."""
    records_quarantined: int
    """Records set aside by this run, of documents whose other records were read."""
    chunks_written: int
    chunks_embedded: int
    """Less than chunks_written where a vector was reused, or a repeated task found its parts already there."""
    chunks_reused: int
    """Took their vector from a chunk of the same text, in the index or in the same part."""
    documents_total: int
    """In the index after the run, of all sources."""
    chunks_total: int

    @model_validator(mode="after")
    def _nothing_is_lost(self) -> IngestionCounts:
        parts = self.unchanged + self.added + self.changed + self.empty
        parts += self.quarantined + self.still_quarantined + self.vanished
        if self.found != parts:
            raise ValueError(f"{self.found} documents were found, but {parts} are accounted for")
        return self


class IngestionManifest(Record):
    """What one ingestion run did and left behind; written last, so its existence means that all of it is there."""

    index: str
    index_version: int
    run_id: str
    source_uri: str
    store: str
    store_uri: str
    embedder: str
    chunker: str
    ledger_uri: str
    ledger_version: int
    quarantine_uri: str | None
    counts: IngestionCounts


class ReleaseFile(BaseModel):
    """A file of a release."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$")
    """Below the release's folder; it cannot lead out of it."""
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Lineage(BaseModel):
    """What a model was made of, and by which run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_uri: str
    data_digest: str
    tokenizer_digest: str
    config_digest: str
    """Of everything that training was told."""
    code_digest: str
    dag_id: str
    run_id: str
    jobs: tuple[str, ...]
    """Names of the jobs that trained and measured it, in their order."""


class Cost(BaseModel):
    """What it took to make a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    usd: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """None: no price is known, which is not the same as free."""
    instance_seconds: float = Field(ge=0, allow_inf_nan=False)


class ModelRelease(Record):
    """A version of a model that may be used; written last, so its existence means that all of its files are there."""

    model: str = Field(pattern=NAME)
    version: int = Field(ge=1)
    content_digest: str
    """Of data, configuration, code and base model: the same content is the same version."""
    model_uri: str
    """Folder that plain transformers loads."""
    card_uri: str
    architecture: str
    size: str
    parameters: int = Field(ge=1)
    base_model: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}/[1-9]\d*$")] | None = None
    """name/version of the release that it was made from; None: from scratch."""
    lineage: Lineage
    config: dict[str, str | int | float | bool]
    """What training was told, by name."""
    metrics: dict[str, FiniteFloat]
    """As evaluation.json has them; a dot leads to what lies deeper, as in held_out.bits_per_byte."""
    files: tuple[ReleaseFile, ...]
    licences: tuple[str, ...]
    """Of the data, as its sources name them."""
    cost: Cost

    @property
    def reference(self) -> str:
        """As other records name it: name/version."""
        return f"{self.model}/{self.version}"

    @property
    def uri(self) -> str:
        """The release's folder."""
        return self.card_uri.rpartition("/")[0]
