"""Packs kept documents into files of token ids, part by part; a last step joins what they held out and tells all.

Beside the files of the corpus, each part leaves a folder in `pieces/`: held-out tokens by source, their documents, and
`part.json`, written last. finish_corpus() joins these and removes them.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from include.errors import DriftError
from include.names import checked
from include.storage import list_files, new_file, size_of, write_bytes, write_json
from include.training.corpus_manifest import (
    BLOCK_BYTES,
    TOKEN_BYTES,
    CorpusManifest,
    PackedFile,
    Totals,
    read_corpus,
    table_of,
    totals,
)
from include.training.kept import SPLITS, kept_documents
from include.training.tokenizer import END, NUM_SENTINELS, PAD, encode, open_tokenizer, vocabulary_digest

if TYPE_CHECKING:
    import pyarrow as pa
    from tokenizers import Tokenizer
    from upath import UPath

log = logging.getLogger(__name__)

ORIGIN = ("doc_id", "source", "licence", "path", "locator")
"""What the table of packed documents takes over from curation."""
Split = Literal["train", "held_out"]
UNKNOWN = "unknown"
"""Licence of a document that names none, in counts."""


class PackedPart(BaseModel):
    """What packing one part left: its train file, and pieces of held-out files by the names of what they join."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    number: int
    tokenizer_digest: str
    files: tuple[PackedFile, ...]

    @property
    def totals(self) -> Totals:
        """Of both splits."""
        return totals(self.files)


def pack_part(part: UPath, kept: UPath, tokenizer: UPath, target: UPath, number: int) -> PackedPart | None:
    """Pack the kept documents of part `number` into the corpus folder `target`; the same bytes whenever repeated.

    `part` is one of curated/, `kept` its like of kept/, `tokenizer` a tokenizer.json. None if the corpus is whole
    already: nothing of it changes any more. UserError if a source's name is none.
    """
    if (target / "manifest.json").exists():
        log.info("corpus %s is whole already: part %d is not packed again", target, number)
        return None
    opened, pieces = open_tokenizer(tokenizer), _pieces(target, number)
    outputs: dict[str, _Output] = {}
    with ExitStack() as stack:
        for table in kept_documents(part, kept, (*ORIGIN[1:], "text")):
            for split, source, documents in _by_output(table):
                path = f"train-{number:05d}.bin" if source is None else f"held_out-{source}.bin"
                if path not in outputs:
                    folder = target if source is None else pieces
                    outputs[path] = _Output(stack, folder, path=path, split=split, source=source)
                outputs[path].add(documents, opened)
    packed = PackedPart(
        number=number,
        tokenizer_digest=vocabulary_digest(tokenizer.read_bytes()),
        files=tuple(output.packed() for _, output in sorted(outputs.items())),
    )
    write_bytes(pieces / "part.json", packed.model_dump_json(indent=1).encode())
    return packed


def finish_corpus(target: UPath, *, num_parts: int, corpus_digest: str, report: Mapping[str, Any]) -> CorpusManifest:
    """Join what the parts held out and write report.json and manifest.json; a corpus that is whole is only checked.

    `report` tells what each step of curation kept and dropped; packing's figures are added to it. DriftError if a part
    is missing, or was packed with another tokenizer than `target` has.
    """
    whole = target / "manifest.json"
    if not whole.exists():
        try:
            _join_parts(target, num_parts, corpus_digest, report)
        except (DriftError, FileNotFoundError):
            if not whole.exists():  # else another run has finished the same corpus meanwhile, and removed the pieces
                raise
    found = read_corpus(target)
    if found.corpus_digest != corpus_digest:
        raise DriftError(f"{target} holds the corpus {found.corpus_digest}, not {corpus_digest}: take another folder")
    _tidy(target)
    return found


