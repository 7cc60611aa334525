"""PDF: a section for each page, under the bookmarks that it falls into."""

from __future__ import annotations

import io
import logging
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from include.documents.document import Document, Reject
from include.documents.loaders.common import Builder, sensible_title
from include.errors import DocumentError

if TYPE_CHECKING:
    from pypdf import PdfReader

_EDGE_LINES = 3
"""How many lines at the top and the bottom of a page can be a running header or footer."""
_MIN_PAGES_OF_RUNNING_LINES = 4


def load_pdf(data: bytes, stem: str) -> Document:
    """The text of each page. A page that cannot be read is a Reject; DocumentError if none can.

    Left out: running headers and footers, form fields, comments, and all that is an image: a scan without a text layer
    is a document without sections. Words hyphenated at a line's end are joined.
    """
    from pypdf import PasswordType, PdfReader
    from pypdf.errors import LimitReachedError

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it warns of each oddity of each file
    try:
        reader = PdfReader(io.BytesIO(data), strict=False)
        if reader.is_encrypted and reader.decrypt("") == PasswordType.NOT_DECRYPTED:
            raise DocumentError("encrypted with a password", "encrypted")
        builder = Builder()
        pages = _without_running_lines(_pages(reader, builder.rejects))
    except LimitReachedError as error:
        raise DocumentError(f"unpacks to more than is read: {error}", "size_limit") from None
    headings = _headings(reader, len(reader.pages))
    for number, text in pages.items():
        builder.add(_joined(text), headings=headings[number - 1], locator=f"page {number}", page=number)
    return builder.build(_title(reader) or stem)


def _pages(reader: PdfReader, rejects: list[Reject]) -> dict[int, list[str]]:
    """Number, from 1, and lines of each page that can be read."""
    from pypdf.errors import LimitReachedError

    pages: dict[int, list[str]] = {}
    for number, page in enumerate(reader.pages, start=1):
        try:
            text = page.extract_text()
        except (MemoryError, LimitReachedError):
            raise
        except Exception as error:  # a broken page raises anything, IndexError to zlib.error
            rejects.append(Reject(locator=f"page {number}", reason=f"{type(error).__name__}: {error}"))
            continue
        # Fonts without a table of characters yield control characters in place of letters.
        pages[number] = [re.sub(r"[\x00-\x08\x0e-\x1f\x7f]", "", line).rstrip() for line in text.splitlines()]
    if rejects and not pages:
        raise DocumentError(f"no page can be read: {rejects[0].locator}: {rejects[0].reason}")
    if not pages:
        raise DocumentError("has no pages")
    return pages


def _without_running_lines(pages: dict[int, list[str]]) -> dict[int, str]:
    """Pages without the lines that most of them begin or end with, numbers in them aside."""
    edges = {number: _edges(lines) for number, lines in pages.items()}
    counts = Counter(key for edge in edges.values() for key in set(edge.values()))
    running = {key for key, count in counts.items() if count > len(pages) / 2}
    if len(pages) < _MIN_PAGES_OF_RUNNING_LINES:
        running = set()
    kept = {
        number: "\n".join(line for index, line in enumerate(lines) if edges[number].get(index) not in running)
        for number, lines in pages.items()
    }
    # Pages that are all alike, such as labels, are no frame around nothing.
    if not any(text.strip() for text in kept.values()):
        return {number: "\n".join(lines) for number, lines in pages.items()}
    return kept


def _edges(lines: list[str]) -> dict[int, str]:
    """The first and last lines that are not blank, by their index, with numbers made alike."""
    filled = [index for index, line in enumerate(lines) if line.strip()]
    chosen = {*filled[:_EDGE_LINES], *filled[-_EDGE_LINES:]}
    return {index: re.sub(r"\d+", "0", " ".join(lines[index].split())) for index in chosen}


def _joined(text: str) -> str:
    """Text with the words that a line's end cuts put together: a hyphen between small letters."""

    def join(found: re.Match[str]) -> str:
        before, after = found.groups()
        return before + after if before.islower() and after.islower() else found[0]

    return re.sub(r"\n{3,}", "\n\n", re.sub(r"(\w)[-\u2010\u00ad]\n[ \t]*(\w)", join, text))


def _headings(reader: PdfReader, num_pages: int) -> list[tuple[str, ...]]:
    """For each page the path of bookmarks it falls into: what those that begin on it have in common, else the last one
    that begins before it."""
    starts: dict[int, list[tuple[str, ...]]] = {}
    try:
        _collect(reader, reader.outline, (), starts)
    except MemoryError:
        raise
    except Exception:
        return [()] * num_pages  # the text is sound; its bookmarks are not
    headings: list[tuple[str, ...]] = []
    current: tuple[str, ...] = ()
    for page in range(num_pages):
        found = starts.get(page, [])
        headings.append(_common(found) if found else current)
        current = found[-1] if found else current
    return headings


def _collect(reader: PdfReader, items: Any, above: tuple[str, ...], starts: dict[int, list[tuple[str, ...]]]) -> None:
    path = above
    for item in items:
        if isinstance(item, list):  # of what lies below the item before it
            _collect(reader, item, path, starts)
            continue
        title = " ".join(str(item.title or "").split())
        path = (*above, title) if title else above
        page = reader.get_destination_page_number(item)
        if page is not None and page >= 0:
            starts.setdefault(page, []).append(path)


def _common(paths: list[tuple[str, ...]]) -> tuple[str, ...]:
    shared = paths[0]
    for path in paths[1:]:
        same = next((i for i, (one, other) in enumerate(zip(shared, path, strict=False)) if one != other), None)
        shared = shared[: min(len(shared), len(path)) if same is None else same]
    return shared


def _title(reader: PdfReader) -> str | None:
    try:
        return sensible_title(reader.metadata.title if reader.metadata else None)
    except MemoryError:
        raise
    except Exception:
        return None  # the text is sound; its properties are not
