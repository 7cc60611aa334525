"""HTML: headings, blocks and code stay; what surrounds the content of every page of a site goes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.documents.loaders import load
from include.errors import DocumentError
from tests.documents.loaders.files import read

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
    assert (document.title, document.is_markdown) == ("The page & more", False)
    assert document.text.startswith("By Author\n\nGuide\n\nOne <tag>")
    assert read(PAGE, "x.html") == [
        ((), "By Author"),
        (("Guide",), "One <tag> and more.\nNext line\n\nfirst\nsecond\n\ndef f():\n    return  1"),
        (("Guide", "Table"), "k | v\na | 1"),
        (("Guide",), "Empty"),
    ]


def test_html_without_title_takes_the_first_heading_then_the_file_name() -> None:
    assert load(b"<h2>Head</h2><p>x", "f.html").title == "Head"
    assert load(b"<p>x", "f.htm").title == "f"


@pytest.mark.parametrize(
    "around",
    [
        "<nav>X</nav>",
        "<footer>X</footer>",
        "<aside>X</aside>",
        "<div role='navigation'>X</div>",
        "<div role='banner'>X</div>",
        "<div role='contentinfo'>X</div>",
        "<form role='search'>X</form>",
        "<div role='dialog'>X</div>",
        "<dialog>X</dialog>",
        "<p hidden>X</p>",
        "<p aria-hidden='true'>X</p>",
        "<p style='color: red; display : none'>X</p>",
        "<p style='visibility:hidden'>X</p>",
        "<script>X</script>",
        "<h2 hidden>X</h2>",
    ],
)
def test_boilerplate_is_left_out_unless_it_is_all_there_is(around: str) -> None:
    assert read(f"<body>{around}<p>text</p></body>", "x.html") == [((), "text")]
    alone = [" ".join((*headings, text)) for headings, text in read(f"<body>{around}</body>", "x.html")]
    assert alone == ([] if "script" in around else ["X"])


@pytest.mark.parametrize(
    "kept",
    [
        "<p hidden='until-found'>X</p>",
        "<dialog open>X</dialog>",
        "<p aria-hidden='false'>X</p>",
        "<p style='display:block'>X</p>",
        "<header>X</header>",
    ],
)
def test_what_only_looks_like_boilerplate_stays(kept: str) -> None:
    assert read(f"<body>{kept}<p>text</p></body>", "x.html") == [((), "X\n\ntext")]


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<div>out</div><main><header>in</header>text</main>", "in\n\ntext"),
        ("<div>out</div><div role=main>text</div>", "text"),
        ("<div>out</div><article>text<article>reply</article></article>", "text\n\nreply"),
        ("<header>out</header><article><header>in</header></article><article>b</article><p>c", "in\n\nb\n\nc"),
        ("<div>a</div><main>b</main><main>c</main>", "a\n\nb\n\nc"),
        ("<div>out</div><main hidden>no</main><main>b</main>", "b"),
        ("<div>whole</div><main> </main>", "whole"),
    ],
)
def test_the_one_main_or_article_is_the_content(page: str, text: str) -> None:
    assert read(page, "x.html") == [((), text)]


@pytest.mark.parametrize("declaration", ['<meta charset="{}">', '<?xml version="1.0" encoding="{}"?>'])
def test_html_is_read_in_the_encoding_that_it_declares(declaration: str) -> None:
    data = f"{declaration.format('iso-8859-1')}<p>“café”</p>".encode("cp1252")
    assert read(data, "x.html") == [((), "“café”")]
    assert read(f"{declaration.format('koi8-r')}<p>да</p>".encode("koi8-r"), "x.html") == [((), "да")]
    assert read(f"{declaration.format('utf-16')}<p>café</p>", "x.html") == [((), "café")]
    assert read(f"{declaration.format('utf-8')}<p>café</p>".encode("utf-16"), "x.html") == [((), "café")]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<p>caf\xe9</p>", "not utf-8: byte 0xe9 at offset 6"),
        (b'<meta charset="ascii">\x81', "not cp1252: byte 0x81 at offset 22"),
        (b'<meta charset="klingon">', "declares the encoding 'klingon'"),
        (b'<meta charset="base64">', "declares the encoding 'base64'"),
        (b'<meta charset="unicode_escape">\\ud800', "half a surrogate pair"),
    ],
)
def test_html_that_cannot_be_read_exactly_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(DocumentError, match=re.escape(message)) as raised:
        load(data, "x.html")
    assert raised.value.fault == "not_text"


def test_html_reads_nothing_but_itself(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("SECRET")
    page = f'<!DOCTYPE r [<!ENTITY x SYSTEM "file://{secret}">]><p>a&x;b<img src="file://{secret}"></p>'
    assert "SECRET" not in str(load(page.encode(), "x.html"))


def test_html_nested_beyond_any_recursion_is_read_to_its_end() -> None:
    page = "<div>" * 5000 + "deep" + "</div>" * 5000 + "<p>after</p>"
    assert read(page, "x.html") == [((), "deep\n\nafter")]


@given(
    st.lists(
        st.sampled_from(["<p>", "</p>", "<b>", "</div>", "<td>", "<pre>", "<h3>", "<br>", "&#0;", "<"]), max_size=30
    )
)
def test_broken_html_loses_no_word(tags: list[str]) -> None:
    words = [f"word{number}" for number in range(len(tags))]
    page = " ".join(f"{tag} {word}" for tag, word in zip(tags, words, strict=True))
    kept = " ".join(" ".join((*headings, text)) for headings, text in read(page, "x.html")).split()
    assert [word for word in words if word not in kept] == []