class _Output:
    """A file of token ids and the table of its documents, as they grow; they take their places with the stack's end."""

    def __init__(self, stack: ExitStack, folder: UPath, *, path: str, split: Split, source: str | None) -> None:
        self._path, self._split, self._source = path, split, source
        self._file = stack.enter_context(new_file(folder / path))
        self._table = _open_table(stack, folder / table_of(path))
        self._sha256 = hashlib.sha256()
        self._tokens = self._documents = self._bytes = 0
        self._sources, self._licences = Counter[str](), Counter[str]()

    def add(self, documents: pa.Table, tokenizer: Tokenizer) -> None:
        """Append documents, each ended by the end token."""
        import pyarrow as pa
        import pyarrow.compute as pc

        end = np.array([tokenizer.token_to_id(END)], np.uint16)
        counts = []
        for ids in encode(tokenizer, documents["text"].to_pylist()):
            data = np.concatenate((ids, end)).astype("<u2").tobytes()
            self._file.write(data)
            self._sha256.update(data)
            counts.append(len(ids) + 1)
        offsets = self._tokens + np.cumsum([0, *counts[:-1]])
        sizes = pc.binary_length(documents["text"]).cast(pa.int64())
        origin = [documents[name].cast(pa.string()) for name in ORIGIN]
        self._table.write_table(pa.table([*origin, offsets, counts, sizes], schema=_schema()))
        self._tokens += sum(counts)
        self._documents += len(counts)
        self._bytes += pc.sum(sizes).as_py()
        for source, licence, count in zip(*(origin[at].to_pylist() for at in (1, 2)), counts, strict=True):
            self._sources[source] += count
            self._licences[licence or UNKNOWN] += count

    def packed(self) -> PackedFile:
        """What it holds so far."""
        return PackedFile(
            path=self._path,
            split=self._split,
            source=self._source,
            tokens=self._tokens,
            documents=self._documents,
            bytes=self._bytes,
            sha256=self._sha256.hexdigest(),
            sources=dict(sorted(self._sources.items())),
            licences=dict(sorted(self._licences.items())),
        )


def _by_output(table: pa.Table) -> Iterator[tuple[Split, str | None, pa.Table]]:
    """Split, source and documents of a table; all sources together for training, each by itself if held out."""
    import pyarrow.compute as pc

    for source in set(table["source"].to_pylist()):
        checked("source", str(source))  # it becomes part of a file's name
    is_train = pc.equal(table["split"], "train")
    if (train := table.filter(is_train)).num_rows:
        yield "train", None, train
    held_out = table.filter(pc.invert(is_train))
    for source in sorted(set(held_out["source"].to_pylist())):
        yield "held_out", source, held_out.filter(pc.equal(held_out["source"], source))


def _pieces(target: UPath, number: int) -> UPath:
    return target / "pieces" / f"{number:05d}"


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        [(name, pa.string()) for name in ORIGIN] + [(n, pa.int64()) for n in ("offset", "tokens", "bytes")]
    )


def _open_table(stack: ExitStack, path: UPath) -> Any:
    """A writer of a table of documents, whose file takes its place with the stack's end."""
    import pyarrow.parquet as pq

    file = stack.enter_context(new_file(path))
    return stack.enter_context(pq.ParquetWriter(file, _schema(), compression="lz4", use_dictionary=list(ORIGIN)))


def _join_parts(target: UPath, num_parts: int, corpus_digest: str, report: Mapping[str, Any]) -> None:
    """Make the corpus whole out of its parts; the manifest is written last."""
    data = (target / "tokenizer.json").read_bytes()
    parts = [_read_part(target, number, vocabulary_digest(data)) for number in range(num_parts)]
    files = [file for part in parts for file in part.files if file.split == "train"]
    for file in files:
        _check_size(target, file)
    sources = sorted({str(file.source) for part in parts for file in part.files if file.split == "held_out"})
    files += [_join(target, source, parts) for source in sources]
    write_json(target / "report.json", {**report, "schema_version": 1, "packing": _figures(files)})
    manifest = _manifest(open_tokenizer(target / "tokenizer.json"), vocabulary_digest(data), corpus_digest, files)
    write_bytes(target / "manifest.json", manifest.model_dump_json(indent=1).encode())


