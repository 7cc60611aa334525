"""Documents become chunks that fit the embedder and know where they came from, by semantic-text-splitter.

A chunk never spans two sections, and it is embedded with the document's title and its headings in front: "Default: 16"
says nothing without them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from include.documents.document import Document, Section
from include.errors import UserError

_CHARACTERS_PER_TOKEN = 8
"""A chunk has at most this many characters for each of its tokens; prose has 4 to 5. Counted in tokens alone it could
be endless: a tokenizer makes one unknown token of an unbroken run of any length, and none of white space."""

_WINDOW = 1 << 16
"""Characters given to the splitter at a time: for every chunk it looks through all that follows, so that its time grows
with the square of the text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """A passage: what search finds, and what is embedded."""

    ordinal: int
    """Its place in the document, from 0."""
    start: int
    end: int
    """Characters of Document.text, end excluded."""
    text: str
    """Just those; it begins with other than white space, or with the indentation of its first line."""
    headings: tuple[str, ...] = ()
    locator: str | None = None
    page: int | None = None
    """As of the section that it lies in."""
    prefix_characters: int | None = None
    """How much of the title and headings fits in front of the text; None: all."""

    def for_embedding(self, title: str) -> str:
        """The text behind its document's title and its headings, since a passage is embedded alone."""
        prefix = _prefix(title, self.headings)
        if self.prefix_characters is not None:
            prefix = prefix[len(prefix) - self.prefix_characters :]
        return f"{prefix}\n{self.text}" if prefix else self.text


class Chunker:
    """Splits documents into chunks of at most size_tokens each, title and headings included.

    size_tokens is at most limit_tokens, the longest text that the embedder reads; count_tokens is the embedder's.
    Title and headings take at most a third of the size: of longer ones the end is kept, which says most. A chunk is cut
    where the text breaks most (blocks of Markdown, runs of blank lines, lines, sentences, words), and as many of those
    parts as fit are kept together. Consecutive chunks of a section share whole parts of at most overlap_tokens, and
    never more than half of what the prefix leaves: where the parts are paragraphs, mostly nothing.
    """

    def __init__(
        self, size_tokens: int, overlap_tokens: int, count_tokens: Callable[[str], int], limit_tokens: int
    ) -> None:
        if not 16 <= size_tokens <= limit_tokens:
            raise UserError(
                f"chunk_tokens={size_tokens} must be between 16 and {limit_tokens}, the most that the embedder reads"
            )
        if not 0 <= overlap_tokens < size_tokens:
            raise UserError(
                f"overlap_tokens={overlap_tokens} must be between 0 and chunk_tokens - 1 = {size_tokens - 1}"
            )
        self.name = f"structured-1/{size_tokens}/{overlap_tokens}"
        """The algorithm with its version, and the settings: chunks of different names may differ. Whoever changes what
        comes out of this file or of the loaders raises the version, so that indexed documents are read again."""
        self._size, self._overlap = size_tokens, overlap_tokens
        # The same prefixes, and the same beginnings of texts, come again and again.
        self._count = lru_cache(maxsize=1 << 10)(count_tokens)

    def split(self, document: Document) -> list[Chunk]:
        """The chunks of a document in its order; the same document always gives the same chunks."""
        pieces = [
            (section, characters, start, end)
            for section in document.sections
            for characters, start, end in self._section(document, section)
        ]
        return [
            Chunk(
                ordinal=ordinal,
                start=start,
                end=end,
                text=document.text[start:end],
                headings=section.headings,
                locator=section.locator,
                page=section.page,
                prefix_characters=characters,
            )
            for ordinal, (section, characters, start, end) in enumerate(pieces)
        ]

    def _section(self, document: Document, section: Section) -> Iterator[tuple[int, int, int]]:
        whole = _prefix(document.title, section.headings)
        characters = self._prefix_characters(whole)
        prefix = f"{whole[len(whole) - characters :]}\n" if characters else ""
        room = _Room(self._count, prefix, self._size)
        splitter = _Splitter(room, document.text, self._overlap, document.is_markdown)
        for start, end in splitter.spans(section.start, section.end):
            yield characters, start, end

    def _prefix_characters(self, prefix: str) -> int:
        allowed = self._size // 3
        characters = min(len(prefix), allowed * _CHARACTERS_PER_TOKEN)
        # Without the special tokens, which a tokenizer may count with every text.
        while self._count(prefix[len(prefix) - characters :]) - self._count("") > allowed:
            characters = characters * 3 // 4
        return characters


