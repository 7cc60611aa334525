"""Records are read once each, however a file is divided; what cannot be read is told."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from include.training.corpus import records
from include.training.corpus.records import Found, Stretch, read_records, stretches
from tests.training.corpus.curation import jsonl


@pytest.fixture
def folder() -> UPath:
    place = UPath("memory://records")
    place.mkdir(parents=True, exist_ok=True)
    return place


def write(file: UPath, data: bytes) -> UPath:
    file.write_bytes(data)
    return file


def everything(file: UPath, max_bytes: int = 1 << 20, text_field: str = "text") -> list[Found]:
    parts = stretches(file, file.stat().st_size, max_bytes)
    return [found for part in parts for found in read_records(file, part, text_field)]


def told(found: Sequence[Found]) -> list[str]:
    return [f"{one.locator}: {one.problem.fault}: {one.problem}" for one in found if one.problem]


def parquet(rows: Sequence[dict[str, Any]], group: int = 2) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), buffer, row_group_size=group)
    return buffer.getvalue()


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=12), max_size=8),
    max_bytes=st.integers(1, 200),
    ends_with_line=st.booleans(),
)
def test_each_line_is_read_once(texts: list[str], max_bytes: int, ends_with_line: bool) -> None:
    lines = [json.dumps({"text": text}, ensure_ascii=False).encode() for text in texts]
    data = b"\n".join(lines) + b"\n" * ends_with_line
    file = UPath("memory://records/lines.jsonl")
    file.parent.mkdir(parents=True, exist_ok=True)
    write(file, data)
    found = everything(file, max_bytes)
    assert [one.text for one in found] == texts
    assert found == everything(file), "whichever stretch it is read in, a record is called the same"
    for one, line in zip(found, lines, strict=True):
        assert data[int(one.locator.removeprefix("byte ")) :].startswith(line)


@pytest.mark.parametrize("max_bytes", [1, 150, 1 << 20])
def test_each_row_is_read_once(folder: UPath, max_bytes: int) -> None:
    rows = [{"text": f"text {n}", "license": "MIT" if n % 2 else None, "other": n} for n in range(7)]
    file = write(folder / "rows.parquet", parquet(rows))
    found = everything(file, max_bytes)
    assert found == [Found(f"row {n + 1}", text=f"text {n}", licence="MIT" if n % 2 else None) for n in range(7)]
    assert len(stretches(file, 0, 1)) == 4
    assert len(stretches(file, 0, 1 << 20)) == 1


def test_gz_is_read_as_a_whole(folder: UPath) -> None:
    data = jsonl({"text": f"text {n}"} for n in range(5))
    file = write(folder / "lines.jsonl.gz", gzip.compress(data))
    assert stretches(file, 100, 10) == [Stretch(size=100)]
    assert [one.text for one in everything(file)] == [f"text {n}" for n in range(5)]
    plain = write(folder / "lines.jsonl", data)
    assert everything(file) == everything(plain)


def test_a_record_may_name_its_licence(folder: UPath) -> None:
    given = [
        {"body": "a", "license": " CC BY\n4.0 "},
        {"body": "b", "licence": "MIT"},
        {"body": "c", "license": ""},
        {"body": "d", "license": ["MIT"]},
        {"body": "e", "license": "x" * 500},
    ]
    found = everything(write(folder / "a.ndjson", jsonl(given)), text_field="body")
    assert [one.licence for one in found] == ["CC BY 4.0", "MIT", None, None, "x" * 100]


def test_lines_that_cannot_be_used_are_told_and_the_others_read(folder: UPath) -> None:
    lines = [
        b"\xef\xbb\xbf" + json.dumps({"text": "first"}).encode(),
        b"{torn",
        b"[1]",
        b'{"text": 5}',
        b'{"txt": "a"}',
        b"",
        b'{"text": "\xff"}',
        b"[" * 100_000,
        json.dumps({"text": "last"}).encode(),
    ]
    found = everything(write(folder / "bad.jsonl", b"\n".join(lines)))
    assert [one.text for one in found if not one.problem] == ["first", "last"]
    assert [line.partition(" (")[0] for line in told(found)] == [
        "byte 21: malformed: not JSON",
        "byte 27: malformed: list where an object was expected",
        "byte 31: malformed: field 'text' is int, must be a string",
        "byte 43: malformed: field 'text' is missing",
        "byte 57: malformed: not JSON",
        "byte 71: malformed: not JSON",
    ]


def test_a_line_without_end_does_not_fill_the_memory(folder: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "RECORD_BYTES", 100)
    data = jsonl([{"text": "a"}, {"text": "b" * 300}, {"text": "c"}, {"text": "d" * 500}])
    file = write(folder / "long.jsonl", data)
    for max_bytes in (1 << 20, 50, 7):
        found = everything(file, max_bytes)
        assert [one.text for one in found if not one.problem] == ["a", "c"]
        assert told(found) == [
            "byte 14: size_limit: a line of 313 bytes; the limit is 100",
            "byte 341: size_limit: a line of 513 bytes; the limit is 100",
        ]


def test_the_rest_of_a_torn_gz_is_told(folder: UPath) -> None:
    data = gzip.compress(jsonl({"text": f"text {n}"} for n in range(5000)))
    found = everything(write(folder / "torn.jsonl.gz", data[: len(data) // 2]))
    assert len(found) > 1 and found[0].text == "text 0"
    assert len(told(found)) == 1
    assert "malformed: the rest of the file cannot be unpacked" in told(found)[0]
    (line,) = told(everything(write(folder / "none.jsonl.gz", b"not gz at all")))
    assert line.startswith("byte 0: malformed")


def test_parquet_that_cannot_be_used_is_told(folder: UPath) -> None:
    whole = parquet([{"text": "text " * 100 + str(n)} for n in range(2000)], 500)
    (line,) = told(everything(write(folder / "no.parquet", b"no Parquet")))
    assert line.startswith("row 1: malformed: the rest of the file cannot be read")
    (line,) = told(everything(write(folder / "torn.parquet", whole[:5000])))
    assert line.startswith("row 1: malformed")
    (line,) = told(everything(write(folder / "other.parquet", parquet([{"a": 1, "b": "x"}]))))
    assert line == "row 1: malformed: no column 'text'; there are a, b"
    (line,) = told(everything(write(folder / "number.parquet", parquet([{"text": 1}]))))
    assert line == "row 1: malformed: field 'text' is int, must be a string"
    damaged = bytearray(whole)
    damaged[40:80] = bytes(40)
    found = everything(write(folder / "damaged.parquet", bytes(damaged)))
    assert len(told(found)) == 1
    assert told(found)[0].startswith("row 1: malformed: the rest of the file cannot be read")
