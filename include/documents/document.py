"""What a loader makes of one file: its text, and the stretches of it that belong together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A stretch of a document's text under one path of headings, on one page, in one record."""

    start: int
    end: int
    """Characters of Document.text, end excluded; the stretch begins and ends with other than white space."""
    headings: tuple[str, ...] = ()
    locator: str | None = None
    """Where in the source it lies, in words such as `page 3`, `slide 2`, `sheet Costs`, `line 7` or a record's id; None
    where headings and offsets say it."""
    page: int | None = None
    """Page or slide, from 1, where the format has them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reject:
    """A record of a document that cannot be used; the others can."""

    locator: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """What a loader makes of one file; a file without text has no sections."""

    title: str
    text: str
    """Of text and Markdown the file itself, decoded, with line endings as \\n; of other formats what was extracted."""
    sections: tuple[Section, ...]
    """In the order of the text; they do not overlap."""
    rejects: tuple[Reject, ...] = ()
    is_markdown: bool = False
    """Whether `text` is Markdown, so that code blocks, lists and tables are kept together where they fit."""
