"""JSON lines, JSON and Parquet: a bad record is set aside alone, values keep their names."""

from __future__ import annotations

import datetime
import json
import re
from typing import Any

import pytest

from include.documents.document import Document, Reject, Section
from include.documents.loaders import load
from include.errors import DocumentError
from tests.documents.loaders.files import located, parquet, read


def test_jsonl_makes_a_section_of_each_record() -> None:
    lines: list[dict[str, Any]] = [
        {"id": 7, "title": "Seven", "text": "a\u2028b", "content": "not this"},
        {"content": "c", "id": ""},
        {"body": "  "},
        {"body": "d", "title": None, "text": None},
        {"title": " Only\n title "},
    ]
    data = "\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines).encode()
    expected = Document(
        title="records",
        text="a\u2028b\n\nc\n\nd\n\nOnly title",
        sections=(
            Section(start=0, end=3, headings=("Seven",), locator="7"),
            Section(start=5, end=6, locator="line 3"),
            Section(start=8, end=9, locator="line 7"),
            Section(start=11, end=21, locator="line 9"),
        ),
    )
    assert load(data, "records.ndjson") == expected
    assert load(b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"), "records.jsonl") == expected
    assert load(data.decode().encode("utf-16"), "records.jsonl") == expected


BAD = [
    (b"{bad", "not JSON", "malformed"),
    (b"[" * 100_000, "not JSON", "malformed"),
    (b"[1]", "list where an object was expected", "malformed"),
    (b'{"t": "x"}', "none of the fields text, content, body, title", "malformed"),
    (b'{"text": 3}', "field 'text' is int, must be a string", "malformed"),
    (b'{"text": "\\ud800"}', "half a surrogate pair", "not_text"),
    (b'{"text": "\xff"}', "not utf-8: byte 0xff at offset 10", "not_text"),
    (b'{"text": "\0"}', "binary, not text: NUL byte", "not_text"),
]


@pytest.mark.parametrize(("line", "message", "fault"), BAD)
def test_a_broken_record_is_set_aside_and_the_others_are_read(line: bytes, message: str, fault: str) -> None:
    document = load(b'{"text": "fine"}\n' + line + b'\n{"text": "too"}', "x.jsonl")
    assert document.text == "fine\n\ntoo"
    [reject] = document.rejects
    assert reject.locator == "line 2"
    assert reject.reason.startswith(message)


@pytest.mark.parametrize(("line", "message", "fault"), BAD)
def test_a_file_without_any_good_record_is_refused_with_the_first_reason(line: bytes, message: str, fault: str) -> None:
    with pytest.raises(DocumentError, match=f"^line 1: {re.escape(message)}") as raised:
        load(line + b"\n[]", "x.jsonl")
    assert raised.value.fault == fault


def test_a_list_of_json_objects_with_texts_is_records() -> None:
    data = json.dumps([{"text": "a", "title": "T"}, 3, {"id": "k", "body": "b"}]).encode()
    document = load(data, "x.json")
    assert located(data, "x.json") == [("item 1", "a"), ("k", "b")]
    assert document.rejects == (Reject(locator="item 2", reason="int where an object was expected"),)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            {"server": {"port": 80, "hosts": ["a", "b"], "tls": True}, "none": None, "note": "two\nlines"},
            [(None, "server.port: 80\nserver.hosts: a\nserver.hosts: b\nserver.tls: true\nnote: two lines")],
        ),
        ([{"name": "x", "at": {"n": 1}}, {"name": "y"}, {}], [("items 1-2", "name: x; at.n: 1\nname: y")]),
        ("text", [(None, "text")]),
        (["a", "b"], [("items 1-2", "a\nb")]),
        ({}, []),
    ],
)
def test_other_json_is_its_values_after_their_paths(value: Any, expected: list[tuple[str | None, str]]) -> None:
    assert located(json.dumps(value).encode(), "x.json") == expected


@pytest.mark.parametrize("data", [b"{", b"[" * 100_000, b"1 2", b'{"a": "\\udfff"}'])
def test_json_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(DocumentError):
        load(data, "x.json")


def test_parquet_rows_with_a_text_are_records() -> None:
    data = parquet({"id": [1, 2, None], "text": ["a", None, "c"], "title": ["T", "U", None], "raw": [b"x"] * 3})
    assert located(data, "x.parquet") == [("1", "a"), ("2", "U"), ("row 3", "c")]
    assert read(data, "x.parquet")[0] == (("T",), "a")


def test_parquet_rows_without_a_text_are_their_values() -> None:
    columns = {
        "name": ["x", None, "z"],
        "price": [1.5, float("nan"), 3.0],
        "day": [datetime.date(2024, 1, 2), None, None],
        "place": [{"city": "Zürich", "parts": ["a", "b"]}, None, None],
        "raw": [b"\0", None, None],
        "text": [1, None, 2],
    }
    assert located(parquet(columns), "x.parquet") == [
        (
            "rows 1-3",
            "name: x; price: 1.5; day: 2024-01-02; place.city: Zürich; place.parts: a; place.parts: b; text: 1\n"
            "name: z; price: 3.0; text: 2",
        )
    ]


def test_rows_are_packed_to_sections_of_moderate_size_and_long_rows_stay_whole() -> None:
    data = parquet({"word": ["a" * 400, "b" * 400, "c" * 400, "d" * 3000, "e"]})
    found = located(data, "x.parquet")
    assert [(locator, len(text)) for locator, text in found] == [
        ("rows 1-2", 813),
        ("row 3", 406),
        ("row 4", 3006),
        ("row 5", 7),
    ]
