"""Every chunk fits, points at its text, and nothing is lost; the same document always gives the same chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from semantic_text_splitter import MarkdownSplitter

from include.documents.document import Document, Section
from include.errors import UserError
from include.models.embeddings import get_embedder
from include.rag.chunking import Chunk, Chunker

WORDS = get_embedder("hashing").count_tokens
COUNTERS: dict[str, Callable[[str], int]] = {
    "words": WORDS,
    "characters": len,
    "bytes": lambda text: len(text.encode()),
    "with special tokens": lambda text: 2 + WORDS(text),
    # As a tokenizer that merges letters into pairs: what is cut in two counts more than the whole, or less.
    "pairs": lambda text: (len(text) + 1) // 2,
    "unknown": lambda text: len(text.split()),
    # As a tokenizer that writes one character out as several: more tokens than bytes.
    "expanding": lambda text: 3 * len(text),
}

texts = st.text(
    alphabet=st.sampled_from("abc .,;!?\n\t\r\x1c-#`|*>\u00e9\u4e2d\u3002\u3000\U0001f600\u200d"), max_size=400
)
blocks = [
    "# head\n\n",
    "```\ncode()\n\n    more()\n```\n",
    "- item\n  - inner\n",
    "| a | b |\n|---|---|\n| 1 | 2 |\n",
    "word. ",
]
markdown = st.lists(st.sampled_from([*blocks, "> quote\n", "    indented\n", "\n", "[^1]: note\n", "---\n"])).map(
    "".join
)
anything = st.one_of(texts, st.text(max_size=200), markdown)
counters = st.sampled_from(sorted(COUNTERS))


def document(*parts: tuple[tuple[str, ...], str], title: str = "t", is_markdown: bool = False) -> Document:
    """A document with a section for each part that has text, its white space around them included."""
    text, sections = "", []
    for headings, part in parts:
        text += part
        if part.strip():
            end = len(text.rstrip())
            sections.append(Section(start=end - len(part.strip()), end=end, headings=headings))
        text += "\n"
    return Document(title=title, text=text, sections=tuple(sections), is_markdown=is_markdown)


documents = st.builds(
    lambda title, parts, is_markdown: document(*parts, title=title, is_markdown=is_markdown),
    anything,
    st.lists(st.tuples(st.lists(anything, max_size=3).map(tuple), anything), max_size=4),
    st.booleans(),
)


def missing(whole: Document, chunks: list[Chunk]) -> str:
    """The characters of the sections, but for white space, that are in no chunk."""
    held = {place for chunk in chunks for place in range(chunk.start, chunk.end)}
    inside = (place for section in whole.sections for place in range(section.start, section.end))
    return "".join(whole.text[place] for place in inside if place not in held).strip()


def neighbours(whole: Document, chunks: list[Chunk]) -> Iterator[tuple[Chunk, Chunk]]:
    """Chunks that follow each other in one section."""
    ends = {section.end for section in whole.sections}
    return ((one, other) for one, other in zip(chunks, chunks[1:], strict=False) if one.end not in ends)


@settings(deadline=None)
@given(documents, counters, st.integers(16, 80), st.floats(0, 0.99))
def test_every_chunk_fits_and_points_at_its_text_and_nothing_is_lost(
    whole: Document, counter: str, size: int, overlap: float
) -> None:
    count = COUNTERS[counter]
    chunks = Chunker(size, int(size * overlap), count, 80).split(whole)
    assert [chunk.ordinal for chunk in chunks] == list(range(len(chunks)))
    assert all(chunk.text == whole.text[chunk.start : chunk.end] for chunk in chunks)
    assert all(count(chunk.for_embedding(whole.title)) <= size for chunk in chunks)
    assert all(chunk.text.strip() for chunk in chunks)
    assert not missing(whole, chunks)
    assert chunks == Chunker(size, int(size * overlap), count, 80).split(whole)


@settings(deadline=None)
@given(documents, counters, st.integers(16, 80), st.floats(0, 0.99))
def test_chunks_are_in_order_within_one_section_and_share_at_most_the_overlap(
    whole: Document, counter: str, size: int, share: float
) -> None:
    count, overlap = COUNTERS[counter], int(size * share)
    chunks = Chunker(size, overlap, count, 80).split(whole)
    for chunk in chunks:
        assert sum(section.start <= chunk.start and chunk.end <= section.end for section in whole.sections) == 1
    for one, other in zip(chunks, chunks[1:], strict=False):
        assert one.start < other.start
        assert one.end < other.end
        # A token can straddle a cut, so that what is shared counts one more alone than in its place.
        assert count(whole.text[other.start : one.end].strip()) - count("") <= overlap + 1
        assert overlap or one.end <= other.start


@pytest.mark.parametrize("is_markdown", [False, True])
def test_consecutive_chunks_share_the_overlap(is_markdown: bool) -> None:
    whole = document(((), " ".join(f"w{number}" for number in range(200))), is_markdown=is_markdown)
    chunks = Chunker(32, 8, WORDS, 64).split(whole)
    assert len(chunks) > 5
    for one, other in neighbours(whole, chunks):
        assert one.text.split()[-8:] == other.text.split()[:8]


def test_sections_stay_apart_and_keep_what_the_loader_knew_of_them() -> None:
    text = "short one\n\nshort two"
    whole = Document(
        title="Guide",
        text=text,
        sections=(
            Section(start=0, end=9, headings=("Guide", "A")),
            Section(start=11, end=20, headings=("B",), locator="page 2", page=2),
        ),
    )
    chunks = Chunker(64, 8, WORDS, 64).split(whole)
    assert chunks == [
        Chunk(ordinal=0, start=0, end=9, text="short one", headings=("Guide", "A"), prefix_characters=9),
        Chunk(
            ordinal=1,
            start=11,
            end=20,
            text="short two",
            headings=("B",),
            locator="page 2",
            page=2,
            prefix_characters=9,
        ),
    ]
    assert [chunk.for_embedding("Guide") for chunk in chunks] == ["Guide > A\nshort one", "Guide > B\nshort two"]
    assert Chunk(ordinal=0, start=0, end=5, text="alone").for_embedding("") == "alone"
    assert Chunker(64, 8, WORDS, 64).split(Document(title="Guide", text=" \n", sections=())) == []


def test_text_is_cut_where_it_breaks_and_code_keeps_its_indentation() -> None:
    prose = "First sentence of it. " + "word " * 12
    code = "def f():\n    if x:\n        return 1\n    return 2"
    chunks = Chunker(20, 0, WORDS, 64).split(document(((), f"{prose}\n\n{code}"), title=""))
    assert [chunk.text for chunk in chunks] == [prose.strip(), code]
    lines = [f"    step{number}()" for number in range(8)]
    small = Chunker(16, 0, WORDS, 64).split(document(((), "\n".join(["begin", *lines])), title=""))
    assert [chunk.text for chunk in small] == ["\n".join(["begin", *lines[:5]]), "\n".join(lines[5:])]


def test_indentation_that_does_not_fit_is_left_out() -> None:
    far = " " * 500 + "far"
    chunks = Chunker(16, 0, WORDS, 64).split(document(((), f"{'near ' * 16}\n{far}"), title=""))
    assert [chunk.text for chunk in chunks] == [("near " * 16).strip(), "far"]


def test_blocks_of_markdown_stay_whole_where_they_fit() -> None:
    prose = "Some words that come before it. " * 4
    code = "```python\nfirst()\n\n\nsecond()\n```"
    table = "| key | value |\n|---|---|\n| a | 1 |\n| b | 2 |"
    items = "- one item\n\n  with a second paragraph\n- another item"
    text = "\n\n".join([prose, code, prose, table, prose, items])
    size = max(map(WORDS, (prose, code, table, items)))  # each alone, and no two together
    for is_markdown in (True, False):
        chunks = Chunker(size, 0, WORDS, 64).split(document(((), text), title="", is_markdown=is_markdown))
        found = [any(part in chunk.text for chunk in chunks) for part in (code, table, items)]
        assert found == ([True, True, True] if is_markdown else [False, True, True])


def test_a_long_prefix_keeps_its_end_and_leaves_two_thirds() -> None:
    headings = tuple(f"heading{number}" for number in range(50))
    chunks = Chunker(30, 0, WORDS, 64).split(document((headings, "word " * 60), title="title"))
    prefix, _, text = chunks[0].for_embedding("title").partition("\n")
    assert prefix.endswith("heading48 > heading49")
    assert 5 <= WORDS(prefix) <= 10
    assert WORDS(text) >= 20


@pytest.mark.parametrize(
    ("size", "overlap", "message"),
    [
        (15, 0, "chunk_tokens=15 must be between 16 and 254"),
        (255, 0, "chunk_tokens=255 must be between 16 and 254"),
        (200, -1, "overlap_tokens=-1 must be between 0 and chunk_tokens - 1 = 199"),
        (200, 200, "overlap_tokens=200 must be between 0 and chunk_tokens - 1 = 199"),
    ],
)
def test_settings_that_cannot_work_are_refused(size: int, overlap: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Chunker(size, overlap, WORDS, 254)


def test_settings_at_their_limits_work_and_name_the_chunks() -> None:
    assert Chunker(254, 253, WORDS, 254).name == "structured-1/254/253"
    assert Chunker(16, 0, WORDS, 254).name == "structured-1/16/0"


@pytest.mark.parametrize("is_markdown", [False, True])
@pytest.mark.parametrize("unit", ["a", " ", "\u4e2d", "word ", "ab\n", "x=1;", "\U0001f600", ">", "`", "|a|\n|-|\n"])
def test_a_line_without_end_costs_few_counts_of_short_texts(unit: str, is_markdown: bool) -> None:
    read = 0

    def count(text: str) -> int:
        nonlocal read
        read += len(text)
        return WORDS(text)

    text = "x" + unit * (200_000 // len(unit)) + "y"
    whole = document(((), text), is_markdown=is_markdown)
    chunks = Chunker(200, 30, count, 254).split(whole)
    assert not missing(whole, chunks)
    # An unbroken run counts as one word: the bound on characters cuts it.
    assert max(len(chunk.text) for chunk in chunks) <= 200 * 8
    assert read < 30 * len(text)  # trying every cut would read it some thousand times


@pytest.mark.parametrize("is_markdown", [False, True])
def test_where_a_window_ends_does_not_show(is_markdown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (f"w{number}{'.' * (number % 7 == 0)}{'  '[number % 2 :]}" for number in range(4000))
    whole = document(((), "\n\n".join(" ".join(words).split(". "))), is_markdown=is_markdown)
    small = Chunker(32, 8, WORDS, 64).split(whole)
    assert len(whole.text) < 1 << 16
    monkeypatch.setattr("include.rag.chunking._WINDOW", 1)
    assert Chunker(32, 8, WORDS, 64).split(whole) == small
    assert not missing(whole, small)


def test_a_text_that_the_library_panics_at_is_cut_all_the_same() -> None:
    text = "```\n" + " " * 47 + "\n word word - item\n  - i"
    counter = COUNTERS["pairs"]
    with pytest.raises(BaseException, match="Invalid byte sequence"):  # if it no longer does, the fallback can go
        MarkdownSplitter.from_callback(counter, 35, overlap=17).chunk_indices(text)
    whole = document(((), text), title="", is_markdown=True)
    chunks = Chunker(35, 17, counter, 80).split(whole)
    assert len(chunks) > 1
    assert not missing(whole, chunks)


@pytest.mark.parametrize("is_markdown", [False, True])
def test_the_real_tokenizer_agrees(is_markdown: bool) -> None:
    embedder = get_embedder("minilm")
    text = "The scheduler's naïve loop (v3.3.1) re-parses `dag_bundle`; 中文 also counts.\n" * 40
    whole = document((("Loop",), text), title="Scheduler", is_markdown=is_markdown)
    chunks = Chunker(200, 0, embedder.count_tokens, embedder.limit_tokens).split(whole)
    sizes = [embedder.count_tokens(chunk.for_embedding(whole.title)) for chunk in chunks]
    assert not missing(whole, chunks)
    assert max(sizes) <= 200
    assert min(sizes[:-1]) > 150  # chunks are full, not merely small enough
