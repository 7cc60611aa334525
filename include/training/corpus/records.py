"""Records of JSON lines and Parquet, read one at a time from any stretch of a file; nothing is read as a whole."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, cast

from include.errors import DocumentError

if TYPE_CHECKING:
    import pyarrow.parquet as pq
    from upath import UPath

RECORD_BYTES = 64 << 20
"""Of a line, at most."""
LICENCE_FIELDS = ("license", "licence")
LICENCE_CHARACTERS = 100
_BUFFER = 1 << 20
_ROWS = 64
"""Of Parquet, decoded at a time."""
_BROKEN = (EOFError, zlib.error, gzip.BadGzipFile)


@dataclass(frozen=True, slots=True)
class Found:
    """A record, or why there is none."""

    locator: str
    """`byte 120` of the uncompressed lines, `row 7` from 1; the same whichever stretch was read."""
    text: str = ""
    licence: str | None = None
    problem: DocumentError | None = None


@dataclass(frozen=True, slots=True)
class Stretch:
    """Part of a file: bytes of lines or row groups of Parquet, the end excluded; no end: all of it."""

    start: int = 0
    end: int | None = None
    size: int = 0
    """Bytes, uncompressed where that is known."""


def stretches(file: UPath, size: int, max_bytes: int) -> list[Stretch]:
    """Divide a file into stretches of about that many bytes; what is compressed as a whole cannot be divided.

    Of Parquet, row groups are kept together. A file that is no Parquet is one stretch, and reading it tells why.
    """
    if file.name.endswith(".gz"):
        return [Stretch(size=size)]
    if file.name.endswith(".parquet"):
        return _parquet_stretches(file, size, max_bytes)
    edges = [*range(0, size, max_bytes), size]
    return [Stretch(start, end, end - start) for start, end in zip(edges, edges[1:], strict=False)]


def read_records(file: UPath, stretch: Stretch, text_field: str) -> Iterator[Found]:
    """The records that begin in a stretch; a record or a rest of a file that cannot be read is told as a problem."""
    if file.name.endswith(".parquet"):
        yield from _read_rows(file, stretch, text_field)
        return
    with _open(file) as stream:
        for start, line in _lines(stream, stretch):
            locator = f"byte {start}"
            if isinstance(line, DocumentError):
                yield Found(locator, problem=line)
            elif line.strip():
                yield _of_line(locator, line, text_field)


def _lines(stream: IO[bytes], stretch: Stretch) -> Iterator[tuple[int, bytes | DocumentError]]:
    """(offset, line) of those that begin in the stretch; only \\n ends one."""
    at = stretch.start
    try:
        if at:
            stream.seek(at - 1)
            at += _rest_of_line(stream) - 1
        while stretch.end is None or at < stretch.end:
            line = stream.readline(RECORD_BYTES)
            if not line:
                return
            size = len(line)
            if size == RECORD_BYTES and not line.endswith(b"\n"):
                size += _rest_of_line(stream)
                yield at, DocumentError(f"a line of {size:,} bytes; the limit is {RECORD_BYTES:,}", "size_limit")
            else:
                yield at, line
            at += size
    except _BROKEN as error:
        yield at, DocumentError(f"the rest of the file cannot be unpacked: {error}", "malformed")


def _rest_of_line(stream: IO[bytes]) -> int:
    """Skip to behind the next \\n; the number of bytes that were skipped."""
    skipped = 0
    while piece := stream.readline(_BUFFER):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


def _of_line(locator: str, line: bytes, text_field: str) -> Found:
    try:
        record = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError) as error:  # bytes that are not UTF-8 are a ValueError, too
        return Found(locator, problem=DocumentError(f"not JSON ({error})"))
    if not isinstance(record, dict):
        problem = DocumentError(f"{type(record).__name__} where an object was expected")
        return Found(locator, problem=problem)
    return _of_record(locator, record, text_field)


def _of_record(locator: str, record: dict[str, Any], text_field: str) -> Found:
    text = record.get(text_field)
    if not isinstance(text, str):
        told = f"is {type(text).__name__}, must be a string" if text_field in record else "is missing"
        return Found(locator, problem=DocumentError(f"field {text_field!r} {told}"))
    licences = (record.get(name) for name in LICENCE_FIELDS)
    licence = next((" ".join(one.split()) for one in licences if isinstance(one, str) and one.strip()), None)
    return Found(locator, text=text, licence=licence and licence[:LICENCE_CHARACTERS])


@contextmanager
def _open(file: UPath) -> Iterator[IO[bytes]]:
    with ExitStack() as stack:
        raw = stack.enter_context(file.open("rb"))
        # Files of object stores look for the end of a line by far smaller steps.
        stream: IO[bytes] = io.BufferedReader(cast(io.RawIOBase, raw), _BUFFER)
        if file.name.endswith(".gz"):
            stream = cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=stream)))
        yield stream


def _parquet_stretches(file: UPath, size: int, max_bytes: int) -> list[Stretch]:
    import pyarrow as pa

    try:
        with file.open("rb") as stream:
            metadata = _parquet(stream).metadata
            sizes = [metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)]
    except (pa.ArrowInvalid, PermissionError, FileNotFoundError):
        return [Stretch(size=size)]
    found, start = [], 0
    for group in range(len(sizes)):
        if group + 1 == len(sizes) or sum(sizes[start : group + 2]) > max_bytes:
            found.append(Stretch(start, group + 1, sum(sizes[start : group + 1])))
            start = group + 1
    return found


def _read_rows(file: UPath, stretch: Stretch, text_field: str) -> Iterator[Found]:
    import pyarrow as pa

    with file.open("rb") as stream:
        row = 1
        try:
            reader = _parquet(stream)
            if text_field not in reader.schema_arrow.names:
                names = ", ".join(reader.schema_arrow.names)
                yield Found("row 1", problem=DocumentError(f"no column {text_field!r}; there are {names}"[:300]))
                return
            groups = list(range(reader.num_row_groups))
            row += sum(reader.metadata.row_group(group).num_rows for group in groups[: stretch.start])
            columns = [name for name in (text_field, *LICENCE_FIELDS) if name in reader.schema_arrow.names]
            mine = groups[stretch.start : stretch.end]
            for batch in reader.iter_batches(_ROWS, row_groups=mine, columns=columns, use_threads=False):
                for record in batch.to_pylist():
                    yield _of_record(f"row {row}", record, text_field)
                    row += 1
        except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the file system's; Arrow's own word for damaged data is an OSError without a number
            reason = f"the rest of the file cannot be read: {' '.join(str(error).split())}"
            yield Found(f"row {row}", problem=DocumentError(reason[:300]))


def _parquet(stream: IO[bytes]) -> pq.ParquetFile:
    import pyarrow.parquet as pq

    return pq.ParquetFile(stream)
