"""HTML: the text of a page without what surrounds it on every page of its site."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from include.documents.document import Document
from include.documents.loaders.common import Block, Builder, declared, decode, outline

if TYPE_CHECKING:
    from bs4 import Tag

_NEVER_TEXT = {"head", "iframe", "noscript", "script", "style", "svg", "template"}
_AROUND_TEXT = {"aside", "footer", "nav"}
_ROLES_AROUND_TEXT = {"alertdialog", "banner", "complementary", "contentinfo", "dialog", "navigation", "search"}
_HIDDEN_STYLE = re.compile(r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden)\b", re.IGNORECASE)
_HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6"}
_BREAKS = dict.fromkeys("br dd dt li option tr".split(), 1) | dict.fromkeys(
    "address article aside blockquote body details dialog div dl fieldset figcaption figure footer form header hr html "
    "main nav ol p pre section summary table tbody tfoot thead ul".split(),
    2,
)
"""Elements that begin and end a line (1) or a paragraph (2); all others lie within a line."""


def load_html(data: bytes, stem: str) -> Document:
    """A section for each stretch of text under a heading, as plain text.

    Left out: navigation, footers, asides, banners, search, dialogs (cookie banners among them), what is hidden, images,
    and, where the page has one <main> or one <article>, all else. A page that is nothing but that is kept whole.
    """
    from bs4 import BeautifulSoup, XMLParsedAsHTMLWarning

    text = decode(data, _encoding(data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XMLParsedAsHTMLWarning)  # XHTML is read as the HTML that it also is
        # An HTML parser knows no external entities and reads nothing but what it is given.
        soup = BeautifulSoup(text, "lxml")
    title = " ".join(soup.title.get_text().split()) if soup.title else ""
    document = _document(_content(soup), title, stem, _is_boilerplate(soup))
    return document if document.sections else _document(soup, title, stem, lambda tag: False)


def _encoding(data: bytes) -> str:
    from bs4.dammit import EncodingDetector

    return declared(EncodingDetector.find_declared_encoding(data, is_html=True))


def _content(soup: Tag) -> Tag:
    """The page's one <main>, else its one <article> (those within it aside), else all of it."""
    mains = [tag for tag in soup.select("main, [role=main]") if not _is_hidden(tag)]
    articles = [] if mains else [tag for tag in soup.find_all("article") if not tag.find_parent("article")]
    found = mains or articles
    return found[0] if len(found) == 1 else soup


def _is_boilerplate(soup: Tag) -> Callable[[Tag], bool]:
    has_content = soup.find(["main", "article"]) is not None

    def check(tag: Tag) -> bool:
        if tag.name in _AROUND_TEXT or _is_hidden(tag):
            return True
        if not _ROLES_AROUND_TEXT.isdisjoint(_attribute(tag, "role").lower().split()):
            return True
        return tag.name == "header" and has_content and tag.find_parent(["main", "article"]) is None

    return check


def _attribute(tag: Tag, name: str) -> str:
    value = tag.get(name)
    return value if isinstance(value, str) else ""


def _is_hidden(tag: Tag) -> bool:
    if tag.name == "dialog" and not tag.has_attr("open"):
        return True
    hidden = tag.has_attr("hidden") and _attribute(tag, "hidden").lower() != "until-found"
    return hidden or _attribute(tag, "aria-hidden") == "true" or bool(_HIDDEN_STYLE.search(_attribute(tag, "style")))


def _document(root: Tag, title: str, stem: str, is_boilerplate: Callable[[Tag], bool]) -> Document:
    builder, blocks = Builder(), []
    for level, heading, body in _stretches(root, is_boilerplate):
        block = Block(level=level, heading=heading)
        block.heading_start, block.heading_end = builder.aside(heading)
        block.start, block.end = builder.aside(body)
        blocks.append(block)
    text = builder.build(stem).text
    first = next((block.heading for block in blocks if block.heading), None)
    return Document(title=title or first or stem, text=text, sections=outline(text, blocks))


def _stretches(root: Tag, is_boilerplate: Callable[[Tag], bool]) -> list[tuple[int, str, str]]:
    """Level, heading and the text below it; level 0 is the text before the first heading."""
    from bs4.element import NavigableString, Tag

    found, flow, pre = [(0, "", "")], _Flow(), 0
    # A stack instead of recursion: pages nest thousands deep. An element's name on it marks the element's end.
    stack: list[Any] = list(reversed(root.contents))
    while stack:
        node = stack.pop()
        if isinstance(node, str) and not isinstance(node, NavigableString):
            pre -= node == "pre"
            flow.end_block(_BREAKS.get(node, 0))
        elif type(node) is NavigableString:  # not its subclasses: comments, declarations, scripts
            flow.add(str(node), verbatim=pre > 0)
        elif not isinstance(node, Tag) or node.name in _NEVER_TEXT or is_boilerplate(node):
            continue
        elif node.name in _HEADINGS:
            found[-1] = (*found[-1][:2], flow.text())
            heading = " ".join(node.get_text().split()).rstrip("\u00b6 ")  # Sphinx ends headings with a pilcrow link
            found.append((int(node.name[1]), heading, ""))
            flow = _Flow()
        else:
            pre += node.name == "pre"
            flow.end_block(_BREAKS.get(node.name, 0))
            if node.name in ("td", "th"):
                flow.begin_cell()
            stack.append(node.name)
            stack.extend(reversed(node.contents))
    found[-1] = (*found[-1][:2], flow.text())
    return found


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
