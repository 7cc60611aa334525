"""Where documents come from: a folder or an object-store prefix, read recursively.

Nothing else knows where a document lies: a source of another kind lists paths, and reads one.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from upath import UPath

from include.rag.config import IngestConfig
from include.rag.load import SUFFIXES
from include.storage import is_local, location

_NOT_FOLLOWED = "(linked folder)"
_NOT_A_FILE = "(no regular file)"
_NO_NAME = "(name is not UTF-8)"


@dataclass(kw_only=True, slots=True)
class Listing:
    """The paths that will be read, and how many files were left aside, by suffix or by what they are."""

    paths: list[str]
    skipped: dict[str, int]

    def skip(self, kind: str) -> None:
        """Count one that is left aside."""
        self.skipped[kind] = self.skipped.get(kind, 0) + 1


class FolderSource:
    """The files below a URI whose kind can be read, but hidden ones and the project's own storage."""

    def __init__(self, config: IngestConfig) -> None:
        self._folder = location(config.source)
        self._storage = _inside(self._folder, location(config.root))
        self._include: Sequence[str] = config.include
        self._exclude: Sequence[str] = config.exclude

    def list(self) -> Listing:
        """Every path below the folder, sorted; an OSError if any part of it cannot be listed.

        Half a listing would look as if the other half had been deleted.
        """
        listing = Listing(paths=[], skipped={})
        for path, problem in _walk_local(self._folder.path) if is_local(self._folder) else self._walk():
            if self._is_hidden_or_ours(path):
                continue
            kind = problem or self._left_aside(path)
            if kind:
                listing.skip(kind)
            else:
                listing.paths.append(path)
        listing.paths.sort()
        return listing

    def read(self, path: str) -> bytes:
        """A document's bytes; FileNotFoundError if it is gone, another OSError if it cannot be read."""
        return (self._folder / path).read_bytes()

    def digest(self, path: str) -> str:
        """The digest of a document's bytes, as of content_digest()."""
        return content_digest(self.read(path))

    def _walk(self) -> Iterator[tuple[str, str]]:
        base = self._folder.path.rstrip("/") + "/"
        for name in self._folder.fs.find(self._folder.path):
            yield name.removeprefix(base), ""

    def _is_hidden_or_ours(self, path: str) -> bool:
        if any(part.startswith(".") for part in path.split("/")):
            return True
        return self._storage is not None and path.startswith(self._storage)

    def _left_aside(self, path: str) -> str:
        """Why a file is left aside, or nothing."""
        suffix = PurePosixPath(path).suffix.lower()
        wanted = suffix in SUFFIXES and (not self._include or _matches(path, self._include))
        return "" if wanted and not _matches(path, self._exclude) else suffix or "(no suffix)"


def content_digest(data: bytes) -> str:
    """The hexadecimal SHA-256 of a document's bytes."""
    return hashlib.sha256(data).hexdigest()


def _walk_local(folder: str) -> Iterator[tuple[str, str]]:
    """(path, why it cannot be read or nothing) of each file and linked folder below a local folder."""

    def stop(error: OSError) -> None:
        raise error

    for parent, folders, files in os.walk(folder, onerror=stop):
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]  # noqa: PTH114, PTH118
        for name in links:
            yield _below(folder, parent, name), _NOT_FOLLOWED
        for name in files:
            path = _below(folder, parent, name)
            yield path, _problem(os.path.join(parent, name))  # noqa: PTH118


def _inside(folder: UPath, storage: UPath) -> str | None:
    """Where in a folder the project's own storage lies, such as `data/`; None if it lies elsewhere."""
    if storage.protocol != folder.protocol:
        return None
    own = os.path.realpath(storage.path) if is_local(storage) else storage.path
    base = folder.path.rstrip("/") + "/"
    return own.removeprefix(base).rstrip("/") + "/" if own.startswith(base) else None


def _below(folder: str, parent: str, name: str) -> str:
    return os.path.relpath(os.path.join(parent, name), folder)  # noqa: PTH118


def _problem(file: str) -> str:
    if not _is_utf8(file):
        return _NO_NAME
    try:
        return "" if stat.S_ISREG(os.stat(file).st_mode) else _NOT_A_FILE  # noqa: PTH116
    except OSError:  # a link to nothing, or to itself
        return _NOT_A_FILE


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)
