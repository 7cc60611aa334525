"""Writes that happen only if nobody else wrote meanwhile, so that several processes share a file without losing a word.

On a file system by a lock file in the same folder, which all writers must share. On S3 by its conditional put
(If-None-Match, If-Match), which needs no lock. A store that refuses such a put is refused with a UserError; one that
takes no notice of the condition, as some servers with S3's interface do, lets the last writer win: there the pool of
the task that releases, which has one slot, is all that keeps two releases apart.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from upath import UPath

from include.aws import client
from include.errors import UserError
from include.storage import exclusive, is_local, write_bytes

_MEMORY = threading.Lock()
LOCK = ".lock"
"""Name of the lock file; what lists a folder leaves it out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What a file held when it was read."""

    data: bytes | None
    """None: there was no file."""
    tag: str = ""
    """The store's own mark of it, where it has one."""


ABSENT = Seen(data=None)


def look(path: UPath) -> Seen:
    """Read a file for write_if_unchanged()."""
    if path.protocol in ("s3", "s3a"):
        return _look_s3(path)
    try:
        return Seen(data=path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return ABSENT


def write_if_unchanged(path: UPath, data: bytes, seen: Seen) -> bool:
    """Write a whole file if it still is what was seen; False if it is not, and then nothing was written.

    False may also mean that an answer was lost and the call repeated: look again, it may be your own writing.
    """
    if path.protocol in ("s3", "s3a"):
        return _put_s3(path, data, seen)
    with exclusive(path.parent / LOCK) if is_local(path) else _MEMORY:
        if look(path).data != seen.data:
            return False
        write_bytes(path, data)
    return True


def _look_s3(path: UPath) -> Seen:
    from botocore.exceptions import ClientError

    bucket, _, key = path.path.partition("/")
    try:
        found = client("s3").get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchKey":
            return ABSENT
        raise
    return Seen(data=found["Body"].read(), tag=found["ETag"])


def _put_s3(path: UPath, data: bytes, seen: Seen) -> bool:
    from botocore.exceptions import ClientError

    bucket, _, key = path.path.partition("/")
    condition = {"IfMatch": seen.tag} if seen.data is not None else {"IfNoneMatch": "*"}
    try:
        client("s3").put_object(Bucket=bucket, Key=key, Body=data, **condition)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        # The second is for a write at the same moment, the third for a file that was deleted meanwhile.
        if code in ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"):
            return False
        if code == "NotImplemented":
            raise UserError(
                f"{path}: this store has no conditional put, so two releases at once could not be told apart: keep "
                "storage_root on Amazon S3, a store that has it, or a file system"
            ) from None
        raise
    return True
