"""Documents become chunks that fit the embedder, by LangChain's recursive splitter, counted in the embedder's tokens.

A chunk never spans two sections, and it is embedded with the document's title and its headings in front: "Default: 16"
says nothing without them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from include.errors import UserError
from include.rag.load import Document, Section

_SEPARATORS = [
    r"\n\s*\n",  # paragraphs
    r"\n(?=\S)",  # lines that continue none: list items, parameters, definitions
    r"\n",
    r"(?<=[.!?;])\s+",  # sentences
    r"(?<=[。！？；])",  # noqa: RUF001 (sentences of scripts that put no space between them)
    r"\s+",  # words
    "",  # characters
]
_CHARACTERS_PER_TOKEN = 8
"""A chunk has at most this many characters for each of its tokens; prose has 4 to 5. Counted in tokens alone it could
be endless: a tokenizer makes one unknown token of an unbroken run of any length, and none of white space."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """A passage: what search finds, and what is embedded."""

    ordinal: int
    """Its place in the document, from 0."""
    text: str
    headings: tuple[str, ...] = ()
    locator: str | None = None
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
    Title and headings take at most a third of the size: of longer ones the end is kept, which says most. Consecutive
    chunks of a section share at most overlap_tokens, and never more than half of what the prefix leaves.
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
        self.name = f"recursive-1/{size_tokens}/{overlap_tokens}"
        """The algorithm with its version, and the settings: chunks of different names may differ. Whoever changes what
        comes out of this file or of load.py raises the version, so that indexed documents are read again."""
        self._size, self._overlap = size_tokens, overlap_tokens
        # The splitter asks twice or more for every piece.
        self._count = lru_cache(maxsize=1 << 14)(count_tokens)

    def split(self, document: Document) -> list[Chunk]:
        """The chunks of a document in its order; the same document always gives the same chunks."""
        pieces = [
            (section, characters, text)
            for section in document.sections
            for characters, text in self._section(document.title, section)
        ]
        return [
            Chunk(
                ordinal=ordinal,
                text=text,
                headings=section.headings,
                locator=section.locator,
                prefix_characters=characters,
            )
            for ordinal, (section, characters, text) in enumerate(pieces)
        ]

    def _section(self, title: str, section: Section) -> Iterator[tuple[int, str]]:
        whole = _prefix(title, section.headings)
        characters = self._prefix_characters(whole)
        prefix = f"{whole[len(whole) - characters :]}\n" if characters else ""
        room = max(1, self._size - self._count("") - self._tokens(prefix))
        for text in self._fit(section.text, prefix, room):
            yield characters, text

    def _prefix_characters(self, prefix: str) -> int:
        allowed = self._size // 3
        characters = min(len(prefix), allowed * _CHARACTERS_PER_TOKEN)
        while self._tokens(prefix[len(prefix) - characters :]) > allowed:
            characters = characters * 3 // 4
        return characters

    def _fit(self, text: str, prefix: str, room: int) -> Iterator[str]:
        """Pieces of a text that fit behind the prefix, none of them blank."""
        text = text.strip("\n").rstrip()
        if not text:
            return
        is_short = len(text) <= room * _CHARACTERS_PER_TOKEN
        if len(text) == 1 or (is_short and self._count(prefix + text) <= self._size):
            yield text
            return
        for piece in self._cut(text, room) if room > 1 else text:
            # A token can straddle a cut, so that the parts count less than the whole: then with less room once more.
            yield from self._fit(piece, prefix, max(1, room * 3 // 4))

    def _cut(self, text: str, room: int) -> list[str]:
        from langchain_text_splitters import RecursiveCharacterTextSplitter

        splitter = RecursiveCharacterTextSplitter(
            chunk_size=room * _CHARACTERS_PER_TOKEN,
            chunk_overlap=min(self._overlap, room // 2) * _CHARACTERS_PER_TOKEN,
            length_function=self._length,
            separators=_SEPARATORS,
            is_separator_regex=True,
            strip_whitespace=False,
        )
        first, *rest = splitter.split_text(text)
        # White space before a whole line is its indentation, within a line it is what was cut at.
        return [first, *(piece if piece.startswith("\n") else piece.lstrip() for piece in rest)]

    def _tokens(self, text: str) -> int:
        """Tokens without the special ones, which a tokenizer may count with every text: the splitter adds counts up."""
        return self._count(text) - self._count("")

    def _length(self, text: str) -> int:
        """Characters, but no less than a token's worth for each token. What is too long by itself is not tokenised."""
        if len(text) > self._size * _CHARACTERS_PER_TOKEN:
            return len(text)
        return max(len(text), self._tokens(text) * _CHARACTERS_PER_TOKEN)


def _prefix(title: str, headings: tuple[str, ...]) -> str:
    """The title and the path of headings on one line; a title that is also the first heading stands once."""
    path = headings if headings[:1] == (title,) else (title, *headings)
    return " > ".join(part for part in path if part)
