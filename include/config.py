"""Every setting of the project, typed, with its reason; nothing else reads the project's environment.

A setting `x` is looked up, first hit wins, as
1. the environment variable `FMOPS_X`;
2. the environment variable `AIRFLOW__FMOPS__X`, which is what Amazon MWAA makes of the configuration option `fmops.x`
   (MWAA offers no other environment variables without a startup script);
3. the key `x` of the TOML file that `FMOPS_SETTINGS` names, or of `include/settings.toml` if that exists;
4. the default below.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, AliasGenerator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from include.errors import UserError
from include.names import NAME, SCHEMES

PROJECT = Path(__file__).resolve().parent.parent
MLFLOW_SCHEMES = ("sqlite:///", "http://", "https://", "arn:")


def _names(field: str) -> AliasChoices:
    return AliasChoices(f"FMOPS_{field.upper()}", f"AIRFLOW__FMOPS__{field.upper()}")


class Settings(BaseSettings):
    """What a deployment is: its target, where its files lie, its tenant, its models."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=AliasGenerator(validation_alias=_names),
        # The file has plain names. With a prefix, the environment has not: MLFLOW_TRACKING_URI is not ours.
        validate_by_name=True,
        env_prefix="FMOPS_",
    )

    target: Literal["local", "aws"] = "local"
    """Where work runs. Chooses the default of every setting below whose default is None; no DAG branches on it."""

    storage_root: str | None = None
    """URI under which everything is kept: file:///..., s3://bucket/prefix or memory://... Locally: data/."""

    tenant: str = Field(default="default", pattern=NAME)
    """Whose data a run handles when its Params do not say; part of every key and every search filter."""

    use_case: str = Field(default="default", pattern=NAME)
    """What the data is for when the Params do not say; usage is reported by it."""

    embedder: str | None = None
    """Name of the embedding model. None: the target's own (see include/models/embeddings.py)."""

    vector_store: str | None = None
    """Name of the vector store. None: the target's own (see include/rag/stores)."""

    document_seconds: float = Field(default=60.0, gt=0)
    """Processor time that reading one document may take, in seconds; a document that loops is set aside after it."""

    document_memory_mb: int = Field(default=768, ge=128)
    """Memory that reading one document may take; so little that a worker of 2 GB lives beside it."""

    chat_url: str | None = None
    """Base URL of any OpenAI-compatible server (Ollama, vLLM, llama.cpp), such as http://localhost:11434/v1."""

    chat_model: str | None = None
    """Name of the model to ask for at chat_url."""

    chat_api_key: SecretStr = SecretStr("not-needed")
    """Key for chat_url; most local servers want none. Never logged."""

    chat_timeout_s: float = Field(default=120.0, gt=0)
    """Longest wait for one answer, in seconds; a CPU-size model writes slowly."""

    embedding_url: str | None = None
    """Base URL of an OpenAI-compatible server that embeds, such as http://localhost:11434/v1; for embedder `openai`."""

    embedding_model: str | None = None
    """Name of the model to ask for at embedding_url."""

    embedding_dimension: int | None = Field(default=None, ge=1)
    """Numbers in one of its vectors. An answer of another length is refused."""

    embedding_limit_tokens: int = Field(default=512, ge=16)
    """Longest text that it reads, in tokens; what is longer would be cut in silence by many servers."""

    embedding_api_key: SecretStr = SecretStr("not-needed")
    """Key for embedding_url. Never logged."""

    model_deadline_s: float = Field(default=300.0, gt=0)
    """Longest wait for one call to a remote model, its retries included, in seconds; then the task is tried again."""

    model_concurrency: int = Field(default=4, ge=1)
    """Calls to a remote model that one task has in flight."""

    model_requests_per_minute: float | None = Field(default=None, gt=0)
    """Calls that one task starts in a minute at most; divide the account's quota by the tasks that run at once."""

    model_tokens_per_minute: float | None = Field(default=None, gt=0)
    """Tokens that one task sends in a minute at most; as model_requests_per_minute."""

    opensearch_url: str | None = None
    """Where store `opensearch` is: http://localhost:9200, or the https:// endpoint of a domain or collection."""

    opensearch_auth: Literal["none", "basic", "sigv4"] = "none"
    """How to sign in: `sigv4` with the AWS credentials of the environment, `basic` with user and password."""

    opensearch_service: Literal["es", "aoss"] = "es"
    """What sigv4 signs for: `es` a managed domain, `aoss` a serverless collection, which can do less."""

    opensearch_user: str | None = None
    """User for auth `basic`."""

    opensearch_password: SecretStr = SecretStr("")
    """Password for auth `basic`. Never logged."""

    opensearch_ca_file: str | None = None
    """Certificates to trust for https://, where the system's own do not hold the server's."""

    opensearch_prefix: str = Field(default="fmops", pattern=NAME)
    """First part of every index's name, so that two deployments can share a cluster."""

    opensearch_engine: Literal["lucene", "faiss"] = "lucene"
    """What searches vectors in a new index version; those that stand keep theirs until they are rebuilt."""

    opensearch_index_file: str | None = None
    """JSON file whose `settings` and `mappings` are merged over those that a new index gets, such as an analyzer."""

    opensearch_replicas: int = Field(default=1, ge=0)
    """Copies of each shard of a live index; 0 suits a cluster of one node."""

    opensearch_bulk_mb: float = Field(default=8.0, gt=0)
    """Largest bulk request in MiB; some instance types refuse more than 10."""

    opensearch_bulk_items: int = Field(default=500, ge=1)
    """Most items of one bulk request."""

    opensearch_concurrency: int = Field(default=4, ge=1)
    """Bulk requests in flight."""

    opensearch_deadline_s: float = Field(default=300.0, gt=0)
    """Longest wait for the cluster to take one bulk request, its retries included, in seconds."""

    job_backend: str | None = None
    """Where long jobs run: `local` or `sagemaker`. None: the target's own (see include/jobs/base.py)."""

    job_inline_s: float = Field(default=15.0, ge=0)
    """How long a task waits for its job before it frees its worker slot, in seconds; most small jobs end in it."""

    job_poll_s: float = Field(default=10.0, gt=0)
    """Between two looks at a job on SageMaker, in seconds; at a local one they are 2 s apart at most."""

    job_python: str | None = None
    """Python of the jobs environment. None: .venv-jobs beside the project if it is there, else the one that runs."""

    job_folder: str | None = None
    """Folder of local jobs; all that wait for them must see it. None: `jobs` below a file:// storage_root."""

    job_lost_after_s: float = Field(default=60.0, ge=2)
    """Silence of a local job's supervisor after which it counts as gone, in seconds."""

    sagemaker_role: str | None = None
    """ARN of the role that SageMaker jobs take on. Required for backend `sagemaker`."""

    sagemaker_subnets: str | None = None
    """Ids of subnets, separated by commas, to run jobs in a VPC; with sagemaker_security_groups."""

    sagemaker_security_groups: str | None = None
    """Ids of security groups, separated by commas."""

    sagemaker_kms_key: str | None = None
    """ARN or id of the key that encrypts volumes and outputs of jobs. None: AWS's own."""

    worker_image: str | None = None
    """ECR address of the image of the Dockerfile's target `worker`, for SageMaker jobs that need what workers have."""

    mlflow_tracking_uri: str | None = None
    """Where MLflow shows the releases: sqlite:///FILE, http(s)://HOST, or the ARN of a server that SageMaker manages.
    None: mlflow.db below a file:// storage_root; elsewhere no view is written."""

    @field_validator("storage_root")
    @classmethod
    def _has_a_scheme(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(SCHEMES):
            raise ValueError("must start with file://, s3:// or memory://")
        return value

    @field_validator("mlflow_tracking_uri")
    @classmethod
    def _is_no_secret(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(MLFLOW_SCHEMES):
            raise ValueError(f"must start with {', '.join(MLFLOW_SCHEMES)}")
        if value is not None and "@" in value.partition("://")[2].partition("/")[0]:
            raise ValueError("holds a user: give that by MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The order of the module's docstring."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, settings_file())

    @property
    def root(self) -> str:
        """The storage root as a URI without a trailing slash; UserError if the target needs one and has none."""
        if self.storage_root is not None:
            return self.storage_root.rstrip("/")
        if self.target == "aws":
            raise UserError("storage_root is not set: set FMOPS_STORAGE_ROOT=s3://BUCKET/PREFIX (target aws)")
        return f"file://{PROJECT / 'data'}"


def settings_file() -> Path:
    """The TOML file of settings; it need not exist unless FMOPS_SETTINGS names it."""
    named = os.environ.get("FMOPS_SETTINGS")
    if named and not Path(named).is_file():
        raise UserError(f"FMOPS_SETTINGS={named} is not a file")
    return Path(named) if named else Path(__file__).with_name("settings.toml")


def load_settings() -> Settings:
    """Read the settings now; UserError with one line per wrong setting."""
    try:
        return Settings()
    except ValidationError as error:
        raise UserError("; ".join(_line(detail) for detail in error.errors())) from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"settings file {settings_file()}: {error}") from None


def _line(detail: Any) -> str:
    """One wrong setting; the value only where it cannot be a secret in the wrong place."""
    name = str(detail["loc"][0])
    secret = any(word in name.lower() for word in ("key", "password")) or "@" in str(detail["input"])
    plain = detail["type"] != "extra_forbidden" and not secret
    return f"setting {name}{'=' + repr(detail['input']) if plain else ''}: {detail['msg']}"
