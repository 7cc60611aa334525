"""Plain text, reStructuredText and Markdown: spans into the file itself, and no word of it lost."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.documents.document import Document, Section
from include.documents.loaders import load
from include.errors import DocumentError
from tests.documents.loaders.files import read


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_is_one_section_named_after_its_file(encoding: str) -> None:
    data = " Zürich\r\nline\rend\n".encode(encoding)
    assert load(data, "a/b/Notes.TXT") == Document(
        title="Notes", text=" Zürich\nline\nend\n", sections=(Section(start=1, end=16),)
    )


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (b"caf\xe9 ol", "a.txt", "not utf-8: byte 0xe9 at offset 3"),
        (b"ok\0", "a.md", "binary, not text: NUL byte at offset 2"),
        (b"a;b\ncaf\xe9;1", "a.csv", "not utf-8: byte 0xe9 at offset 7"),
        ("no".encode("utf-16") + b"x", "a.txt", "not utf-16: byte 0x78 at offset 6"),
        ("a\0".encode("utf-16"), "a.txt", "binary, not text: NUL character at 1"),
    ],
)
def test_what_cannot_be_read_exactly_is_refused_with_the_reason(data: bytes, name: str, message: str) -> None:
    with pytest.raises(DocumentError, match=re.escape(message)) as raised:
        load(data, name)
    assert raised.value.fault == "not_text"


# Markdown


def test_markdown_is_cut_at_both_kinds_of_headings_and_keeps_their_path() -> None:
    text = "before\n\nTop *title*\n===\n\none\n\n## `B` side ##\n\ntwo\n\n### C\n\nthree\n\n## D\n\nfour\n"
    document = load(text.encode(), "x.md")
    assert (document.title, document.text, document.is_markdown) == ("Top title", text, True)
    assert read(text, "x.md") == [
        ((), "before"),
        (("Top title",), "one"),
        (("Top title", "B side"), "two"),
        (("Top title", "B side", "C"), "three"),
        (("Top title", "D"), "four"),
    ]


def test_markdown_headings_in_code_quotes_and_lists_are_text() -> None:
    body = (
        "```sh\n# not a heading\n## nor this\n```\n\n    # indented code\n\n> # quoted\n\n- # listed\n\n~~~\n# no end"
    )
    assert read(f"# Real\n\n{body}", "x.md") == [(("Real",), body)]


def test_a_heading_with_nothing_below_it_is_text() -> None:
    text = (
        "# Questions\n\n## Is PDF read? *Yes.*\n\n## Is Markdown?\n\nYes.\n\n# <a id='x'></a> Last\n\nTwo\nlines\n===\n"
    )
    assert read(text, "x.md") == [
        (("Questions",), "Is PDF read? *Yes.*"),
        (("Questions", "Is Markdown?"), "Yes."),
        ((), "<a id='x'></a> Last"),
        ((), "Two\nlines"),
    ]


@pytest.mark.parametrize(
    ("text", "title", "body"),
    [
        ("---\ntitle: 'A: b'\ntags: [x]\n---\n\nbody\n", "A: b", "body"),
        ("---\ntags: [x]\n---\n# H\nbody", "H", "body"),
        ("---\ntitle: 2024-99-99\n...\nbody", "x", "---\ntitle: 2024-99-99\n...\nbody"),  # no date, so no YAML
        ("---\nbody", "x", "---\nbody"),
        ("---\n\nnot a mapping\n\n---\nbody", "x", "---\n\nnot a mapping\n\n---\nbody"),
    ],
)
def test_front_matter_gives_the_title_and_is_in_no_section_if_it_is_any(text: str, title: str, body: str) -> None:
    document = load(text.encode(), "x.md")
    assert (document.title, document.text) == (title, text)
    assert [found for _, found in read(text, "x.md")] == [body]


@given(
    st.lists(st.tuples(st.integers(1, 6), st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.booleans()), max_size=12),
    st.booleans(),
)
def test_markdown_loses_no_word_and_nests_headings_by_level(
    blocks: list[tuple[int, str, bool]], starts_with_text: bool
) -> None:
    words = [f"w{number}" for number in range(len(blocks))]
    lines = ["intro"] if starts_with_text else []
    for (level, heading, has_text), word in zip(blocks, words, strict=True):
        lines += [f"{'#' * level} {heading}{word}", word if has_text else ""]
    sections = read("\n\n".join(lines), "x.md")
    found = {part for headings, text in sections for part in (*headings, text)}
    assert {f"{heading}{word}" for (_, heading, _), word in zip(blocks, words, strict=True)} <= found
    texts = [text for _, text in sections]
    expected = [word for (_, _, has_text), word in zip(blocks, words, strict=True) if has_text]
    assert [text for text in texts if text in words] == expected
    assert ("intro" in texts) == starts_with_text


@given(st.text(alphabet="ab #`~-=>*\n\t\u00e9\u4e2d[]()", max_size=200))
def test_markdown_of_any_shape_keeps_its_letters(text: str) -> None:
    kept = "".join("".join((*headings, body)) for headings, body in read(text, "x.md"))
    # Where a link in a heading leads to is markup; all else stays.
    text = re.sub(r"\]\([^\n]*\)", "]()", text)
    for letter in "ab\u00e9\u4e2d":
        assert kept.count(letter) >= text.count(letter)


# reStructuredText


def test_rst_titles_are_headings_by_the_order_their_styles_come_in() -> None:
    text = (
        "before\n\n=====\n Top\n=====\n\n.. note:: one\n\nB side\n------\ntwo::\n\n    Code\n    ----\n\n"
        "Sub\n~~~\n\nC\n--\nD\n---\n\nfour\n---\n\n.. include:: /etc/passwd\n"
    )
    document = load(text.encode(), "x.rst")
    assert (document.title, document.text, document.is_markdown) == ("Top", text, False)
    assert read(text, "x.rst") == [
        ((), "before"),
        (("Top",), ".. note:: one"),
        (("Top", "B side"), "two::\n\n    Code\n    ----"),
        (("Top", "B side"), "Sub"),
        (("Top",), "C"),
        (("Top", "D"), "four\n---\n\n.. include:: /etc/passwd"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "=====  =====\nA      B\n=====  =====\n1      2\n=====  =====",
        "+---+---+\n| a | b |\n+---+---+",
        "para\nof two\n----",
        "above\n\n-----\n\nbelow",
        "too long for it\n---",
        "====\nwrong\n-----",
        "-----\n=====",
    ],
)
def test_rst_tables_rules_and_paragraphs_are_text(text: str) -> None:
    assert read(text, "x.rst") == [((), text)]


@given(st.lists(st.sampled_from(["word", "==", "----", "====", "", " in", "~", "--  --"]), max_size=15))
def test_rst_of_any_shape_keeps_its_words(lines: list[str]) -> None:
    sections = read("\n".join(lines), "x.rst")
    kept = " ".join(" ".join((*headings, text)) for headings, text in sections)
    assert kept.split().count("word") >= lines.count("word")
    assert kept.split().count("in") >= lines.count(" in")
