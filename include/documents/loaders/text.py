"""Plain text, reStructuredText and Markdown: the document's text is the file itself, decoded."""

from __future__ import annotations

import re
from itertools import accumulate

from include.documents.document import Document, Section
from include.documents.loaders.common import Block, decode, outline, trimmed


def load_plain(data: bytes, stem: str) -> Document:
    """One section: the whole file."""
    text = decode(data)
    start, end = trimmed(text, 0, len(text))
    return Document(title=stem, text=text, sections=(Section(start=start, end=end),) if start < end else ())


def load_markdown(data: bytes, stem: str) -> Document:
    """A section for each stretch of text under a heading; front matter gives the title and is in no section."""
    text = decode(data)
    title, start = _front_matter(text)
    blocks = markdown_blocks(text, start)
    return Document(
        title=title or _first_heading(blocks) or stem, text=text, sections=outline(text, blocks), is_markdown=True
    )


def markdown_blocks(text: str, start: int = 0) -> list[Block]:
    """The headings of a Markdown text from `start` on, and what lies below each."""
    from markdown_it import MarkdownIt

    # A parser of the whole grammar knows a heading from a comment in a code block. Inline markup is parsed in headings
    # only: the rest stays as it was written.
    parser = MarkdownIt("commonmark")
    tokens = MarkdownIt("commonmark").disable("inline").parse(text[start:])
    lines = _line_starts(text, start)
    blocks = [Block(level=0, heading="", start=start)]
    for token, content in zip(tokens, tokens[1:], strict=False):
        if token.type != "heading_open" or token.level or not token.map:
            continue
        first, end = (lines[number] for number in token.map)
        blocks[-1].end = first
        inline = parser.parseInline(content.content)[0].children or []
        words = (part.content or " " * part.type.endswith("break") for part in inline if part.type != "html_inline")
        heading = " ".join("".join(words).split()) or content.content
        # The heading alone, without its hashes or its underline, where its source is one line.
        found = text.find(content.content, first, end)
        span = (first, end) if found < 0 else (found, found + len(content.content))
        level = int(token.tag[1])
        blocks.append(Block(level=level, heading=heading, heading_start=span[0], heading_end=span[1], start=end))
    blocks[-1].end = len(text)
    return blocks


def _line_starts(text: str, start: int) -> list[int]:
    """Offset of each line from `start` on, and the end of the text for all that lies past the last one."""
    starts = list(accumulate((len(line) + 1 for line in text[start:].split("\n")), initial=start))
    return [min(offset, len(text)) for offset in starts]


def _first_heading(blocks: list[Block]) -> str | None:
    return next((block.heading for block in blocks if block.heading), None)


def _front_matter(text: str) -> tuple[str | None, int]:
    """The title in a Markdown file's YAML front matter, and where the text below it begins."""
    import yaml

    if not (found := re.match(r"---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*$", text, re.DOTALL | re.MULTILINE)):
        return None, 0
    try:
        fields = yaml.safe_load(found[1])
    except (yaml.YAMLError, ValueError, RecursionError):
        return None, 0
    if not isinstance(fields, dict):
        return None, 0  # a thematic break, not front matter
    title = fields.get("title")
    return (title.strip() or None) if isinstance(title, str) else None, found.end()


_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1+[ \t]*")


def load_rst(data: bytes, stem: str) -> Document:
    """A section for each stretch of text under a title: a line under which, and maybe over which, runs a line of
    punctuation at least as long. Directives stay as they are written; nothing is included."""
    text = decode(data)
    lines, starts = text.split("\n"), _line_starts(text, 0)
    blocks, styles = [Block(level=0, heading="")], list[str]()
    number, after_title = 0, -1
    while number < len(lines):
        # A title begins after a blank line or another title.
        begins = number in (0, after_title) or not lines[number - 1].strip()
        found = _rst_title(lines, number) if begins else None
        if found is None:
            number += 1
            continue
        style, title, after = found
        if style not in styles:
            styles.append(style)
        blocks[-1].end = starts[number]
        at = starts[after - 2]
        block = Block(level=styles.index(style) + 1, heading=" ".join(lines[title].split()), start=starts[after])
        block.heading_start, block.heading_end = at, at + len(lines[title])
        blocks.append(block)
        number = after_title = after
    blocks[-1].end = len(text)
    return Document(title=_first_heading(blocks) or stem, text=text, sections=outline(text, blocks))


def _rst_title(lines: list[str], number: int) -> tuple[str, int, int] | None:
    """Style, the title's line and the line after its underline, of a title whose first line this is."""
    over = _ADORNMENT.fullmatch(lines[number])
    title = number + 1 if over else number
    if title + 1 >= len(lines) or not (under := _ADORNMENT.fullmatch(lines[title + 1])):
        return None
    line = lines[title].rstrip()
    if not line or _ADORNMENT.fullmatch(line) or len(line) > len(lines[title + 1].rstrip()):
        return None
    if over:
        same = over[0].rstrip() == under[0].rstrip()
        return (over[1] * 2, title, title + 2) if same else None
    return None if line[0].isspace() else (under[1], title, title + 2)
