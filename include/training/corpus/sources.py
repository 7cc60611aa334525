"""Where a corpus comes from: folders of documents, files of records, and what an ingestion index holds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from include.documents.demo import build, demo_home
from include.errors import UserError
from include.names import NAME, SCHEMES
from include.storage import local_uri
from include.training.corpus.records import LICENCE_CHARACTERS


class CorpusSource(BaseModel):
    """One source of documents."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=NAME)
    uri: str = Field(min_length=1)
    """folder: a folder or prefix. records: a file, or a folder of them. index: the name of an index."""
    kind: Literal["folder", "records", "index"] = "folder"
    """folder: a document for each file that can be read. records: one for each line of JSON (.jsonl and .ndjson, with
    .gz or without) or row of Parquet. index: one for each document of the newest ingestion, read from where it lay."""
    licence: str | None = Field(default=None, max_length=LICENCE_CHARACTERS)
    """Such as Apache-2.0; None for records that carry a field `license` or `licence`, which goes before this one."""
    text_field: str = "text"
    """Of records, that holds the text."""
    language: str | None = Field(default=None, pattern=r"^[a-z]{2,3}$")
    """What its documents are written in, where that is known: then it is not detected."""
    split_by_folder: bool = False
    """Whether each top folder is a source of its own, named as the folder is, so that figures tell them apart."""

    @field_validator("licence")
    @classmethod
    def _is_one_line(cls, licence: str | None) -> str | None:
        return " ".join(licence.split()) or None if licence else None

    @field_validator("uri")
    @classmethod
    def _is_uri(cls, uri: str, info: Any) -> str:
        return uri.rstrip("/") if "://" in uri or Path(uri).name == uri else local_uri(uri)

    @model_validator(mode="after")
    def _values_fit_together(self) -> CorpusSource:
        if self.kind != "records" and not self.licence:
            raise ValueError(f"{self.name}: licence is missing, such as Apache-2.0; only records may carry their own")
        if self.kind == "index" and not re.fullmatch(NAME, self.uri):
            raise ValueError(f"{self.name}: uri={self.uri!r} must be the name of an index")
        if self.kind != "index" and not self.uri.startswith(SCHEMES):
            raise ValueError(f"{self.name}: uri={self.uri!r} must begin with one of {', '.join(SCHEMES)}, or with /")
        return self

    def name_of(self, path: str) -> str:
        """The source that a document of this one counts for, by its path."""
        folder, _, below = path.partition("/")
        if not self.split_by_folder or not below:
            return self.name
        return re.sub(r"[^a-z0-9_-]+", "-", folder.lower()).strip("-_")[:63] or self.name


def parse_sources(values: Sequence[Mapping[str, Any]] | None, root: str) -> tuple[CorpusSource, ...]:
    """Sources of a run's Params; the demo's documentation, built if need be, if there are none.

    UserError that names the first field that is wrong.
    """
    if not values:
        return (demo_source(root),)
    found = []
    for number, value in enumerate(values):
        try:
            found.append(CorpusSource(**value))
        except ValidationError as error:
            raise UserError(f"sources[{number}]: {_told(error)}") from None
    names = [source.name for source in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"sources: the name {twice[0]!r} is given twice; each source needs one of its own")
    return tuple(found)


def demo_source(root: str) -> CorpusSource:
    """The documentation that the ingestion demo reads, each of its folders as a source."""
    build(demo_home(root), "demo")
    uri = str(demo_home(root))
    return CorpusSource(name="documentation", uri=uri, licence="Apache-2.0", split_by_folder=True)


def _told(error: ValidationError) -> str:
    """In one line, the first thing that is wrong: field, value, what is allowed."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    value = "" if first["type"] in ("missing", "value_error") else f"={first['input']!r}"[:100]
    message = first["msg"].removeprefix("Value error, ")
    return " ".join(f"{place}{value}: {message}".removeprefix(": ").split())
