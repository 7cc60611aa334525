"""Word and PowerPoint files as Markdown, by mammoth and python-pptx, which hand over the structure they find.

markitdown wraps the same two; `import markitdown` also loads a model of file types and its runtime, 3 s and 150 MB in
each process that reads a document.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from include.documents.document import Document, Reject
from include.documents.loaders.archive import open_office
from include.documents.loaders.common import Builder, outline, sensible_title
from include.documents.loaders.text import markdown_blocks

if TYPE_CHECKING:
    from bs4 import Tag

_STYLES = "p[style-name='Title'] => p.title:fresh"


def load_docx(data: bytes, stem: str) -> Document:
    """A section for each stretch of text under a heading, as Markdown with tables, lists and foot notes.

    Left out: images, comments, deleted text, headers and footers of pages, links within the document. Equations are the
    characters they are made of.
    """
    import mammoth
    from bs4 import BeautifulSoup
    from markdownify import ATX, MarkdownConverter

    with open_office(data) as archive:
        title = _core_title(archive)
        source = _with_equations(archive, data)
    # Maps of styles within the file could turn text into scripts; images are not unpacked.
    html = mammoth.convert_to_html(
        io.BytesIO(source), style_map=_STYLES, include_embedded_style_map=False, convert_image=lambda image: []
    ).value
    soup = BeautifulSoup(html, "lxml")
    _drop_inner_links(soup)
    if title is None and (styled := soup.select_one("p.title")):
        title = sensible_title(styled.get_text())
    converter = MarkdownConverter(
        heading_style=ATX,
        bullets="-",
        table_infer_header=True,
        escape_asterisks=False,
        escape_underscores=False,
        escape_misc=False,
    )
    text = converter.convert_soup(soup).strip()
    blocks = markdown_blocks(text)
    first = next((block.heading for block in blocks if block.heading), None)
    return Document(title=title or first or stem, text=text, sections=outline(text, blocks), is_markdown=True)


def _core_title(archive: zipfile.ZipFile) -> str | None:
    if "docProps/core.xml" not in archive.namelist():
        return None
    root = _xml(archive.read("docProps/core.xml"))
    found = root.find("{http://purl.org/dc/elements/1.1/}title")
    return None if found is None else sensible_title(found.text)


def _xml(part: bytes) -> Any:
    from lxml import etree

    return etree.fromstring(part, etree.XMLParser(resolve_entities=False, no_network=True))


def _with_equations(archive: zipfile.ZipFile, data: bytes) -> bytes:
    """The file with equations, which mammoth skips, made plain text."""
    from lxml import etree

    main = "word/document.xml"
    if main not in archive.namelist() or b"oMath" not in (part := archive.read(main)):
        return data
    root = _xml(part)
    word = etree.QName(root).namespace
    is_math = "local-name()='oMathPara' or local-name()='oMath'"
    for math in root.xpath(f"//*[{is_math}][not(ancestor::*[{is_math}])]"):
        run = etree.Element(f"{{{word}}}r")
        text = etree.SubElement(run, f"{{{word}}}t")
        text.text = "".join(math.xpath(".//*[local-name()='t']/text()"))
        math.getparent().replace(math, run)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as copy:
        for name in dict.fromkeys(archive.namelist()):
            copy.writestr(name, etree.tostring(root) if name == main else archive.read(name))
    return target.getvalue()


def _drop_inner_links(soup: Tag) -> None:
    """Links to places in the document lead nowhere in a chunk of it; what they say stays, arrows back from foot notes
    do not."""
    for link in soup.select('a[href^="#"]'):
        if str(link["href"]).startswith(("#footnote-ref", "#endnote-ref")):
            link.decompose()
        else:
            link.unwrap()


def load_pptx(data: bytes, stem: str) -> Document:
    """A section for each slide under its title: text and tables from top to bottom, charts as tables, and the notes.

    A chart that cannot be read is a Reject. Left out: images, and what is on every slide (numbers, dates, footers).
    """
    import pptx

    open_office(data).close()
    deck = pptx.Presentation(io.BytesIO(data))
    builder = Builder()
    titles: list[str] = []
    for number, slide in enumerate(deck.slides, start=1):
        place = f"slide {number}"
        named = slide.shapes.title
        title = " ".join(named.text_frame.text.split()) if named is not None else ""
        titles += [title] if title else []
        skipped = None if named is None else named.shape_id
        parts = [_shape_text(shape, place, builder.rejects) for shape in _shapes(slide.shapes, skipped)]
        if slide.has_notes_slide and (notes := slide.notes_slide.notes_text_frame) and notes.text.strip():
            parts.append(f"Notes: {_plain(notes.text)}")
        body = "\n\n".join(part for part in parts if part.strip())
        if body and title:
            builder.aside(f"# {title}")
        headings = (title,) if body and title else ()
        builder.add(body or title, headings=headings, locator=place, page=number)
    title = sensible_title(deck.core_properties.title) or next(iter(titles), stem)
    return builder.build(title, is_markdown=True)


def _shapes(shapes: Any, title_id: int | None) -> Iterator[Any]:
    """Shapes in the order they are read, those within groups in their place, without the title and furniture."""
    from pptx.enum.shapes import MSO_SHAPE_TYPE, PP_PLACEHOLDER

    furniture = (PP_PLACEHOLDER.SLIDE_NUMBER, PP_PLACEHOLDER.DATE, PP_PLACEHOLDER.FOOTER)
    for shape in sorted(shapes, key=lambda one: (one.top or 0, one.left or 0)):
        if shape.shape_id == title_id or (shape.is_placeholder and shape.placeholder_format.type in furniture):
            continue
        if shape.shape_type == MSO_SHAPE_TYPE.GROUP:
            yield from _shapes(shape.shapes, title_id)
        else:
            yield shape


def _shape_text(shape: Any, place: str, rejects: list[Reject]) -> str:
    if shape.has_text_frame:
        return _plain(shape.text_frame.text)
    if getattr(shape, "has_table", False):
        return _table([[cell.text for cell in row.cells] for row in shape.table.rows])
    if getattr(shape, "has_chart", False):
        try:
            return _chart(shape.chart)
        except (ValueError, KeyError, IndexError, AttributeError, NotImplementedError) as error:
            rejects.append(Reject(locator=place, reason=f"chart: {type(error).__name__}: {error}"))
            return ""
    return _diagram(shape)


def _plain(text: str) -> str:
    return text.replace("\v", "\n").strip()


def _chart(chart: Any) -> str:
    title = chart.chart_title.text_frame.text if chart.has_title and chart.chart_title.has_text_frame else ""
    series = [(one.name, list(one.values)) for one in chart.plots[0].series]
    labels = [category.label for category in chart.plots[0].categories]
    rows = [["", *(name for name, _ in series)]]
    for index in range(max(map(len, (labels, *(values for _, values in series))))):
        values = [values[index] if index < len(values) else None for _, values in series]
        label = labels[index] if index < len(labels) else ""
        rows.append([label, *("" if value is None else f"{value:.15g}" for value in values)])
    return f"{title.strip()}\n\n{_table(rows)}".strip()


def _table(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(" ".join(str(cell).split()) for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]]) if lines else ""


def _diagram(shape: Any) -> str:
    """The words of SmartArt, which lie in a part of their own."""
    related = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}dm"
    for reference in shape._element.xpath(".//*[local-name()='relIds']"):
        words = _xml(shape.part.related_part(reference.get(related)).blob).xpath("//*[local-name()='t']/text()")
        return "\n".join(word.strip() for word in words if word.strip())
    return ""
