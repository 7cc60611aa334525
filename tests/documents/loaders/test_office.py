"""Word and PowerPoint: structure kept as Markdown, and nothing that an archive of XML can do to its reader."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest

from include.documents.loaders import archive, load
from include.errors import DocumentError
from tests.documents.loaders.files import docx, docx_parts, paragraph, pptx, read, samples, xlsx, zipped


def test_word_headings_tables_and_lists_become_markdown() -> None:
    cells = "".join(f"<w:tc>{paragraph(word)}</w:tc>" for word in ("k", "v_1"))
    values = "".join(f"<w:tc>{paragraph(word)}</w:tc>" for word in ("a", "1"))
    body = (
        paragraph("My paper", "Title")
        + paragraph("before")
        + paragraph("Top", "heading1")
        + paragraph("one * two")
        + paragraph("Sub", "heading2")
        + f"<w:tbl><w:tr>{cells}</w:tr><w:tr>{values}</w:tr></w:tbl>"
        + paragraph("Empty", "heading2")
    )
    document = load(docx(body), "x.docx")
    assert (document.title, document.is_markdown) == ("My paper", True)
    assert read(docx(body), "x.docx") == [
        ((), "My paper\n\nbefore"),
        (("Top",), "one * two"),
        (("Top", "Sub"), "| k | v_1 |\n| --- | --- |\n| a | 1 |"),
        (("Top",), "Empty"),
    ]


@pytest.mark.parametrize(
    ("title", "expected"), [("Its title", "Its title"), ("Microsoft Word - x", "Head"), ("", "Head")]
)
def test_a_word_file_is_titled_by_its_properties_or_its_first_heading(title: str, expected: str) -> None:
    assert load(docx(paragraph("Head", "heading1") + paragraph("text"), title), "x.docx").title == expected


def test_equations_links_within_and_deleted_text() -> None:
    def run(text: str) -> str:
        return f"<w:r><w:t>{text}</w:t></w:r>"

    math = "<m:oMath><m:r><m:t>E=m</m:t></m:r><m:sSup><m:e><m:r><m:t>c</m:t></m:r></m:e><m:sup><m:r><m:t>2</m:t></m:r>"
    math += "</m:sup></m:sSup></m:oMath>"
    body = (
        f"<w:p>{run('so ')}{math}<m:oMathPara>{math}</m:oMathPara></w:p>"
        f'<w:p><w:hyperlink w:anchor="there">{run("see there")}</w:hyperlink></w:p>'
        f"<w:p><w:del><w:r><w:delText>gone</w:delText></w:r></w:del><w:ins>{run('kept')}</w:ins></w:p>"
    )
    assert read(docx(body), "x.docx") == [((), "so E=mc2E=mc2\n\nsee there\n\nkept")]


def fill_deck(deck: Any) -> None:
    from pptx.chart.data import CategoryChartData
    from pptx.enum.chart import XL_CHART_TYPE
    from pptx.util import Inches

    title_and_content, blank = deck.slide_layouts[1], deck.slide_layouts[6]
    first = deck.slides.add_slide(title_and_content)
    first.shapes.title.text, first.placeholders[1].text = "First\vslide", "point one\npoint two"
    first.notes_slide.notes_text_frame.text = "say this"
    second = deck.slides.add_slide(blank)
    box = second.shapes.add_textbox(0, Inches(5), Inches(1), Inches(1))
    box.text_frame.text = "below"
    group = second.shapes.add_group_shape()
    group.shapes.add_textbox(0, Inches(1), Inches(1), Inches(1)).text_frame.text = "grouped"
    table = second.shapes.add_table(2, 2, 0, Inches(3), Inches(2), Inches(1)).table
    for row, column, text in ((0, 0, "k"), (0, 1, "v"), (1, 0, "a"), (1, 1, "1\n2")):
        table.cell(row, column).text = text
    data = CategoryChartData()
    data.categories = ["x", "y"]
    data.add_series("sold", (1.5, None))
    where = (0, Inches(6), Inches(2), Inches(2))
    second.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, *where, data)
    last = deck.slides.add_slide(title_and_content)
    last.shapes.title.text = "Only a title"


def test_slides_are_sections_under_their_titles_with_notes_tables_and_charts() -> None:
    data = pptx(fill_deck)
    document = load(data, "deck.pptx")
    assert (document.title, document.is_markdown, document.rejects) == ("First slide", True, ())
    assert read(data, "deck.pptx") == [
        (("First slide",), "point one\npoint two\n\nNotes: say this"),
        (
            (),
            "grouped\n\n| k | v |\n| --- | --- |\n| a | 1 2 |\n\nbelow\n\n"
            "|  | sold |\n| --- | --- |\n| x | 1.5 |\n| y |  |",
        ),
        ((), "Only a title"),
    ]
    assert [(section.page, section.locator) for section in document.sections] == [
        (1, "slide 1"),
        (2, "slide 2"),
        (3, "slide 3"),
    ]


def test_the_words_of_a_diagram_are_kept() -> None:
    from pptx.opc.package import Part
    from pptx.opc.packuri import PackURI
    from pptx.oxml import parse_xml

    main = "http://schemas.openxmlformats.org/drawingml/2006/main"
    relations = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    diagram = "http://schemas.openxmlformats.org/drawingml/2006/diagram"

    def fill(deck: Any) -> None:
        slide = deck.slides.add_slide(deck.slide_layouts[6])
        words = f'<d xmlns:a="{main}"><a:t>plan</a:t><a:t> </a:t><a:t>do</a:t></d>'.encode()
        part = Part(PackURI("/ppt/diagrams/data1.xml"), "application/xml", slide.part.package, words)
        related = slide.part.relate_to(part, f"{relations}/diagramData")
        frame = slide.shapes.add_table(1, 1, 0, 0, 1, 1)._element
        graphic = f'<a:graphicData xmlns:a="{main}" xmlns:dgm="{diagram}" xmlns:r="{relations}" uri="{diagram}">'
        frame.graphic.replace(
            frame.graphic.graphicData, parse_xml(f'{graphic}<dgm:relIds r:dm="{related}"/></a:graphicData>')
        )

    assert read(pptx(fill), "x.pptx") == [((), "plan\ndo")]


def test_a_chart_that_cannot_be_read_is_set_aside_and_the_rest_is_read() -> None:
    data = pptx(fill_deck)
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        [part] = [name for name in source.namelist() if name.startswith("ppt/charts/chart")]
        chart = source.read(part)
    document = load(changed(data, part, chart.replace(b"c:barChart", b"c:stockChart")), "x.pptx")
    [reject] = document.rejects
    assert (reject.locator, reject.reason.partition(": ")[0]) == ("slide 2", "chart")
    assert "grouped" in document.text
    assert "sold" not in document.text


def changed(data: bytes, part: str, text: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        return zipped({**{name: source.read(name) for name in source.namelist()}, part: text})


MAIN = {".docx": "word/document.xml", ".pptx": "ppt/presentation.xml", ".xlsx": "xl/workbook.xml"}


@pytest.mark.parametrize("suffix", sorted(MAIN))
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_of_xml_are_refused_whatever_they_name(suffix: str, encoding: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("SECRET")
    data, part = samples()[suffix], MAIN[suffix]
    doctype = f'<!DOCTYPE r [<!ENTITY x SYSTEM "file://{secret}">]>'
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        xml = source.read(part).decode().partition("?>")[2] or source.read(part).decode()
    assert read(changed(data, part, f'<?xml version="1.0" encoding="{encoding}"?>{xml}'.encode(encoding)), f"x{suffix}")
    with pytest.raises(DocumentError, match="defines XML entities"):
        load(changed(data, part, f"{doctype}{xml}".encode(encoding)), f"x{suffix}")


def test_entities_of_xml_are_found_in_parts_of_any_name() -> None:
    parts = docx_parts(paragraph("x"), doctype="<!DOCTYPE r [<!ENTITY x 'y'>]>")
    parts["word/other"] = parts.pop("word/document.xml")
    parts["_rels/.rels"] = str(parts["_rels/.rels"]).replace("word/document.xml", "word/other")
    with pytest.raises(DocumentError, match="word/other defines XML entities"):
        load(zipped(parts), "x.docx")


def test_an_encoding_that_could_hide_entities_is_refused() -> None:
    declared = b'<?xml version="1.0" encoding="utf-7"?>'
    with pytest.raises(DocumentError, match="declares the encoding b'utf-7'"):
        load(changed(docx(paragraph("x")), "word/styles.xml", declared), "x.docx")


@pytest.mark.parametrize("suffix", sorted(MAIN))
def test_a_file_that_unpacks_beyond_measure_is_refused(suffix: str) -> None:
    data = samples()[suffix]
    for size, message in ((30_000_000, "times its size"), (archive.MAX_UNPACKED_BYTES + 1, "unpacks to")):
        with pytest.raises(DocumentError, match=message) as raised:
            load(changed(data, "media/zeros", b"\0" * size), f"x{suffix}")
        assert raised.value.fault == "size_limit"
    assert read(changed(data, "media/zeros", b"\0" * 1_000_000), f"x{suffix}")


def test_an_archive_of_too_many_parts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = docx(paragraph("x"))
    monkeypatch.setattr(archive, "MAX_MEMBERS", len(docx_parts("")))
    assert read(data, "x.docx")
    monkeypatch.setattr(archive, "MAX_MEMBERS", len(docx_parts("")) - 1)
    with pytest.raises(DocumentError, match="has 6 parts, at most 5 are read"):
        load(data, "x.docx")


@pytest.mark.parametrize("suffix", sorted(MAIN))
@pytest.mark.parametrize(
    ("data", "message", "fault"),
    [
        (archive._OLE + "EncryptedPackage".encode("utf-16-le"), "encrypted with a password", "encrypted"),
        (archive._OLE + b"Word.Document.8", "of the kind before 2007", "malformed"),
        (zipped({"a": "b"}), "not an Office file", "malformed"),
        (b"PK\x03\x04 torn", "BadZipFile", "malformed"),
        (zipped({"[Content_Types].xml": "<Types/>"}), "cannot be read as", "malformed"),
    ],
)
def test_what_is_no_office_file_is_refused_with_the_reason(suffix: str, data: bytes, message: str, fault: str) -> None:
    with pytest.raises(DocumentError, match=message) as raised:
        load(data, f"x{suffix}")
    assert raised.value.fault == fault


def test_an_encrypted_part_is_told_from_a_torn_one() -> None:
    data = bytearray(docx(paragraph("x")))
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag in the archive's directory
    with pytest.raises(DocumentError, match="encrypted with a password"):
        load(bytes(data), "x.docx")


@pytest.mark.parametrize("suffix", sorted(MAIN))
def test_a_truncated_file_is_refused(suffix: str) -> None:
    data = samples()[suffix]
    for kept in (len(data) // 2, len(data) - 30):
        with pytest.raises(DocumentError):
            load(data[:kept], f"x{suffix}")


def test_a_file_of_another_kind_than_its_suffix_says_is_refused() -> None:
    for name in ("x.docx", "x.pptx"):
        with pytest.raises(DocumentError, match="cannot be read as"):
            load(xlsx({"S": [["a"]]}), name)


def test_word_nested_beyond_any_recursion_is_refused() -> None:
    deep = "<w:sdt><w:sdtContent>" * 5000 + paragraph("x") + "</w:sdtContent></w:sdt>" * 5000
    with pytest.raises(DocumentError, match="nested too deeply"):
        load(docx(deep), "x.docx")
