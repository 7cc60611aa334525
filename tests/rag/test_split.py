"""Every chunk fits, nothing is lost, and the same document always gives the same chunks."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.errors import UserError
from include.models.embeddings import get_embedder
from include.rag.load import Document, Section
from include.rag.split import Chunk, Chunker

WORDS = get_embedder("hashing").count_tokens
COUNTERS: dict[str, Callable[[str], int]] = {
    "words": WORDS,
    "characters": len,
    "bytes": lambda text: len(text.encode()),
    "with special tokens": lambda text: 2 + WORDS(text),
    # As a tokenizer that merges letters into pairs: what is cut in two counts more than the whole, or less.
    "pairs": lambda text: (len(text) + 1) // 2,
    "unknown": lambda text: len(text.split()),
}

texts = st.text(alphabet=st.sampled_from("abc .,;!?\n\t\r-#`\u00e9\u4e2d\u3002\u3000\U0001f600\u200d"), max_size=400)
anything = st.one_of(texts, st.text(max_size=200))
documents = st.builds(
    lambda title, parts: Document(
        title=title, sections=tuple(Section(text=text, headings=tuple(headings)) for headings, text in parts)
    ),
    anything,
    st.lists(st.tuples(st.lists(anything, max_size=3), anything), max_size=4),
)


def letters(text: str) -> str:
    return "".join(text.split())


@settings(deadline=None)
@given(documents, st.sampled_from(sorted(COUNTERS)), st.integers(16, 80), st.floats(0, 0.99))
def test_every_chunk_fits_and_is_numbered_and_repeatable(
    document: Document, counter: str, size: int, overlap: float
) -> None:
    count = COUNTERS[counter]
    chunks = Chunker(size, int(size * overlap), count, 80).split(document)
    assert [chunk.ordinal for chunk in chunks] == list(range(len(chunks)))
    assert all(count(chunk.for_embedding(document.title)) <= size for chunk in chunks)
    assert all(chunk.text.strip() for chunk in chunks)
    assert chunks == Chunker(size, int(size * overlap), count, 80).split(document)


@settings(deadline=None)
@given(anything, st.sampled_from(sorted(COUNTERS)), st.integers(16, 60))
def test_without_overlap_the_chunks_are_the_text(text: str, counter: str, size: int) -> None:
    document = Document(title="t", sections=(Section(text=text),))
    chunks = Chunker(size, 0, COUNTERS[counter], 80).split(document)
    assert letters("".join(chunk.text for chunk in chunks)) == letters(text)


@settings(deadline=None)
@given(anything, st.integers(16, 60), st.integers(1, 15))
def test_with_overlap_every_chunk_is_a_stretch_of_the_text(text: str, size: int, overlap: int) -> None:
    chunks = Chunker(size, overlap, WORDS, 80).split(Document(title="t", sections=(Section(text=text),)))
    place = 0
    for chunk in chunks:
        found = text.find(chunk.text, place)
        assert found >= 0
        place = found
    assert set(letters("".join(chunk.text for chunk in chunks))) == set(letters(text))


def test_consecutive_chunks_share_the_overlap() -> None:
    text = " ".join(f"w{number}" for number in range(200))
    chunks = Chunker(32, 8, WORDS, 64).split(Document(title="t", sections=(Section(text=text),)))
    for one, other in zip(chunks, chunks[1:], strict=False):
        assert one.text.split()[-8:] == other.text.split()[:8]


def test_sections_stay_apart_and_keep_headings_and_locators() -> None:
    document = Document(
        title="Guide",
        sections=(
            Section(text="short one", headings=("Guide", "A")),
            Section(text="short two", headings=("B",), locator="line 2"),
            Section(text=" \n"),
        ),
    )
    chunks = Chunker(64, 8, WORDS, 64).split(document)
    assert [(chunk.text, chunk.headings, chunk.locator) for chunk in chunks] == [
        ("short one", ("Guide", "A"), None),
        ("short two", ("B",), "line 2"),
    ]
    assert [chunk.for_embedding("Guide") for chunk in chunks] == ["Guide > A\nshort one", "Guide > B\nshort two"]
    assert Chunk(ordinal=0, text="alone").for_embedding("") == "alone"


def test_text_is_cut_where_it_breaks_and_code_keeps_its_indentation() -> None:
    prose = "First sentence of it. " + "word " * 12
    code = "def f():\n    if x:\n        return 1\n    return 2"
    document = Document(title="", sections=(Section(text=f"{prose}\n\n{code}"),))
    chunks = Chunker(20, 0, WORDS, 64).split(document)
    assert [chunk.text for chunk in chunks] == [prose.strip(), code]
    lines = [f"    step{number}()" for number in range(8)]
    small = Chunker(16, 0, WORDS, 64).split(Document(title="", sections=(Section(text="\n".join(lines)),)))
    assert [chunk.text for chunk in small] == ["\n".join(lines[:5]), "\n".join(lines[5:])]


def test_a_long_prefix_keeps_its_end_and_leaves_two_thirds() -> None:
    headings = tuple(f"heading{number}" for number in range(50))
    document = Document(title="title", sections=(Section(text="word " * 60, headings=headings),))
    chunks = Chunker(30, 0, WORDS, 64).split(document)
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
    assert Chunker(254, 253, WORDS, 254).name == "recursive-1/254/253"
    assert Chunker(16, 0, WORDS, 254).name == "recursive-1/16/0"


@pytest.mark.parametrize("unit", ["a", " ", "\u4e2d", "word ", "ab\n", "x=1;"])
def test_a_line_without_end_is_cut_within_seconds(unit: str) -> None:
    text = "x" + unit * (200_000 // len(unit))
    started = time.process_time()
    chunks = Chunker(200, 30, WORDS, 254).split(Document(title="t", sections=(Section(text=text),)))
    assert time.process_time() - started < 10  # it takes about 1; trying every cut would take hours
    # An unbroken run counts as one word: the bound on characters cuts it.
    assert max(len(chunk.text) for chunk in chunks) <= 200 * 8


def test_the_real_tokenizer_agrees() -> None:
    embedder = get_embedder("minilm")
    text = "The scheduler's naïve loop (v3.3.1) re-parses `dag_bundle`; 中文 also counts.\n" * 40
    document = Document(title="Scheduler", sections=(Section(text=text, headings=("Loop",)),))
    chunks = Chunker(200, 0, embedder.count_tokens, embedder.limit_tokens).split(document)
    sizes = [embedder.count_tokens(chunk.for_embedding(document.title)) for chunk in chunks]
    assert letters("".join(chunk.text for chunk in chunks)) == letters(text)
    assert max(sizes) <= 200
    assert min(sizes[:-1]) > 150  # chunks are full, not merely small enough
