"""Bytes of one file become a document: sections of plain text, each under its path of headings.

Nothing is guessed and nothing is lost in silence: bytes that cannot be read exactly are a DocumentError.
"""

from __future__ import annotations

import codecs
import json
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from include.errors import DocumentError

if TYPE_CHECKING:
    from bs4 import Tag


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A stretch of text under one path of headings."""

    text: str
    headings: tuple[str, ...] = ()
    locator: str | None = None
    """Where in the source it lies, such as a JSONL record's id; None where the headings say it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """What a loader makes of one file; a file without text has no sections."""

    title: str
    sections: tuple[Section, ...]


def load(data: bytes, name: str) -> Document:
    """Read a file by the suffix of its name; DocumentError, with the reason, if it cannot be read."""
    path = PurePosixPath(name)
    loader = _LOADERS.get(path.suffix.lower())
    if loader is None:
        raise DocumentError(f"suffix {path.suffix!r} cannot be read; can be read: {' '.join(sorted(SUFFIXES))}")
    return loader(data, path.stem)


def _decode(data: bytes, encoding: str = "utf-8") -> str:
    """Exact text with line endings as \\n and no byte-order mark."""
    if (nul := data.find(b"\0")) >= 0:
        raise DocumentError(f"binary, not text: NUL byte at offset {nul}")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DocumentError(
            f"not {encoding}: byte 0x{data[error.start]:02x} at offset {error.start} ({error.reason})"
        ) from None
    except (LookupError, UnicodeError):
        raise DocumentError(f"declares the encoding {encoding!r}, which is not a known text encoding") from None
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _load_text(data: bytes, stem: str) -> Document:
    text = _decode(data)
    return Document(title=stem, sections=(Section(text=text),) if text.strip() else ())


@dataclass(kw_only=True, slots=True)
class _Block:
    """A heading (level 1 to 6; level 0 is the text before the first one) and the text that follows it."""

    level: int
    heading: str
    text: str = ""


def _document(title: str | None, blocks: list[_Block], stem: str) -> Document:
    """Blocks become sections. A heading with nothing below it is text itself, so that it is not lost."""
    sections: list[Section] = []
    path: list[_Block] = []
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        while path and path[-1].level >= block.level:
            path.pop()
        above = tuple(one.heading for one in path if one.heading)
        if block.text.strip():
            headings = (*above, block.heading) if block.heading else above
            sections.append(Section(text=block.text.strip("\n"), headings=headings))
        elif block.heading and (after is None or after.level <= block.level):
            sections.append(Section(text=block.heading, headings=above))
        path.append(block)
    first = next((block.heading for block in blocks if block.heading), None)
    return Document(title=title or first or stem, sections=tuple(sections))


def _load_markdown(data: bytes, stem: str) -> Document:
    from markdown_it import MarkdownIt

    title, text = _front_matter(_decode(data))
    lines = text.split("\n")
    # A parser of the whole grammar knows a heading from a comment in a code block. Inline markup is parsed in headings
    # only: the rest stays as it was written.
    parser = MarkdownIt("commonmark")
    tokens = MarkdownIt("commonmark").disable("inline").parse(text)
    blocks, start = [_Block(level=0, heading="")], 0
    for token, content in zip(tokens, tokens[1:], strict=False):
        if token.type != "heading_open" or token.level or not token.map:
            continue
        blocks[-1].text = "\n".join(lines[start : token.map[0]])
        start = token.map[1]
        inline = parser.parseInline(content.content)[0].children or []
        heading = "".join(part.content or " " * part.type.endswith("break") for part in inline)
        blocks.append(_Block(level=int(token.tag[1]), heading=" ".join(heading.split())))
    blocks[-1].text = "\n".join(lines[start:])
    return _document(title, blocks, stem)


def _front_matter(text: str) -> tuple[str | None, str]:
    """The title in a Markdown file's YAML front matter, and the text without it."""
    import yaml

    if not (found := re.match(r"---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*$", text, re.DOTALL | re.MULTILINE)):
        return None, text
    try:
        fields = yaml.safe_load(found[1])
    except (yaml.YAMLError, ValueError, RecursionError):
        return None, text
    if not isinstance(fields, dict):
        return None, text  # a thematic break, not front matter
    title = fields.get("title")
    return (title.strip() or None) if isinstance(title, str) else None, text[found.end() :]


_HTML_DROPPED = {"footer", "head", "iframe", "nav", "noscript", "script", "style", "svg", "template"}
_HTML_HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6"}
_HTML_BREAKS = dict.fromkeys("br dd dt li option tr".split(), 1) | dict.fromkeys(
    "address article aside blockquote body details div dl fieldset figcaption figure form header hr html main ol p pre "
    "section summary table tbody tfoot thead ul".split(),
    2,
)
"""Elements that begin and end a line (1) or a paragraph (2); all others lie within a line."""


