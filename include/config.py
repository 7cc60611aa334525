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


def _names(field: str) -> AliasChoices:
    return AliasChoices(f"FMOPS_{field.upper()}", f"AIRFLOW__FMOPS__{field.upper()}", field)


class Settings(BaseSettings):
    """What a deployment is: its target, where its files lie, its tenant, its models."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", alias_generator=AliasGenerator(validation_alias=_names)
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

    @field_validator("storage_root")
    @classmethod
    def _has_a_scheme(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(SCHEMES):
            raise ValueError("must start with file://, s3:// or memory://")
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
    plain = detail["type"] != "extra_forbidden" and "key" not in name.lower()
    return f"setting {name}{'=' + repr(detail['input']) if plain else ''}: {detail['msg']}"
