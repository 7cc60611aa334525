"""Small files of the rich formats, made of what a test says."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Any
from xml.sax.saxutils import escape

from include.documents.loaders import load

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_TYPES = "http://schemas.openxmlformats.org/package/2006/content-types"
_MATH = "http://schemas.openxmlformats.org/officeDocument/2006/math"


def read(data: bytes | str, name: str) -> list[tuple[tuple[str, ...], str]]:
    """Headings and text of each section."""
    document = load(data.encode() if isinstance(data, str) else data, name)
    return [(section.headings, document.text[section.start : section.end]) for section in document.sections]


def located(data: bytes, name: str) -> list[tuple[str | None, str]]:
    """Locator and text of each section."""
    document = load(data, name)
    return [(section.locator, document.text[section.start : section.end]) for section in document.sections]


def zipped(parts: Mapping[str, bytes | str]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return target.getvalue()


def paragraph(text: str, style: str = "") -> str:
    look = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f'<w:p>{look}<w:r><w:t xml:space="preserve">{escape(text)}</w:t></w:r></w:p>'


def docx_parts(body: str, title: str = "", doctype: str = "") -> dict[str, bytes | str]:
    """The parts of a Word file; `body` is the XML of its paragraphs."""
    styles = "".join(
        f'<w:style w:type="paragraph" w:styleId="{name.replace(" ", "")}"><w:name w:val="{name}"/></w:style>'
        for name in ("Title", "heading 1", "heading 2")
    )
    core = '<cp:coreProperties xmlns:cp="c" xmlns:dc="http://purl.org/dc/elements/1.1/">'
    return {
        "[Content_Types].xml": f'<Types xmlns="{_TYPES}"><Default Extension="xml" ContentType="application/xml"/>'
        "</Types>",
        "_rels/.rels": f'<Relationships xmlns="{_RELATIONS}"><Relationship Id="r1" Type="{_OFFICE}/officeDocument" '
        'Target="word/document.xml"/></Relationships>',
        "word/_rels/document.xml.rels": f'<Relationships xmlns="{_RELATIONS}"><Relationship Id="r2" '
        f'Type="{_OFFICE}/styles" Target="styles.xml"/></Relationships>',
        "word/styles.xml": f'<w:styles xmlns:w="{WORD}">{styles}</w:styles>',
        "word/document.xml": f'{doctype}<w:document xmlns:w="{WORD}" xmlns:m="{_MATH}"><w:body>{body}</w:body>'
        "</w:document>",
        "docProps/core.xml": f"{core}<dc:title>{escape(title)}</dc:title></cp:coreProperties>",
    }


def docx(body: str, title: str = "", doctype: str = "") -> bytes:
    return zipped(docx_parts(body, title, doctype))


def xlsx(sheets: Mapping[str, Sequence[Sequence[object]]], formats: Mapping[str, str] | None = None) -> bytes:
    """A workbook; `formats` are number formats of the first sheet's cells, such as {"B2": "0%"}."""
    from openpyxl import Workbook

    book = Workbook()
    book.remove(book.worksheets[0])
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(list(row))
    for cell, number_format in (formats or {}).items():
        book.worksheets[0][cell].number_format = number_format
    target = io.BytesIO()
    book.save(target)
    return target.getvalue()


def pptx(fill: Callable[[Any], None]) -> bytes:
    """A deck; `fill` is given the empty one."""
    from pptx import Presentation

    deck = Presentation()
    fill(deck)
    target = io.BytesIO()
    deck.save(target)
    return target.getvalue()


def parquet(columns: Mapping[str, Sequence[object]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    target = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), target)
    return target.getvalue()


def pdf(
    pages: Sequence[Sequence[str]],
    bookmarks: Sequence[tuple[str, int, int]] = (),
    title: str = "",
    passwords: tuple[str, str] | None = None,
) -> bytes:
    """A PDF of the pages' lines; bookmarks are (title, page from 0, depth), passwords the user's and the owner's."""
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(bare_pdf(pages))))
    above: list[Any] = []
    for name, page, depth in bookmarks:
        above[depth:] = [writer.add_outline_item(name, page, parent=above[depth - 1] if depth else None)]
    if title:
        writer.add_metadata({"/Title": title})
    if passwords is not None:
        writer.encrypt(*passwords, algorithm="AES-256")
    target = io.BytesIO()
    writer.write(target)
    return target.getvalue()


def bare_pdf(pages: Sequence[Sequence[str]]) -> bytes:
    """The pages' lines and nothing else: objects 1 to 3 are the catalogue, the tree of pages and the font, then come a
    page and its content in turns."""
    kids = " ".join(f"{4 + 2 * index} 0 R" for index in range(len(pages)))
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Count {len(pages)}/Kids[{kids}]>>".encode(),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
    ]
    for index, lines in enumerate(pages):
        shown = " ".join(f"({_pdf_string(line)}) Tj T*" for line in lines)
        content = f"BT /F 12 Tf 14 TL 50 750 Td {shown} ET".encode("cp1252")
        objects.append(
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents {5 + 2 * index} 0 R"
            "/Resources<</Font<</F 3 0 R>>>>>>".encode()
        )
        objects.append(b"<</Length %d>>stream\n%b\nendstream" % (len(content), content))
    data = b"%PDF-1.7\n"
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    trailer = b"trailer\n<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (size, len(data))
    return data + b"xref\n0 %d\n0000000000 65535 f \n" % size + table + trailer


def _pdf_string(line: str) -> str:
    return line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")


def samples() -> dict[str, bytes]:
    """A file of each rich format that says the word `sentinel`."""
    from email.message import EmailMessage

    def fill(deck: Any) -> None:
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text, slide.placeholders[1].text = "Deck", "sentinel"

    message = EmailMessage()
    message["Subject"] = "Hello"
    message.set_content("sentinel")
    message.add_attachment(b"a,b\n1,2\n", maintype="text", subtype="csv", filename="t.csv")
    return {
        ".docx": docx(paragraph("Head", "heading1") + paragraph("sentinel")),
        ".pptx": pptx(fill),
        ".xlsx": xlsx({"S": [["Name", "When", "At"], ["sentinel", date(2024, 1, 2), datetime(2024, 1, 2, 3)]]}),
        ".parquet": parquet({"name": ["sentinel"], "value": [1]}),
        ".pdf": pdf([["sentinel"]], [("Mark", 0, 0)]),
        ".eml": message.as_bytes(),
    }
