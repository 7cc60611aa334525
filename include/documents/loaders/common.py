"""What loaders share: exact decoding, documents built piece by piece, a bound on what an archive unpacks to."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from dataclasses import dataclass

from include.documents.document import Document, Reject, Section
from include.errors import DocumentError

MAX_CHARACTERS = 200_000_000
"""Of one document's text; small files can unpack to any size."""


def decode(data: bytes, encoding: str = "utf-8") -> str:
    """Exact text with line endings as \\n and no byte-order mark; DocumentError, with the offset, if it is not.

    A byte-order mark of UTF-8 or UTF-16 goes before `encoding`. No other encoding is guessed: guesses take French for
    Baltic without a doubt, and the text would be wrong in silence.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif data.startswith(codecs.BOM_UTF8):
        encoding = "utf-8"
    if encoding != "utf-16" and (nul := data.find(b"\0")) >= 0:
        raise DocumentError(f"binary, not text: NUL byte at offset {nul}", "not_text")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        # Some codecs report an offset beyond the data.
        found = f"byte 0x{data[error.start]:02x}" if error.start < len(data) else "the end of the data"
        raise DocumentError(
            f"not {encoding}: {found} at offset {error.start} ({error.reason}); save it as UTF-8", "not_text"
        ) from None
    except (LookupError, UnicodeError):
        raise DocumentError(
            f"declares the encoding {encoding!r}, which is not a known text encoding", "not_text"
        ) from None
    if (nul := text.find("\0")) >= 0:
        raise DocumentError(f"binary, not text: NUL character at {nul}", "not_text")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def declared(label: str | None) -> str:
    """The encoding that a label in a web page or a mail stands for: UTF-8 without one, and Windows-1252 for the labels
    of ASCII and Latin-1, as the WHATWG Encoding Standard has it."""
    try:
        name = codecs.lookup(label or "utf-8").name
    except (LookupError, ValueError):
        return label or "utf-8"
    # A declaration that could be read as ASCII does not lie in UTF-16, whatever it says.
    if name.startswith("utf-16"):
        return "utf-8"
    return "cp1252" if name in ("ascii", "iso8859-1") else name


def sensible_title(title: object) -> str | None:
    """A title from a file's properties, unless it is what its program put there: a file name or `Untitled`."""
    words = " ".join(title.split()) if isinstance(title, str) else ""
    is_filler = re.search(
        r"^(microsoft (word|powerpoint)|untitled|powerpoint presentation|slide 1$)|\.[a-z]{2,5}$", words, re.IGNORECASE
    )
    return None if is_filler else words or None


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without white space at its ends."""
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), start + len(part.rstrip())


@dataclass(kw_only=True, slots=True)
class Block:
    """A heading (level 1 and on; level 0 is the text before the first one) and the text that follows it, as spans."""

    level: int
    heading: str
    heading_start: int = 0
    heading_end: int = 0
    start: int = 0
    end: int = 0


def outline(text: str, blocks: list[Block]) -> tuple[Section, ...]:
    """Blocks become sections. A heading with nothing below it is text itself, so that it is not lost."""
    sections: list[Section] = []
    path: list[Block] = []
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        while path and path[-1].level >= block.level:
            path.pop()
        headings = tuple(one.heading for one in path if one.heading)
        start, end = trimmed(text, block.start, block.end)
        if start < end:
            headings = (*headings, block.heading) if block.heading else headings
        elif block.heading and (after is None or after.level <= block.level):
            start, end = trimmed(text, block.heading_start, block.heading_end)
        if start < end:
            sections.append(Section(start=start, end=end, headings=headings))
        path.append(block)
    return tuple(sections)


class Builder:
    """A document's text piece by piece; pieces are paragraphs of it, and those that are added as such are sections."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._sections: list[Section] = []
        self.rejects: list[Reject] = []

    def aside(self, text: str) -> tuple[int, int]:
        """Text that is no section, such as a heading; its span."""
        text = text.strip()
        if self._length and text:
            self._parts.append("\n\n")
            self._length += 2
        start = self._length
        self._parts.append(text)
        self._length += len(text)
        if self._length > MAX_CHARACTERS:
            raise DocumentError(f"more than {MAX_CHARACTERS} characters of text", "size_limit")
        return start, self._length

    def add(
        self, text: str, *, headings: Iterable[str] = (), locator: str | None = None, page: int | None = None
    ) -> None:
        """Text that is a section, unless it is empty."""
        start, end = self.aside(text)
        if start < end:
            headings = tuple(headings)
            self._sections.append(Section(start=start, end=end, headings=headings, locator=locator, page=page))

    def include(self, document: Document, heading: str) -> None:
        """Another document's text and sections, under a heading."""
        for section in document.sections:
            self.add(
                document.text[section.start : section.end],
                headings=(heading, *section.headings),
                locator=section.locator,
                page=section.page,
            )
        self.rejects += (
            Reject(locator=f"{heading}: {reject.locator}", reason=reject.reason) for reject in document.rejects
        )

    def build(self, title: str, *, is_markdown: bool = False) -> Document:
        return Document(
            title=title,
            text="".join(self._parts),
            sections=tuple(self._sections),
            rejects=tuple(self.rejects),
            is_markdown=is_markdown,
        )


def packed(lines: Iterable[tuple[int, str]], max_characters: int = 1000) -> Iterable[tuple[int, int, str]]:
    """Numbered lines joined to paragraphs of up to max_characters (a longer line stays whole): first and last number,
    text."""
    first = last = size = 0
    held: list[str] = []
    for number, line in lines:
        if held and size + len(line) > max_characters:
            yield first, last, "\n".join(held)
            held, size = [], 0
        first, last = (first if held else number), number
        held.append(line)
        size += len(line) + 1
    if held:
        yield first, last, "\n".join(held)


def rows_locator(first: int, last: int, of: str = "row") -> str:
    """`row 7`, `rows 7-9`."""
    return f"{of} {first}" if first == last else f"{of}s {first}-{last}"
