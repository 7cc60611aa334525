"""CSV and Excel: each row with the names of its columns, values as they are shown."""

from __future__ import annotations

import datetime
import io
import re
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.documents.loaders import load
from tests.documents.loaders.files import located, read, xlsx, zipped


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_a_csv_row_is_its_values_under_the_names_of_their_columns(mark: str) -> None:
    rows = [
        ["Name", "City", ""],
        ["Zoë", '"New ""York"""', "x"],
        ["", "", ""],
        ["Ann", '"two\nlines"', "", "more"],
    ]
    data = "\r\n".join(mark.join(row) for row in rows).encode("utf-8-sig")
    expected = [("rows 1-4", 'Name; City\nName: Zoë; City: New "York"; x\nName: Ann; City: two lines; more')]
    assert located(data, "x.csv") == expected
    if mark == "\t":
        assert located(data, "x.tsv") == expected


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("a,b\n", "a; b"),
        ("only\none\ncolumn", "only\none\ncolumn"),
        ("Costs of 2024\n\nWhat,2023,2024\nrent,1,2", "Costs of 2024\nWhat; 2023; 2024\nWhat: rent; 2023: 1; 2024: 2"),
        ("Ann,30,5.5\nBob,25,3", "Ann; 30; 5.5\nBob; 25; 3"),
    ],
)
def test_tables_without_names_or_rows_are_kept_as_they_are(data: str, text: str) -> None:
    assert [found for _, found in read(data, "x.csv")] == [text]


def test_a_field_of_any_length_is_read() -> None:
    data = "a,b\n" + "x" * 300_000 + ",y"
    assert read(data, "x.csv") == [((), "a; b"), ((), f"a: {'x' * 300_000}; b: y")]


@given(st.lists(st.lists(st.text(alphabet='ab"\n ;1é', max_size=6), max_size=4), max_size=8))
def test_csv_of_any_shape_keeps_its_letters(rows: list[list[str]]) -> None:
    data = "\n".join(",".join(row) for row in rows)
    kept = "".join(text for _, text in read(data, "x.csv"))
    for letter in "ab1é":
        assert kept.count(letter) >= data.count(letter)


def test_a_workbook_is_read_sheet_by_sheet_with_values_as_shown() -> None:
    when = datetime.datetime(2024, 1, 2)
    data = xlsx(
        {
            "Costs": [
                ["What", "Share", "Day", "Sum", "OK"],
                ["rent", 0.125, when, 0.1 + 0.2, True],
                [None, None, None, None, None],
                ["heat", 1, when.replace(hour=3), 2.0, False],
            ],
            "Empty": [],
            "Notes": [["a"], ["b"]],
        },
        formats={"B2": "0.0%"},
    )
    document = load(data, "book.xlsx")
    assert located(data, "x.xlsx") == [
        (
            "sheet Costs rows 1-4",
            "What; Share; Day; Sum; OK\n"
            "What: rent; Share: 12.5%; Day: 2024-01-02; Sum: 0.3; OK: TRUE\n"
            "What: heat; Share: 1; Day: 2024-01-02 03:00:00; Sum: 2; OK: FALSE",
        ),
        ("sheet Notes rows 1-2", "a\nb"),
    ]
    assert [section.headings for section in document.sections] == [("Costs",), ("Notes",)]
    assert document.title == "book"


def test_a_formula_is_the_value_that_was_saved_with_it() -> None:
    data = xlsx({"S": [["a", "b"], ["x", "=1+1"]]})
    # openpyxl saves formulas without values.
    assert located(data, "x.xlsx") == [("sheet S rows 1-2", "a; b\na: x")]
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        parts = {name: source.read(name) for name in source.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    parts[sheet] = re.sub(rb"</f><v ?/>|</f><v></v>", b"</f><v>2</v>", parts[sheet])
    assert located(zipped(parts), "x.xlsx") == [("sheet S rows 1-2", "a; b\na: x; b: 2")]


def test_rows_of_a_large_table_are_packed_with_their_names_in_each() -> None:
    data = ("name,word\n" + "\n".join(f"n{number},{'w' * 90}" for number in range(50))).encode()
    found = located(data, "x.csv")
    assert found[0][0] == "rows 1-10"
    assert all(len(text) <= 1000 for _, text in found)
    lines = "\n".join(text for _, text in found).split("\n")
    assert lines == ["name; word"] + [f"name: n{number}; word: {'w' * 90}" for number in range(50)]
