"""Files on any backend (file://, s3://, memory://): atomic writes, digests, and names that are safe as keys.

A thin layer over universal_pathlib and fsspec, which Airflow's own ObjectStoragePath is built on; it needs no Airflow.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError
from upath import UPath

from include.contracts import Record
from include.errors import UserError
from include.names import SCHEMES

if TYPE_CHECKING:
    import pyarrow as pa

R = TypeVar("R", bound=Record)


def location(uri: str) -> UPath:
    """The place a URI names. S3 takes credentials, region and endpoint from the environment, as boto3 does.

    A file:// URI holds the path as it is, without percent signs for spaces and the like: see local_uri().
    """
    if not uri.startswith(SCHEMES):
        raise UserError(
            f"location {uri!r} is not a URI that we read: write file:///..., s3://BUCKET/... or memory://..."
        )
    if uri.startswith("s3://"):
        # No listing cache: other processes write beside us, and a cached listing hides what they wrote.
        return UPath(uri, endpoint_url=s3_endpoint(), use_listings_cache=False)
    return UPath(uri)


def local_uri(path: str | os.PathLike[str]) -> str:
    """The URI of a local path, made absolute and free of links and dots, so that one place has one name."""
    return f"file://{os.path.realpath(os.path.expanduser(path))}"  # noqa: PTH111 (strings in, string out)


def is_local(path: UPath) -> bool:
    """Whether a place is on this machine's file system."""
    return path.protocol in ("", "file")


def s3_endpoint() -> str | None:
    """The S3 service to use where it is not AWS's own, from the variables that boto3 reads."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def size_of(path: UPath) -> int | None:
    """Bytes of a file; None if it is not there. Any other error is raised, which UPath.is_file() takes for absence."""
    try:
        return int(path.stat().st_size)
    except (FileNotFoundError, NotADirectoryError):
        return None


def list_files(folder: UPath) -> dict[str, dict[str, Any]]:
    """What its file system tells of each file below a folder, by path below it, from one listing; empty if it is none.

    `size` is in bytes; what else there is depends on the file system.
    """
    base = folder.path.rstrip("/")
    found = folder.fs.find(base, detail=True)
    return {path.removeprefix(base).lstrip("/"): about for path, about in sorted(found.items())}


def write_bytes(path: UPath, data: bytes) -> None:
    """Write a whole file; a reader sees the old content or the new, never a part. An S3 put is atomic by itself."""
    if not is_local(path):
        if path.protocol == "memory":
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return
    with new_file(path) as file:
        file.write(data)


@contextmanager
def new_file(path: UPath) -> Iterator[IO[bytes]]:
    """A file to fill, which then takes its place at once; nothing remains of it after an error.

    On a file system: a temporary file in the same folder, flushed to disk, then renamed. Elsewhere a local temporary
    file, which is then put.
    """
    if not is_local(path):
        with tempfile.NamedTemporaryFile() as file:
            yield file
            file.flush()
            if path.protocol == "memory":
                path.parent.mkdir(parents=True, exist_ok=True)
            path.fs.put_file(file.name, path.path)
        return
    target = path.path
    os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120 (plain strings: the hot path)
    temporary = f"{target}.{uuid.uuid4().hex}.tmp"  # workers in containers share process ids
    try:
        with open(temporary, "wb") as file:  # noqa: PTH123
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)  # noqa: PTH105
    except BaseException:
        if os.path.exists(temporary):  # noqa: PTH110
            os.unlink(temporary)  # noqa: PTH108
        raise


@contextmanager
def exclusive(path: UPath) -> Iterator[None]:
    """Hold a lock file for the block, waiting for whoever holds it; its holder's death frees it.

    On a file system that all writers share. An object store has no such lock: there a DAG's max_active_runs serialises.
    """
    if not is_local(path):
        yield
        return
    os.makedirs(os.path.dirname(path.path), exist_ok=True)  # noqa: PTH103, PTH120
    with open(path.path, "ab") as file:  # noqa: PTH123
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_json(path: UPath, value: Any, *, indent: int | None = 1) -> None:
    """Write a value as JSON, atomically; `indent=None` for what no person reads is some ten times as fast."""
    write_bytes(path, json.dumps(value, ensure_ascii=False, indent=indent, sort_keys=True).encode())


def read_json(path: UPath) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_bytes())


def write_jsonl(path: UPath, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows as JSON lines, atomically; returns how many."""
    buffer, number = io.BytesIO(), 0
    for row in rows:
        buffer.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        number += 1
    write_bytes(path, buffer.getvalue())
    return number


def read_jsonl(path: UPath) -> Iterator[dict[str, Any]]:
    """Stream the rows of a JSON lines file."""
    with path.open("r", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def write_record(path: UPath, record: Record) -> None:
    """Write a record as JSON, atomically; a manifest is written last, so its existence means that all is there."""
    write_bytes(path, record.model_dump_json(indent=1).encode())


def read_record(path: UPath, kind: type[R]) -> R:
    """Read a record of a known kind; UserError if it is of another kind or version."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError(f"{path} is not a {kind.__name__} of a known version: {error}") from None


def write_parquet(path: UPath, table: pa.Table) -> None:
    """Write a table as one Parquet file, atomically."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    # A dictionary of numbers is larger than they are, and LZ4 takes half of zstd's time here for half more bytes.
    texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
    pq.write_table(table, buffer, compression="lz4", use_dictionary=texts)
    write_bytes(path, buffer.getvalue())


def read_parquet(path: UPath, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file, all columns or some."""
    import pyarrow.parquet as pq

    with path.open("rb") as file:
        return pq.read_table(file, columns=columns)


def digest(*parts: str | bytes) -> str:
    """A hexadecimal SHA-256 over parts; each is preceded by its length, so that no two lists collide."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state.hexdigest()


def run_key(run_id: str) -> str:
    """A run's id as a name that is safe in paths and object keys, unique for each id.

    Names derive from the run id alone, since a run triggered by an asset has no logical date.
    """
    readable = re.sub(r"[^A-Za-z0-9]+", "-", run_id).strip("-")[:48]
    return f"{readable}-{digest(run_id)[:8]}"
