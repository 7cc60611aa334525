"""One contract for every backend, and what only some backends can break."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include import storage
from include.contracts import UsageEvent
from include.errors import UserError


def test_bytes_come_back_and_a_second_write_replaces_the_first(any_root: str) -> None:
    path = storage.location(any_root) / "a" / "b.bin"
    assert not path.exists()
    storage.write_bytes(path, b"first, and longer")
    storage.write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    assert [child.name for child in path.parent.iterdir()] == ["b.bin"]


def test_json_lines_and_records_round_trip(any_root: str) -> None:
    folder = storage.location(any_root)
    value = {"text": "Zürich ☃", "numbers": [1, 2.5, None]}
    storage.write_json(folder / "v.json", value)
    assert storage.read_json(folder / "v.json") == value
    storage.write_json(folder / "v.json", value, indent=None)
    assert storage.read_json(folder / "v.json") == value
    assert b"\n" not in (folder / "v.json").read_bytes()
    rows = [{"n": n, "line": "a\nb"} for n in range(3)]
    assert storage.write_jsonl(folder / "rows.jsonl", rows) == 3
    assert list(storage.read_jsonl(folder / "rows.jsonl")) == rows
    event = UsageEvent(tenant="t", use_case="u", kind="chat", model="m", status="ok")
    storage.write_record(folder / "event.json", event)
    assert storage.read_record(folder / "event.json", UsageEvent) == event


def test_parquet_round_trips_and_reads_some_columns(any_root: str) -> None:
    path = storage.location(any_root) / "t.parquet"
    table = pa.table({"a": [1, 2], "b": ["x", None]})
    storage.write_parquet(path, table)
    assert storage.read_parquet(path).equals(table)
    assert storage.read_parquet(path, columns=["b"]).column_names == ["b"]


@pytest.mark.parametrize("name", ["with space", "sharp#", "per%20cent", "query?", "Zürich ☃", "a+b&c=d", "[x]*"])
def test_any_name_is_a_name(any_root: str, name: str) -> None:
    path = storage.location(f"{any_root}/{name}") / name
    storage.write_bytes(path, b"x")
    assert storage.location(str(path)).read_bytes() == b"x"
    assert [child.name for child in storage.location(f"{any_root}/{name}").iterdir()] == [name]


def test_one_local_place_has_one_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my docs #1"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    spellings = [folder, tmp_path / "link", "my docs #1", "./link/../my docs #1/"]
    assert {storage.local_uri(spelling) for spelling in spellings} == {f"file://{folder}"}


def test_another_process_s_write_is_seen_at_once(any_root: str) -> None:
    folder = storage.location(any_root) / "seen"
    storage.write_bytes(folder / "one", b"1")
    assert len(list(folder.iterdir())) == 1
    storage.write_bytes(storage.location(any_root) / "seen" / "two", b"2")
    assert sorted(child.name for child in folder.iterdir()) == ["one", "two"]


def test_a_record_of_another_version_or_kind_is_refused_with_its_place(any_root: str) -> None:
    path = storage.location(any_root) / "event.json"
    storage.write_json(path, {"schema_version": 2, "tenant": "t", "use_case": "u"})
    with pytest.raises(UserError, match="event.json is not a UsageEvent of a known version"):
        storage.read_record(path, UsageEvent)


@pytest.mark.parametrize("uri", ["data/x", "gs://bucket/x", "http://example.com/x", "s4://b", ""])
def test_a_place_of_another_scheme_is_refused_without_a_look(uri: str) -> None:
    with pytest.raises(UserError, match="is not a URI that we read: write file:///"):
        storage.location(uri)


def test_a_failed_write_leaves_the_old_file_and_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = storage.location(tmp_path.as_uri()) / "kept.txt"
    storage.write_bytes(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        storage.write_bytes(path, b"new")
    assert [child.name for child in tmp_path.iterdir()] == ["kept.txt"]
    assert path.read_bytes() == b"old"


@given(st.lists(st.text()), st.lists(st.text()))
def test_different_parts_have_different_digests(left: list[str], right: list[str]) -> None:
    assert (storage.digest(*left) == storage.digest(*right)) == (left == right)


@given(st.text(min_size=1), st.text(min_size=1))
def test_run_keys_are_safe_and_unique(left: str, right: str) -> None:
    key = storage.run_key(left)
    assert set(key) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-")
    assert len(key) <= 57
    assert (key == storage.run_key(right)) == (left == right)
