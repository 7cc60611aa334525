"""Loaders that a test puts in place of the real ones, imported by the process that reads documents."""

from __future__ import annotations

from include.documents.document import Document
from include.documents.loaders import load
from include.errors import DocumentError


def refuse_text(data: bytes, name: str) -> Document:
    """As the real one, but plain text cannot be read."""
    if name.endswith(".txt"):
        raise DocumentError("no text today")
    return load(data, name)


def lack_library(data: bytes, name: str) -> Document:
    """As the real one, but the library for plain text is not installed."""
    if name.endswith(".txt"):
        raise ModuleNotFoundError("No module named 'textlib'", name="textlib")
    return load(data, name)
