"""What each loader keeps, what it drops, and how it refuses what it cannot read exactly."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.errors import DocumentError
from include.rag.load import SUFFIXES, Document, Section, load


def sections(text: str, name: str) -> list[tuple[tuple[str, ...], str]]:
    return [(section.headings, section.text) for section in load(text.encode(), name).sections]


# Text


def test_text_is_one_section_named_after_its_file() -> None:
    data = b"\xef\xbb\xbfZ\xc3\xbcrich\r\nline\rend\n"
    assert load(data, "a/b/Notes.TXT") == Document(title="Notes", sections=(Section(text="Zürich\nline\nend\n"),))


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
@pytest.mark.parametrize("data", [b"", b" \n\t\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_a_document_without_sections(suffix: str, data: bytes) -> None:
    assert load(data, f"empty{suffix}") == Document(title="empty", sections=())


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (b"caf\xe9 ol", "a.txt", "not utf-8: byte 0xe9 at offset 3"),
        (b"ok\0", "a.md", "binary, not text: NUL byte at offset 2"),
        ("no".encode("utf-16"), "a.txt", "NUL byte at offset 3"),
        (b"%PDF", "a.pdf", r"suffix '.pdf' cannot be read; can be read: .htm .html"),
        (b"x", "README", "suffix '' cannot be read"),
        (b"<p>caf\xe9</p>", "a.html", "not utf-8: byte 0xe9 at offset 6"),
        (b'<meta charset="ascii">\xe9', "a.html", "not ascii: byte 0xe9 at offset 22"),
        (b'<meta charset="klingon">', "a.html", "declares the encoding 'klingon'"),
        (b'<meta charset="base64">', "a.html", "declares the encoding 'base64'"),
    ],
)
def test_what_cannot_be_read_exactly_is_refused_with_the_reason(data: bytes, name: str, message: str) -> None:
    with pytest.raises(DocumentError, match=re.escape(message)):
        load(data, name)


# Markdown


def test_markdown_is_cut_at_both_kinds_of_headings_and_keeps_their_path() -> None:
    text = "before\n\nTop *title*\n===\n\none\n\n## `B` side ##\n\ntwo\n\n### C\n\nthree\n\n## D\n\nfour\n"
    assert load(text.encode(), "x.md").title == "Top title"
    assert sections(text, "x.md") == [
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
    assert sections(f"# Real\n\n{body}", "x.md") == [(("Real",), body)]


def test_a_heading_with_nothing_below_it_is_text() -> None:
    text = "# Questions\n\n## Is PDF read? Not yet.\n\n## Is Markdown?\n\nYes.\n\n# Last words\n"
    assert sections(text, "x.md") == [
        (("Questions",), "Is PDF read? Not yet."),
        (("Questions", "Is Markdown?"), "Yes."),
        ((), "Last words"),
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
def test_front_matter_gives_the_title_and_is_left_out_if_it_is_any(text: str, title: str, body: str) -> None:
    document = load(text.encode(), "x.md")
    assert document.title == title
    assert [section.text for section in document.sections] == [body]


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
    document = load("\n\n".join(lines).encode(), "x.md")
    found = {part for section in document.sections for part in (*section.headings, section.text)}
    assert {f"{heading}{word}" for (_, heading, _), word in zip(blocks, words, strict=True)} <= found
    texts = [section.text for section in document.sections]
    expected = [word for (_, _, has_text), word in zip(blocks, words, strict=True) if has_text]
    assert [text for text in texts if text in words] == expected
    assert ("intro" in texts) == starts_with_text


# HTML

PAGE = """<!DOCTYPE html><html><head><title> The&nbsp;page &amp; more </title><style>p {}</style></head><body>
<nav>menu</nav><!-- hidden --><header>By <b>A</b>uthor</header>
<h1>Guide<a class="headerlink" href="#g">\u00b6</a></h1>
<p>One   &lt;tag&gt; and
<i>more</i>.<br>Next line</p><ul><li>first</li><li>second</li></ul>
<pre>def f():
    return  1</pre>
