"""Between S3 and a job's folders, as SageMaker copies."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path
from typing import Any

Seen = dict[Path, tuple[int, int]]
"""Files that were copied, with size and time: only what has changed since goes up."""


class MissingInputError(Exception):
    """Nothing lies where an input should."""


def split(uri: str) -> tuple[str, str]:
    """Bucket and key of an s3:// URI."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def join(uri: str, *parts: str) -> str:
    """A key below a URI, whether or not that ends with a slash."""
    return "/".join((uri.rstrip("/"), *parts))


def list_keys(s3: Any, uri: str) -> list[str]:
    """Keys that begin with the URI's, sorted, without the markers of empty folders; none if there is no bucket."""
    bucket, prefix = split(uri)
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    try:
        return sorted(o["Key"] for page in pages for o in page.get("Contents", []) if not o["Key"].endswith("/"))
    except s3.exceptions.NoSuchBucket:
        return []


def download(s3: Any, uri: str, folder: Path, *, part: int = 0, of: int = 1) -> None:
    """Copy all objects whose key begins with the URI's, or each of-th of them.

    A prefix is one of characters, as the service takes it: s3://b/data brings s3://b/data2/x too.
    MissingInputError if there is no such object, whatever the part.
    """
    bucket, prefix = split(uri)
    keys = list_keys(s3, uri)
    if not keys:
        raise MissingInputError(
            f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that the bucket '
            "exists, that objects exist under that S3 prefix, and that the role may list it."
        )
    inside = prefix.rstrip("/") + "/"
    beside = prefix[: prefix.rfind("/") + 1]
    for key in keys[part::of]:
        place = folder / (key.removeprefix(inside) if key.startswith(inside) else key.removeprefix(beside))
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("wb") as file:
            shutil.copyfileobj(s3.get_object(Bucket=bucket, Key=key)["Body"], file)


def files_of(folder: Path) -> list[Path]:
    """All files below a folder, sorted; none if it is not there."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def upload(s3: Any, folder: Path, uri: str, seen: Seen | None = None) -> None:
    """Copy each file below a folder as it is; with `seen`, only those that changed since it was filled."""
    bucket, prefix = split(uri)
    for path in files_of(folder):
        try:
            stat = path.stat()
            stamp = (stat.st_size, stat.st_mtime_ns)
            if seen is not None and seen.get(path) == stamp:
                continue
            with path.open("rb") as file:
                s3.put_object(Bucket=bucket, Key=join(prefix, path.relative_to(folder).as_posix()), Body=file)
        except FileNotFoundError:  # the script has replaced or removed it meanwhile
            continue
        if seen is not None:
            seen[path] = stamp


def upload_tar(s3: Any, folders: list[Path], uri: str) -> None:
    """Copy what lies in folders of several instances as one tar.gz."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for folder in folders:
            for path in files_of(folder):
                tar.add(path, path.relative_to(folder).as_posix())
    bucket, key = split(uri)
    s3.put_object(Bucket=bucket, Key=key, Body=raw.getvalue())


def unpack(archive: Path, folder: Path) -> None:
    """A source tar, without leaving the folder."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
