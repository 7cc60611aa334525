"""The manifest of a packed corpus: what its files hold. Written last, so a folder that has one is whole.

A corpus is named by the digest of all that it was made of, so its manifest says nothing of time, tenant or run: the
same corpus packed again has the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from include.errors import DriftError, UserError
from include.names import NAME
from include.storage import list_files, location
from include.training.tokenizer import LARGEST, NUM_SENTINELS, vocabulary_digest

if TYPE_CHECKING:
    from upath import UPath

Name = Annotated[str, Field(pattern=NAME)]
Count = Annotated[int, Field(ge=0)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$")]

TOKEN_BYTES = 2
BLOCK_BYTES = 2**20


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Totals(_Strict):
    """Of a split."""

    tokens: Count = 0
    """With the end token of each document."""
    documents: Count = 0
    bytes: Count = 0
    """Of the documents' texts, in UTF-8."""


class PackedFile(Totals):
    """A file of token ids and what it holds."""

    path: str = Field(pattern=r"^(train-\d{5,}|held_out-[a-z0-9][a-z0-9_-]{0,62})\.bin$")
    split: Literal["train", "held_out"]
    source: Name | None
    """Of a file of held-out documents; one of train documents has any."""
    sha256: Digest
    sources: dict[Name, Count]
    """Tokens by source."""
    licences: dict[str, Count]
    """Tokens by licence."""

    @property
    def table(self) -> str:
        """The name of the file that tells the documents: where each begins, and where it comes from."""
        return table_of(self.path)

    @model_validator(mode="after")
    def _is_consistent(self) -> PackedFile:
        for name in ("sources", "licences"):
            if (found := sum(getattr(self, name).values())) != self.tokens:
                raise ValueError(f"{self.path} has {self.tokens} tokens, but {found} by {name}")
        path = f"held_out-{self.source}.bin" if self.split == "held_out" else self.path
        if path != self.path or path.startswith("train-") != (self.source is None):
            raise ValueError(f"{self.path} cannot be of split {self.split} and source {self.source}")
        return self


class CorpusManifest(_Strict):
    """A packed corpus: ids of special tokens, and each file of token ids."""

    schema_version: Literal[1] = 1
    corpus_digest: Digest
    tokenizer_digest: Digest
    vocab_size: int = Field(ge=1, le=LARGEST)
    end_id: Count
    pad_id: Count
    sentinels: tuple[int, int]
    """The first id and their number; they are the last ids."""
    dtype: Literal["uint16"] = "uint16"
    """Little-endian."""
    files: tuple[PackedFile, ...]
    train: Totals
    held_out: Totals

    @model_validator(mode="after")
    def _is_consistent(self) -> CorpusManifest:
        if self.sentinels != (self.vocab_size - NUM_SENTINELS, NUM_SENTINELS):
            raise ValueError(f"sentinels {self.sentinels} are not the last {NUM_SENTINELS} of {self.vocab_size} ids")
        if len({file.path for file in self.files}) != len(self.files):
            raise ValueError("a file is named twice")
        for split, told in (("train", self.train), ("held_out", self.held_out)):
            if (found := totals(file for file in self.files if file.split == split)) != told:
                raise ValueError(f"the files of split {split} hold {found}, but it is said to hold {told}")
        return self


def table_of(path: str) -> str:
    """The name of the table of the documents of a file of token ids."""
    return f"documents-{path.removesuffix('.bin').removeprefix('train-')}.parquet"


def totals(files: Iterable[Totals]) -> Totals:
    """The sums over some files."""
    mine = list(files)
    return Totals(**{name: sum(getattr(file, name) for file in mine) for name in Totals.model_fields})


def read_corpus(place: str | UPath, *, with_digests: bool = False) -> CorpusManifest:
    """The manifest of a packed corpus, by its URI or folder, whose files are as long as it says.

    with_digests reads them all and compares their digests, and the tokenizer's.
    UserError if there is no corpus of a known version, DriftError if its files are not those that were packed.
    """
    folder = location(place) if isinstance(place, str) else place
    try:
        manifest = CorpusManifest.model_validate_json((folder / "manifest.json").read_bytes())
    except FileNotFoundError:
        raise UserError(f"corpus {folder} has no manifest.json, which is written last: pack it first") from None
    except ValidationError as error:
        raise UserError(f"corpus {folder}: its manifest.json is none that this version reads: {_told(error)}") from None
    sizes = {name: about["size"] for name, about in list_files(folder).items()}
    for file in manifest.files:
        if sizes.get(file.path) != TOKEN_BYTES * file.tokens:
            raise DriftError(
                f"corpus {folder}: {file.path} has {sizes.get(file.path, 'no')} bytes, not {TOKEN_BYTES * file.tokens} "
                "as its manifest says: remove manifest.json and pack it anew"
            )
    wanted = {"tokenizer.json", "tokenizer_report.json", "report.json", *(file.table for file in manifest.files)}
    if missing := sorted(wanted - set(sizes)):
        raise DriftError(f"corpus {folder} lacks {', '.join(missing)}: remove manifest.json and pack it anew")
    if with_digests:
        _check_digests(folder, manifest)
    return manifest


def check_enough(manifest: CorpusManifest, batch_tokens: int, context: int) -> None:
    """UserError unless train documents fill one batch, and held-out ones one sequence.

    Sequences are counted as the trainer's loader makes them: within a file, each with one more token than the context.
    """
    rows = dict.fromkeys(("train", "held_out"), 0)
    for file in manifest.files:
        rows[file.split] += max(0, file.tokens - 1) // context
    for split, told, wanted, purpose, remedy in (
        ("train", manifest.train, -(-batch_tokens // context), f"one batch of {batch_tokens:,} tokens", "fewer"),
        ("held_out", manifest.held_out, 1, "an evaluation", "more"),
    ):
        if rows[split] < wanted:
            raise UserError(
                f"corpus: {told.tokens:,} {split} tokens in {told.documents:,} documents make {rows[split]:,} rows "
                f"of {context:,}; {purpose} needs {wanted:,}, which are {wanted * context + 1:,} tokens in one file or "
                f"more in several: give more documents, hold out {remedy}, or take a smaller size preset"
            )


def sha256_of(path: UPath) -> str:
    """SHA-256 of a file, read in blocks."""
    state = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            state.update(block)
    return state.hexdigest()


def _check_digests(folder: UPath, manifest: CorpusManifest) -> None:
    for file in manifest.files:
        if sha256_of(folder / file.path) != file.sha256:
            raise DriftError(f"corpus {folder}: {file.path} is not what was packed: remove manifest.json, pack it anew")
    if vocabulary_digest((folder / "tokenizer.json").read_bytes()) != manifest.tokenizer_digest:
        raise DriftError(f"corpus {folder}: its tokenizer.json is not the one that packed it")


def _told(error: ValidationError) -> str:
    """In one line, of the first thing that is wrong."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'manifest'}: {first['msg']}"