<h2>Table</h2><table><tr><th>k</th><th>v</th></tr><tr><td>a</td><td>1</td></tr></table>
<script>evil()</script><template><p>unused</p></template><h2>Empty</h2><footer>imprint</footer></body></html>"""


def test_html_keeps_headings_blocks_and_code_and_drops_what_is_not_text() -> None:
    document = load(PAGE.encode(), "x.html")
    assert document.title == "The page & more"
    assert sections(PAGE, "x.html") == [
        ((), "By Author"),
        (("Guide",), "One <tag> and more.\nNext line\n\nfirst\nsecond\n\ndef f():\n    return  1"),
        (("Guide", "Table"), "k | v\na | 1"),
        (("Guide",), "Empty"),
    ]


def test_html_without_title_takes_the_first_heading_then_the_file_name() -> None:
    assert load(b"<h2>Head</h2><p>x", "f.html").title == "Head"
    assert load(b"<p>x", "f.htm").title == "f"


@pytest.mark.parametrize("declaration", ['<meta charset="{}">', '<?xml version="1.0" encoding="{}"?>'])
def test_html_is_read_in_the_encoding_that_it_declares(declaration: str) -> None:
    data = f"{declaration.format('iso-8859-1')}<p>café</p>".encode("latin-1")
    assert load(data, "x.html").sections[0].text == "café"
    assert load(f"{declaration.format('utf-16')}<p>café</p>".encode(), "x.html").sections[0].text == "café"


def test_html_reads_nothing_but_itself(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("SECRET")
    page = f'<!DOCTYPE r [<!ENTITY x SYSTEM "file://{secret}">]><p>a&x;b<img src="file://{secret}"></p>'
    assert "SECRET" not in str(load(page.encode(), "x.html"))


def test_html_nested_beyond_any_recursion_is_read_to_its_end() -> None:
    page = "<div>" * 5000 + "deep" + "</div>" * 5000 + "<p>after</p>"
    assert sections(page, "x.html") == [((), "deep\n\nafter")]


@given(
    st.lists(
        st.sampled_from(["<p>", "</p>", "<b>", "</div>", "<td>", "<pre>", "<h3>", "<br>", "&#0;", "<"]), max_size=30
    )
)
def test_broken_html_loses_no_word(tags: list[str]) -> None:
    words = [f"word{number}" for number in range(len(tags))]
    page = " ".join(f"{tag} {word}" for tag, word in zip(tags, words, strict=True))
    document = load(page.encode(), "x.html")
    text = " ".join(" ".join((*section.headings, section.text)) for section in document.sections)
    assert [word for word in words if word not in text.split()] == []


# JSON lines


def test_jsonl_makes_a_section_of_each_record() -> None:
    lines = [
        {"id": 7, "title": "Seven", "text": "a\u2028b", "content": "not this"},
        {"content": "c", "id": ""},
        {"body": "  "},
        {"body": "d", "title": None},
    ]
    data = "\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines).encode()
    assert load(data, "records.ndjson") == Document(
        title="records",
        sections=(
            Section(text="a\u2028b", headings=("Seven",), locator="7"),
            Section(text="c", locator="line 3"),
            Section(text="d", locator="line 7"),
        ),
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{bad", "line 2: not JSON"),
        ("[" * 100_000, "line 2: not JSON"),
        ("[1]", "line 2: list where an object was expected"),
        ('{"t": "x"}', "line 2: none of the fields text, content, body"),
        ('{"text": 3}', "line 2: field 'text' is int, must be a string"),
        ('{"text": "\\ud800"}', "line 2: half a surrogate pair"),
    ],
)
def test_a_broken_record_names_its_line(line: str, message: str) -> None:
    with pytest.raises(DocumentError, match=re.escape(message)):
        load(f'{{"text": "fine"}}\n{line}'.encode(), "x.jsonl")


# All


@given(st.binary(max_size=200), st.sampled_from(sorted(SUFFIXES)))
def test_any_bytes_are_read_or_refused_and_what_is_read_can_be_written(data: bytes, suffix: str) -> None:
    try:
        document = load(data, f"x{suffix}")
    except DocumentError:
        return
    for section in document.sections:
        assert section.text.strip()
        section.text.encode()


@given(st.text(alphabet="ab #`~-=>*\n\t\u00e9\u4e2d[]()", max_size=200))
def test_markdown_of_any_shape_keeps_its_letters(text: str) -> None:
    document = load(text.encode(), "x.md")
    kept = "".join("".join((*section.headings, section.text)) for section in document.sections)
    for letter in "ab\u00e9\u4e2d":
        assert kept.count(letter) >= text.count(letter)
