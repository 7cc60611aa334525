"""Tables of CSV and Excel files: rows as `Name: value; Name: value`, so that a row means something alone."""

from __future__ import annotations

import csv
import datetime
import io
import re
from collections.abc import Iterable, Iterator
from typing import Any

from include.documents.document import Document
from include.documents.loaders.archive import open_office
from include.documents.loaders.common import Builder, decode, packed, rows_locator


def load_csv(data: bytes, stem: str) -> Document:
    """Rows under the names of the first row, packed to sections of moderate size; fields lie between commas,
    semicolons, tabs or bars, whichever cut the first line with more than one column into most."""
    text = decode(data)
    first = next((line for line in text.split("\n") if any(mark in line for mark in ",;\t|")), "")
    return _load_delimited(
        text, stem, max(",;\t|", key=lambda mark: len(next(csv.reader([first], delimiter=mark), [])))
    )


def load_tsv(data: bytes, stem: str) -> Document:
    """As load_csv, with tabs between the fields."""
    return _load_delimited(decode(data), stem, "\t")


def _load_delimited(text: str, stem: str, delimiter: str) -> Document:
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    builder = Builder()
    _add_table(builder, enumerate(rows, start=1), (), "")
    return builder.build(stem)


def load_xlsx(data: bytes, stem: str) -> Document:
    """Rows of each worksheet, under the sheet's name; values as they were when the file was saved, formulas not
    evaluated. Left out: charts, comments, number formats other than of dates and percentages."""
    import warnings

    from openpyxl import load_workbook

    open_office(data).close()
    builder = Builder()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # openpyxl: parts of the format that hold no text
        book = load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
        for sheet in book.worksheets:
            sheet.reset_dimensions()  # files declare dimensions far from their rows
            rows = ([_shown(cell) for cell in row] for row in sheet.iter_rows())
            _add_table(builder, enumerate(rows, start=1), (sheet.title,), f"sheet {sheet.title} ")
        book.close()
    return builder.build(stem)


def _add_table(builder: Builder, rows: Iterable[tuple[int, list[str]]], headings: tuple[str, ...], place: str) -> None:
    for first, last, text in packed(_lines(rows)):
        builder.add(text, headings=headings, locator=place + rows_locator(first, last))


def _lines(rows: Iterable[tuple[int, list[str]]]) -> Iterator[tuple[int, str]]:
    """Numbers and texts of the rows with any value. The first row of several values names the columns, unless it holds
    numbers; rows above it are captions."""
    names: list[str] | None = None
    for number, row in rows:
        cells = [" ".join(cell.split()) for cell in row]
        filled = [cell for cell in cells if cell]
        if names is None and len(filled) > 1:
            names = [] if any(map(_is_number, filled)) else cells
            if names:
                # A line of its own: a name without any value below it is not lost.
                yield number, "; ".join(filled)
                continue
        if filled:
            yield number, "; ".join(_named(names or [], cells))


def _named(names: list[str], cells: list[str]) -> Iterator[str]:
    for index, cell in enumerate(cells):
        name = names[index] if index < len(names) else ""
        if cell:
            yield f"{name}: {cell}" if name else cell


def _is_number(cell: str) -> bool:
    """Whether it is a number, other than a year, which may well name a column."""
    return bool(re.fullmatch(r"[-+]?[\d.,]*\d%?", cell)) and not re.fullmatch(r"(?:19|20)\d\d", cell)


def _shown(cell: Any) -> str:
    """A cell's value about as Excel shows it."""
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int | float):
        decimals = re.search(r"0(?:\.(0+))?%", cell.number_format or "")
        # 15 digits are what Excel computes with and shows: 0.1 + 0.2 is 0.3.
        shown = f"{value:.15g}" if isinstance(value, float) else str(value)
        return f"{value:.{len(decimals[1] or '')}%}" if decimals else shown
    if isinstance(value, datetime.datetime) and value.time() == datetime.time() and not value.tzinfo:
        return value.date().isoformat()
    return str(value)
