"""PDF: pages, bookmarks, running lines, hyphens, and the ways in which a file can be unfit."""

from __future__ import annotations

import logging
import zlib

import pytest

from include.documents.loaders import load
from include.errors import DocumentError
from tests.documents.loaders.files import bare_pdf, located, pdf, read


def test_a_page_is_a_section_with_its_number() -> None:
    document = load(pdf([["First page", "caf\xe9"], [], ["Third (page)"]], title="A study"), "x.pdf")
    assert (document.title, document.text, document.is_markdown) == (
        "A study",
        "First page\ncaf\xe9\n\nThird (page)",
        False,
    )
    assert [(section.page, section.locator) for section in document.sections] == [(1, "page 1"), (3, "page 3")]


@pytest.mark.parametrize("title", ["", "Microsoft Word - draft", "thesis.tex", "Untitled", "  "])
def test_a_title_that_a_program_put_there_is_none(title: str) -> None:
    assert load(pdf([["text"]], title=title), "name.pdf").title == "name"


def test_bookmarks_are_headings_of_the_pages_they_cover() -> None:
    pages = [[f"page {word}"] for word in ("one", "two", "three", "four", "five", "six")]
    bookmarks = [("A", 1, 0), ("A.1", 1, 1), ("A.2", 3, 1), ("B", 4, 0), ("C", 4, 0)]
    assert [headings for headings, _ in read(pdf(pages, bookmarks), "x.pdf")] == [
        (),
        ("A",),  # where A and A.1 begin
        ("A", "A.1"),
        ("A", "A.2"),
        (),  # where B and C begin
        ("C",),
    ]


def page_with_frame(number: int, body: str) -> list[str]:
    return ["ACME report", "Secret", body, body.upper(), body.title(), f"Page {number} of 9"]


def test_running_headers_and_footers_are_left_out() -> None:
    words = ["apple", "pear", "plum", "fig"]
    pages = [page_with_frame(number, word) for number, word in enumerate(words, start=1)]
    assert [text for _, text in read(pdf(pages), "x.pdf")] == [f"{w}\n{w.upper()}\n{w.title()}" for w in words]


def test_lines_of_few_pages_and_of_half_of_the_pages_are_text() -> None:
    three = [page_with_frame(number, "body") for number in range(3)]
    assert read(pdf(three), "x.pdf")[2][1].startswith("ACME report\nSecret\nbody")
    half = [["Header", word] if word in "ab" else [word] for word in "abcd"]
    assert [text for _, text in read(pdf(half), "x.pdf")] == ["Header\na", "Header\nb", "c", "d"]


def test_a_line_in_the_middle_of_every_page_is_text() -> None:
    pages = [
        [f"{'abcdefgh'[n] * (i + 1)}" for i in range(3)] + ["same"] + ["xyzuvwst"[n] * (i + 1) for i in range(3)]
        for n in range(5)
    ]
    assert all("same" in text for _, text in read(pdf(pages), "x.pdf"))


def test_pages_that_are_all_alike_are_kept() -> None:
    assert [text for _, text in read(pdf([["label 1"], ["label 2"], ["label 3"], ["label 4"]]), "x.pdf")] == [
        "label 1",
        "label 2",
        "label 3",
        "label 4",
    ]


def test_words_that_a_line_end_cuts_are_joined_and_other_hyphens_stay() -> None:
    lines = ["an exam-", "ple of New-", "York and 3-", "fold, A-", "b - c"]
    assert read(pdf([lines]), "x.pdf") == [((), "an example of New-\nYork and 3-\nfold, A-\nb - c")]


def test_an_empty_password_opens_and_any_other_is_refused() -> None:
    assert located(pdf([["text"]], passwords=("", "owner")), "x.pdf") == [("page 1", "text")]
    with pytest.raises(DocumentError, match="encrypted with a password") as raised:
        load(pdf([["text"]], passwords=("user", "owner")), "x.pdf")
    assert raised.value.fault == "encrypted"


def test_a_pdf_without_text_is_a_document_without_sections() -> None:
    assert load(pdf([[], []]), "scan.pdf").sections == ()


@pytest.mark.parametrize("data", [b"%PDF-1.7\n", b"garbage", pdf([["text"]])[:100], b"\x00" * 300])
def test_a_torn_pdf_is_refused_without_a_word_in_the_log(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(DocumentError) as raised:
        load(data, "x.pdf")
    assert raised.value.fault == "malformed"
    assert caplog.records == []


def test_a_page_that_cannot_be_read_is_set_aside_and_the_others_are_read() -> None:
    unknown = b"/Filter/NoSuchCode>>stream"
    document = load(bare_pdf([["first"], ["second"]]).replace(b">>stream", unknown, 1), "x.pdf")
    assert document.text == "second"
    assert [section.page for section in document.sections] == [2]
    [reject] = document.rejects
    assert reject.locator == "page 1"
    assert "NoSuchCode" in reject.reason
    with pytest.raises(DocumentError, match=r"no page can be read: page 1: .*NoSuchCode"):
        load(bare_pdf([["first"], ["second"]]).replace(b">>stream", unknown), "x.pdf")


@pytest.mark.parametrize(
    ("sound", "broken", "title", "headings"),
    [(b"/Count 0", b"/Count /x", "T", ()), (b"/Info", b"/Info 1 /X", "x", ("A",))],
)
def test_broken_bookmarks_and_properties_do_not_cost_the_text(
    sound: bytes, broken: bytes, title: str, headings: tuple[str, ...]
) -> None:
    data = pdf([["text"]], [("A", 0, 0)], title="T")
    assert (load(data, "x.pdf").title, read(data, "x.pdf")) == ("T", [(("A",), "text")])
    data = data.replace(sound, broken)
    assert (load(data, "x.pdf").title, read(data, "x.pdf")) == (title, [(headings, "text")])


def test_a_bomb_within_a_page_is_refused() -> None:
    bomb = zlib.compress(b" " * 100_000_000, 9)
    content = b"<</Length %d/Filter/FlateDecode>>stream\n%b\nendstream" % (len(bomb), bomb)
    head, _, rest = bare_pdf([["text"]]).partition(b"<</Length")
    data = head + content + rest.partition(b"endstream")[2]
    assert len(data) < 200_000
    with pytest.raises(DocumentError, match="unpacks to more than is read") as raised:
        load(data, "x.pdf")
    assert raised.value.fault == "size_limit"