def _read_part(target: UPath, number: int, tokenizer_digest: str) -> PackedPart:
    file = _pieces(target, number) / "part.json"
    try:
        part = PackedPart.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        raise DriftError(f"part {number} is not packed: {file} is not there; clear its task") from None
    if part.tokenizer_digest != tokenizer_digest:
        raise DriftError(f"part {number} was packed with another tokenizer than {target} has: clear its task")
    return part


def _join(target: UPath, source: str, parts: Sequence[PackedPart]) -> PackedFile:
    """Write a source's held-out file and table, piece after piece."""
    path = f"held_out-{source}.bin"
    mine = [(_pieces(target, part.number), file) for part in parts for file in part.files if file.path == path]
    state = hashlib.sha256()
    with new_file(target / path) as joined:
        for folder, file in mine:
            _check_size(folder, file)
            with (folder / path).open("rb") as piece:
                while block := piece.read(BLOCK_BYTES):
                    joined.write(block)
                    state.update(block)
    _join_tables(target / table_of(path), [(folder / table_of(path), file.tokens) for folder, file in mine])
    held = [file for _, file in mine]
    return PackedFile(
        path=path,
        split="held_out",
        source=source,
        sha256=state.hexdigest(),
        sources=_sums(file.sources for file in held),
        licences=_sums(file.licences for file in held),
        **totals(held).model_dump(),
    )


def _check_size(folder: UPath, file: PackedFile) -> None:
    size, wanted = size_of(folder / file.path), file.tokens * TOKEN_BYTES
    if size != wanted:
        raise DriftError(f"{folder / file.path} has {size or 'no'} bytes, not {wanted}: clear the task that packed it")


def _join_tables(target: UPath, pieces: Sequence[tuple[UPath, int]]) -> None:
    """One table of several, each with the tokens of its file: offsets go on from file to file."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    place, before = _schema().get_field_index("offset"), 0
    with ExitStack() as stack:
        joined = _open_table(stack, target)
        for path, tokens in pieces:
            with path.open("rb") as file:
                reader = pq.ParquetFile(file)
                for number in range(reader.num_row_groups):
                    table = reader.read_row_group(number)
                    joined.write_table(table.set_column(place, "offset", pc.add(table["offset"], before)))
            before += tokens


def _manifest(
    tokenizer: Tokenizer, tokenizer_digest: str, corpus_digest: str, files: Sequence[PackedFile]
) -> CorpusManifest:
    return CorpusManifest(
        corpus_digest=corpus_digest,
        tokenizer_digest=tokenizer_digest,
        vocab_size=tokenizer.get_vocab_size(),
        end_id=tokenizer.token_to_id(END),
        pad_id=tokenizer.token_to_id(PAD),
        sentinels=(tokenizer.token_to_id("<extra_id_0>"), NUM_SENTINELS),
        files=tuple(files),
        **{split: totals(file for file in files if file.split == split) for split in SPLITS},
    )


def _figures(files: Sequence[PackedFile]) -> dict[str, Any]:
    """Tokens of each split, by source and licence too."""
    found: dict[str, Any] = {}
    for split in SPLITS:
        mine = [file for file in files if file.split == split]
        by = {name: _sums(getattr(file, name) for file in mine) for name in ("sources", "licences")}
        found[split] = totals(mine).model_dump() | by
    return found


def _sums(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    return dict(sorted(sum(map(Counter, counts), Counter[str]()).items()))


def _tidy(target: UPath) -> None:
    """Remove what parts left to be joined, and what writers that were killed left half-written."""
    if (pieces := target / "pieces").is_dir():
        pieces.fs.rm(pieces.path, recursive=True)
    for name in list_files(target):
        if name.endswith(".tmp"):
            (target / name).unlink()
