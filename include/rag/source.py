"""Where documents come from: a folder or an object-store prefix, listed recursively.

A source of another kind needs only to yield SourceFile; what is below plan() does not know where a document lay.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from upath import UPath

from include.rag.load import SUFFIXES
from include.storage import location


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """One document as the source lists it."""

    path: str
    """Below the source, with forward slashes."""
    size: int


@dataclass(kw_only=True, slots=True)
class Listing:
    """The files of a source that will be read, and how many were left aside, by suffix."""

    files: list[SourceFile]
    skipped: dict[str, int]


def list_source(uri: str, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Listing:
    """List a source in the order of its paths; hidden files and folders are not part of it."""
    listing = Listing(files=[], skipped={})
    for file in sorted(_walk(location(uri)), key=lambda f: f.path):
        if _is_wanted(file.path, include, exclude):
            listing.files.append(file)
        else:
            suffix = PurePosixPath(file.path).suffix.lower() or "(none)"
            listing.skipped[suffix] = listing.skipped.get(suffix, 0) + 1
    return listing


def _walk(folder: UPath) -> Iterator[SourceFile]:
    base = folder.path.rstrip("/") + "/"
    entries: dict[str, dict[str, Any]] = folder.fs.find(folder.path, detail=True)
    for name, info in entries.items():
        path = name.removeprefix(base)
        if not any(part.startswith(".") for part in path.split("/")):
            yield SourceFile(path=path, size=int(info.get("size") or 0))


def _is_wanted(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    if PurePosixPath(path).suffix.lower() not in SUFFIXES:
        return False
    if include and not any(fnmatchcase(path, pattern) for pattern in include):
        return False
    return not any(fnmatchcase(path, pattern) for pattern in exclude)
