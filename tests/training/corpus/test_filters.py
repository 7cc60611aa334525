"""The filters: what they keep, what they drop, and why."""

from __future__ import annotations

import base64
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.training.corpus.config import CurationConfig
from include.training.corpus.filters import (
    UNDETERMINED,
    Filters,
    alphabetic_share,
    duplicate_line_share,
    mean_word,
    normalise,
    prose,
)
from tests.training.corpus.texts import CHINESE, GERMAN, HINDI, english, gibberish

CODE = "\n".join(f"result_{n} = compute(values[{n}], limit={n}, names=[first, second])" for n in range(40))
TABLE = "\n".join(f"| {n} | {n * 3.7:.2f} | {n**3} |" for n in range(60))
BASE64 = base64.encodebytes(random.Random(1).randbytes(1500)).decode()
MARKDOWN = f"# Title\n\n{english(1, 60)}\n\n```python\n{CODE}\n```\n\n- [a link](https://example.com/x) and `code`\n"


def reason(text: str, **settings: object) -> str | None:
    verdict, _ = Filters(CurationConfig(**settings)).verdict(normalise(text))
    return verdict.reason if verdict else None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (english(1), None),
        (MARKDOWN, None),
        (CODE, None),  # is in no language, so in none that is not wanted
        ("", "empty"),
        (" \n\t\n", "empty"),
        ("Too short to learn from.", "too_short"),
        (english(2, 1000), "too_long"),
        (GERMAN, "other_language"),
        (CHINESE, "other_language"),
        (HINDI, "other_language"),
        (f"```\n{english(3, 20)}\n```\n{GERMAN}", "other_language"),
        (gibberish(1), "no_language"),
        (TABLE, "symbols"),
        ("The same line is here again and again.\n" * 50, "duplicate_lines"),
        (BASE64, "long_words"),
    ],
    ids=str.split(
        "english markdown code empty blank short long german chinese hindi fenced gibberish table repeated base64"
    ),
)
def test_each_reason(text: str, expected: str | None) -> None:
    assert reason(text, max_characters=4_000) == expected


def test_wanted_languages_are_kept_and_any_keeps_all() -> None:
    assert reason(GERMAN, languages=["en", "de"]) is None
    assert reason(CHINESE, languages=["zh"]) is None
    assert reason(HINDI, languages=["hi"]) is None
    assert reason(english(1), languages=["de"]) == "other_language"
    for text in (GERMAN, CHINESE, HINDI, gibberish(1)):
        assert reason(text, languages=["any"], min_characters=100) is None


def test_a_source_that_tells_its_language_is_believed() -> None:
    filters = Filters(CurationConfig())
    assert filters.verdict(GERMAN, "en") == (None, "en")
    verdict, language = filters.verdict(english(1), "de")
    assert (verdict and verdict.reason, language) == ("other_language", "de")
    assert filters.verdict(CODE) == (None, UNDETERMINED)


def test_gibberish_is_no_language_nearly_always() -> None:
    found = [reason(gibberish(number)) for number in range(100)]
    assert sum(one in ("no_language", "other_language") for one in found) >= 97
    assert [reason(english(number)) for number in range(100)] == [None] * 100


def test_normalise_says_what_it_does() -> None:
    assert normalise("\ufeff \r\n\n  Caf\u0065\u0301\r\nx\x00\x07y\x85z\u2028\td\ud800e  \n\n") == "  Café\nxy\nz\n\tde"
    assert normalise("ﬁ Ａ ①") == "ﬁ Ａ ①"  # differ in more than their encoding
    assert normalise("a" + "\u0301" * 100_000) == "á" + "\u0301" * 29


@given(st.text(st.characters(), max_size=60))
def test_normalise_twice_is_once(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    once.encode()


def test_no_text_makes_the_filters_slow() -> None:
    """Each of these made a pattern look from every character to the end; a test that hangs is one that failed."""
    filters = Filters(CurationConfig(min_characters=1, max_characters=2_000_000))
    for bad in ("<", "`", "a", "](", "a b", "=-", "\n ", "a" + " " * 1000, "\u0315\u0300"):
        filters.verdict(normalise(bad * (300_000 // len(bad))))


def test_measures() -> None:
    assert alphabetic_share("ab 12\n") == 0.5
    assert alphabetic_share("Größe हिन्दी") == 1.0
    assert alphabetic_share("ab\n" + "=" * 70) == 1.0  # a rule is no content
    assert duplicate_line_share("a\n\n b\na\nc") == 0.25
    assert mean_word("ab abcd") == 3.0
    assert (alphabetic_share(" "), duplicate_line_share("\n"), mean_word(" ")) == (0, 0, 0)


def test_prose_is_words_alone() -> None:
    text = (
        "# The title of it\n\nSee `code_here` and https://example.com/a/b for the details, the details.\n12, 13, 14\n"
    )
    assert prose(text) == "the title of it see and for details"
