"""Where documents come from: a folder or an object-store prefix, listed as a stream.

Nothing else knows where a document lies: a source of another kind lists paths, and reads one.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

from upath import UPath

from include.documents.loaders import SUFFIXES
from include.errors import UserError
from include.storage import digest, is_local, local_uri, location

_NOT_FOLLOWED = "(linked folder)"
_NOT_A_FILE = "(no regular file)"
_NO_NAME = "(name is not UTF-8)"
_EMPTY_NAME = "(folder with an empty name)"

_NOTHING_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""A link to nothing, or to itself."""

SETTLED_S = 2.0
"""A file changed less than this before it was listed may change again within the same tick of its file system's clock,
without a trace; so its stamp proves nothing. The same holds for a time that lies ahead, after a clock was put back."""


@dataclass(frozen=True, slots=True)
class Found:
    """One file that a listing came by."""

    path: str
    """Below the source, with slashes."""
    stamp: str
    """Changes whenever the bytes do: from times and size, or an object store's ETag; empty if there is none."""
    size: int


class FolderSource:
    """The files below a URI whose kind can be read, but hidden ones and the project's own storage."""

    def __init__(self, uri: str, *, root: str, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        """`root` is the project's own storage; `include` and `exclude` are patterns of paths below the folder."""
        self._folder = location(uri)
        self._local: str | None = self._folder.path if is_local(self._folder) else None
        self._storage = _inside(self._folder, location(root))
        self._include, self._exclude = include, exclude
        self.skipped: Counter[str] = Counter()
        """Files that the last listing left aside, by suffix or by what they are."""

    def list(self) -> Iterator[Found]:
        """Every file below the folder in a fixed order; an OSError if any part of it cannot be listed.

        Half a listing would look as if the other half had been deleted.
        """
        self.skipped.clear()
        found = _walk_remote(self._folder) if self._local is None else _walk_local(self._local)
        for file, problem in found:
            if self._is_hidden_or_ours(file.path):
                continue
            kind = problem or self._left_aside(file.path)
            if kind:
                self.skipped[kind] += 1
            else:
                yield file

    def read(self, path: str) -> bytes:
        """A document's bytes; FileNotFoundError if it is gone, another OSError if it cannot be read."""
        if self._local is None:
            return (self._folder / path).read_bytes()
        with self._open(path) as file:
            return file.read()

    def digest(self, path: str) -> str:
        """The digest of a document's bytes, as of content_digest(), without holding them all."""
        with self._open(path) as file:
            state = hashlib.sha256()
            while block := file.read(1 << 20):
                state.update(block)
            return state.hexdigest()

    def stamp(self, path: str) -> str:
        """A file's stamp now, as a listing would tell it; empty if there is none, or no file.

        Bytes belong to the stamp that was listed only if it is still the same after they were read.
        """
        try:
            if self._local is not None:
                return _stat(path, os.path.join(self._local, path))[0].stamp  # noqa: PTH118
            place = self._folder / path
            return _etag(place.fs.info(place.path))
        except OSError:
            return ""

    def _open(self, path: str) -> IO[bytes]:
        # Plain strings where they can be: to join and open a UPath costs more than to read a small document.
        if self._local is None:
            return (self._folder / path).open("rb")
        return open(os.path.join(self._local, path), "rb")  # noqa: PTH118, PTH123

    def _is_hidden_or_ours(self, path: str) -> bool:
        if any(part.startswith(".") for part in path.split("/")):
            return True
        return self._storage is not None and path.startswith(self._storage)

    def _left_aside(self, path: str) -> str:
        """Why a file is left aside, or nothing."""
        suffix = os.path.splitext(path)[1].lower().rstrip(".")  # noqa: PTH122 (plain strings: the hot path)
        wanted = suffix in SUFFIXES and (not self._include or _matches(path, self._include))
        return "" if wanted and not _matches(path, self._exclude) else suffix or "(no suffix)"


def document_id(source: str, path: str) -> str:
    """A document's id: the digest of where it lies, so that two sources never collide."""
    return digest(source, path)[:32]


def source_uri(source: str) -> str:
    """A source by its one name: a URI without trailing slash, local folders without links and dots.

    A local folder may be given as a path, or as file:// with or without percent signs. UserError if it is not there.
    """
    path = source.removeprefix("file://")
    if "://" not in path:
        local = path if Path(path).expanduser().is_dir() else unquote(path)
        source, uri = path, local_uri(local)
    else:
        uri = source.rstrip("/")
    if not location(uri).is_dir():
        raise UserError(f"source {source!r} is not a folder that can be read; give a folder, file:/// or s3:// prefix")
    return uri


def content_digest(data: bytes) -> str:
    """The hexadecimal SHA-256 of a document's bytes."""
    return hashlib.sha256(data).hexdigest()


def _walk_local(folder: str) -> Iterator[tuple[Found, str]]:
    """Each file and linked folder below a local folder, and why it cannot be read or nothing."""

    def stop(error: OSError) -> None:
        raise error

    for parent, folders, files in os.walk(folder, onerror=stop):
        folders.sort()
        below = os.path.relpath(parent, folder)
        prefix = "" if below == "." else f"{below}/"
        for name in folders:
            if os.path.islink(os.path.join(parent, name)):  # noqa: PTH114, PTH118 (plain strings: the hot path)
                yield Found(prefix + name, "", 0), _NOT_FOLLOWED
        for name in sorted(files):
            yield _stat(prefix + name, os.path.join(parent, name))  # noqa: PTH118


def _stat(path: str, file: str) -> tuple[Found, str]:
    if not _is_utf8(path):
        return Found(path, "", 0), _NO_NAME
    try:
        seen = os.stat(file)  # noqa: PTH116
    except PermissionError:
        return Found(path, "", 0), ""  # reading it says why it cannot be read
    except OSError as error:
        if error.errno not in _NOTHING_THERE:
            raise  # a disk that fails has not deleted its files
        return Found(path, "", 0), _NOT_A_FILE
    if not stat.S_ISREG(seen.st_mode):
        return Found(path, "", 0), _NOT_A_FILE
    # The inode's own time besides the content's: tools that copy or restore set the latter to what it was.
    is_settled = max(seen.st_mtime, seen.st_ctime) < time.time() - SETTLED_S
    stamp = f"{seen.st_size}:{seen.st_mtime_ns}:{seen.st_ctime_ns}:{seen.st_ino}" if is_settled else ""
    return Found(path, stamp, seen.st_size), ""


def _walk_remote(folder: UPath) -> Iterator[tuple[Found, str]]:
    """Each object below a prefix, one listing call for each of its folders, so that no more than one is in memory."""
    base = folder.path.rstrip("/") + "/"
    open_folders = [folder.path.rstrip("/")]
    while open_folders:
        here = open_folders.pop()
        entries: list[dict[str, Any]] = sorted(folder.fs.ls(here, detail=True), key=lambda entry: str(entry["name"]))
        below = []
        for entry in entries:
            name = str(entry["name"]).rstrip("/")
            if name == here:  # the folder's own placeholder object, or what lies below `folder//`
                if entry.get("StorageClass") == "DIRECTORY":
                    yield Found(f"{name}//".removeprefix(base), "", 0), _EMPTY_NAME
            elif entry["type"] == "directory":
                below.append(name)
            else:
                yield Found(name.removeprefix(base), _etag(entry), int(entry["size"] or 0)), ""
        open_folders += reversed(below)


def _etag(entry: dict[str, Any]) -> str:
    return str(entry.get("ETag") or "").strip('"')


def _inside(folder: UPath, storage: UPath) -> str | None:
    """Where in a folder the project's own storage lies, such as `data/`; None if it lies elsewhere."""
    if storage.protocol != folder.protocol:
        return None
    own = os.path.realpath(storage.path) if is_local(storage) else storage.path
    base = folder.path.rstrip("/") + "/"
    return own.removeprefix(base).rstrip("/") + "/" if own.startswith(base) else None


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)