def _load_html(data: bytes, stem: str) -> Document:
    from bs4 import BeautifulSoup, XMLParsedAsHTMLWarning

    text = _decode(data, _html_encoding(data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XMLParsedAsHTMLWarning)  # XHTML is read as the HTML that it also is
        # An HTML parser knows no external entities and reads nothing but what it is given.
        soup = BeautifulSoup(text, "lxml")
    title = " ".join(soup.title.get_text().split()) if soup.title else None
    return _document(title, _html_blocks(soup), stem)


def _html_encoding(data: bytes) -> str:
    """UTF-8, unless the page declares another encoding."""
    from bs4.dammit import EncodingDetector

    if data.startswith(codecs.BOM_UTF8):
        return "utf-8"
    declared = EncodingDetector.find_declared_encoding(data, is_html=True) or "utf-8"
    # A declaration that could be read as ASCII does not lie in UTF-16, whatever it says.
    return "utf-8" if declared.lower().startswith("utf-16") else declared


def _html_blocks(root: Tag) -> list[_Block]:
    from bs4.element import NavigableString, Tag

    blocks, flow, pre = [_Block(level=0, heading="")], _Flow(), 0
    # A stack instead of recursion: pages nest thousands deep. An element's name on it marks the element's end.
    stack: list[Any] = list(reversed(root.contents))
    while stack:
        node = stack.pop()
        if isinstance(node, str) and not isinstance(node, NavigableString):
            pre -= node == "pre"
            flow.end_block(_HTML_BREAKS.get(node, 0))
        elif type(node) is NavigableString:  # not its subclasses: comments, declarations, scripts
            flow.add(str(node), verbatim=pre > 0)
        elif isinstance(node, Tag) and node.name in _HTML_HEADINGS:
            blocks[-1].text, flow = flow.text(), _Flow()
            heading = " ".join(node.get_text().split()).rstrip("\u00b6 ")  # Sphinx ends headings with a pilcrow link
            blocks.append(_Block(level=int(node.name[1]), heading=heading))
        elif isinstance(node, Tag) and node.name not in _HTML_DROPPED:
            pre += node.name == "pre"
            flow.end_block(_HTML_BREAKS.get(node.name, 0))
            if node.name in ("td", "th"):
                flow.begin_cell()
            stack.append(node.name)
            stack.extend(reversed(node.contents))
    blocks[-1].text = flow.text()
    return blocks


class _Flow:
    """Text by HTML's rules of white space: runs of it are one space, blocks begin on a line of their own."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._gap = 0
        self._space = False

    def end_block(self, lines: int) -> None:
        self._gap = max(self._gap, lines)

    def begin_cell(self) -> None:
        if self._parts and not self._gap:
            self._parts.append(" | ")
            self._space = False

    def add(self, text: str, verbatim: bool) -> None:
        words = text if verbatim else " ".join(text.split())
        if not words:
            self._space = self._space or bool(text)
            return
        if self._parts and self._gap:
            self._parts.append("\n" * self._gap)
        elif self._parts and not verbatim and (self._space or text[0].isspace()):
            self._parts.append(" ")
        self._parts.append(words)
        self._gap, self._space = 0, text[-1].isspace() and not verbatim

    def text(self) -> str:
        return "".join(self._parts)


_TEXT_FIELDS = ("text", "content", "body")


def _load_jsonl(data: bytes, stem: str) -> Document:
    """One section for each record: its first field of text, content or body, with its title and id if it has them."""
    # Only \n ends a record: a JSON string may hold other line separators as they are.
    records = (_record(line, number) for number, line in enumerate(_decode(data).split("\n"), start=1) if line.strip())
    return Document(title=stem, sections=tuple(section for section in records if section.text.strip()))


def _record(line: str, number: int) -> Section:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"line {number}: not JSON ({error})") from None
    if not isinstance(record, dict):
        raise DocumentError(f"line {number}: {type(record).__name__} where an object was expected")
    field = next((name for name in _TEXT_FIELDS if name in record), None)
    if field is None:
        raise DocumentError(f"line {number}: none of the fields {', '.join(_TEXT_FIELDS)}")
    text, title, key = record[field], record.get("title"), record.get("id")
    if not isinstance(text, str):
        raise DocumentError(f"line {number}: field {field!r} is {type(text).__name__}, must be a string")
    headings = (title.strip(),) if isinstance(title, str) and title.strip() else ()
    locator = str(key) if isinstance(key, str | int) and key != "" else f"line {number}"
    try:
        " ".join((text, *headings, locator)).encode()
    except UnicodeEncodeError as error:
        raise DocumentError(f"line {number}: half a surrogate pair at character {error.start}, no text") from None
    return Section(text=text, headings=headings, locator=locator)


_LOADERS: dict[str, Callable[[bytes, str], Document]] = {
    ".txt": _load_text,
    ".text": _load_text,
    ".rst": _load_text,
    ".md": _load_markdown,
    ".markdown": _load_markdown,
    ".html": _load_html,
    ".htm": _load_html,
    ".jsonl": _load_jsonl,
    ".ndjson": _load_jsonl,
}
"""A new format is a function from bytes and the file's stem to a Document, and its suffixes here."""

SUFFIXES = frozenset(_LOADERS)
"""What load() can read."""