class _Room:
    """What a prefix leaves of the size, and what a text takes of it, both in tokens."""

    def __init__(self, count: Callable[[str], int], prefix: str, size: int) -> None:
        self._count, self._prefix, self._taken = count, prefix, count(prefix)
        self.tokens = max(1, size - self._taken)

    def size(self, text: str) -> int:
        """Tokens of a text behind the prefix, but no less than its characters make.

        Of a text that is too long by far, it is an estimate, too long as well: counting all of it would cost most.
        """
        length = len(text)
        least = -(-length // _CHARACTERS_PER_TOKEN)
        if least > self.tokens:
            return least
        if length > 5 * self.tokens:
            head = text[: 3 * self.tokens]
            if (tokens := self._tokens(head)) > self.tokens:
                return tokens + (length - len(head)) // _CHARACTERS_PER_TOKEN
        return max(least, self._tokens(text))

    def fits(self, text: str) -> bool:
        """Whether a text fits behind the prefix; a single character has to."""
        return len(text) <= 1 or self.size(text) <= self.tokens

    def _tokens(self, text: str) -> int:
        # Behind the prefix and not alone, since a token can straddle where they meet.
        return self._count(self._prefix + text) - self._taken


class _Splitter:
    """Cuts stretches of one text into spans that fit a room."""

    def __init__(self, room: _Room, text: str, overlap: int, is_markdown: bool) -> None:
        self._room, self._text, self._overlap, self._is_markdown = room, text, overlap, is_markdown

    def spans(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Spans (start, end) in order, none of them blank, that hold all of a stretch but white space."""
        if self._room.fits(self._text[start:end]):
            yield start, end
            return
        held: tuple[int, int] | None = None
        for first, last in self._cut(start, end):
            for piece_start, piece_end in self._fit(first, last):
                span = self._with_indentation(piece_start, piece_end, start), piece_end
                # Where an overlap meets white space or a window's end, one span can lie within the other.
                if held and span[1] <= held[1]:
                    continue
                if held and held[0] < span[0]:
                    yield held
                held = span
        if held:
            yield held

    def _cut(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The splitter's chunks, window by window: the last chunk of one is cut anew as the first of the next."""
        longest = self._room.tokens * _CHARACTERS_PER_TOKEN
        while start < end:
            stop = min(end, start + max(_WINDOW, 4 * longest))
            # Within a run of Chinese or Thai it looks words up again from its beginning, for every chunk.
            if max(map(len, self._text[start:stop].split()), default=0) > longest:
                stop = min(end, start + 2 * longest)
            chunks = self._chunks(self._text[start:stop])
            resume = stop
            if stop < end and chunks and chunks[-1][0]:
                resume = start + chunks.pop()[0]
            for offset, chunk in chunks:
                yield start + offset, start + offset + len(chunk)
            start = resume

    def _chunks(self, text: str) -> list[tuple[int, str]]:
        """The splitter's chunks of a window, as (offset, chunk); all of it as one where the splitter fails on it."""
        from semantic_text_splitter import MarkdownSplitter, TextSplitter

        room = self._room.tokens
        for kind in (MarkdownSplitter, TextSplitter) if self._is_markdown else (TextSplitter,):
            splitter = kind.from_callback(self._room.size, room, overlap=min(self._overlap, room // 2))
            try:
                return splitter.chunk_indices(text)
            except BaseException as error:
                # A panic of the library, seen once in thousands of odd texts, is no Exception and has no public name.
                if type(error).__name__ != "PanicException":
                    raise
        return [(0, text)]

    def _fit(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """A span, or parts of it that fit: the splitter takes for granted that a text has no more tokens than bytes."""
        text = self._text[start:end].rstrip()
        if not text:
            return
        end = start + len(text)
        if self._room.fits(text):
            yield start, end
            return
        middle = (start + end) // 2
        yield from self._fit(start, middle)
        yield from self._fit(middle, end)

    def _with_indentation(self, start: int, end: int, lowest: int) -> int:
        """Where a span starts with the indentation of its first line, if it fits, and with no other white space."""
        text = self._text[start:end]
        start = end - len(text.lstrip())
        lowest = max(lowest, end - self._room.tokens * _CHARACTERS_PER_TOKEN)
        line = self._text.rfind("\n", lowest, start) + 1
        if line and self._text[line:start].isspace() and self._room.fits(self._text[line:end]):
            return line
        return start


def _prefix(title: str, headings: tuple[str, ...]) -> str:
    """The title and the path of headings on one line; a title that is also the first heading stands once."""
    path = headings if headings[:1] == (title,) else (title, *headings)
    return " > ".join(part for part in path if part)
