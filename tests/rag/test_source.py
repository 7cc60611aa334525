"""What a listing tells of a file: a stamp that changes whenever its bytes may have, or none."""

from __future__ import annotations

import os
import time
from pathlib import Path

import boto3
import pytest

from include.documents import source
from include.documents.source import Found
from include.storage import location, write_bytes
from tests.rag.ingestion import Ingestion, config_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def listed(root: str, folder: str) -> dict[str, Found]:
    found = config_of(Ingestion(root, folder).prepare("run")).open_source().list()
    return {one.path: one for one in found}


def later(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = time.time() + seconds
    monkeypatch.setattr(source.time, "time", lambda: moment)


def test_a_file_that_rests_has_a_stamp_that_stays(root: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "a.txt").write_text("a")
    later(60, monkeypatch)
    first = listed(root, str(folder))
    assert first["a.txt"].stamp
    assert first["a.txt"].size == 1
    assert listed(root, str(folder)) == first


@pytest.mark.parametrize("clock", [0.0, -3600.0], ids=["just changed", "clock put back an hour"])
def test_a_file_that_may_change_without_a_trace_has_none(
    root: str, folder: Path, clock: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.txt").write_text("a")
    later(clock, monkeypatch)
    assert listed(root, str(folder))["a.txt"].stamp == ""


def test_no_change_hides_behind_the_old_time_and_size(root: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "a.txt"
    path.write_text("old")
    later(60, monkeypatch)
    before, seen = listed(root, str(folder))["a.txt"], path.stat()
    path.write_text("new")
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert path.stat().st_mtime_ns == seen.st_mtime_ns
    assert listed(root, str(folder))["a.txt"].stamp != before.stamp
    replacement = folder / "b.txt"
    replacement.write_text("old")
    between = listed(root, str(folder))["a.txt"].stamp
    replacement.replace(path)
    assert listed(root, str(folder))["a.txt"].stamp != between


def test_a_listing_has_one_order_however_deep(root: str, folder: Path) -> None:
    for name in ("b/x.txt", "a.txt", "b.txt", "a/y.txt", "a/b/z.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    assert list(listed(root, str(folder))) == ["a.txt", "b.txt", "a/y.txt", "a/b/z.txt", "b/x.txt"]


def test_an_object_s_stamp_is_its_etag(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMOPS_STORAGE_ROOT", s3_root)
    home = location(s3_root) / "incoming"
    for name in ("b.txt", "deep/er/a.txt"):
        write_bytes(home / name, name.encode())
    first = listed(s3_root, str(home))
    assert list(first) == ["b.txt", "deep/er/a.txt"]
    assert all(one.stamp for one in first.values())
    write_bytes(home / "b.txt", b"b.txt")
    assert listed(s3_root, str(home)) == first, "the same bytes have the same ETag"
    write_bytes(home / "b.txt", b"other")
    assert listed(s3_root, str(home))["b.txt"].stamp != first["b.txt"].stamp


def test_what_lies_below_a_folder_without_a_name_is_counted(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMOPS_STORAGE_ROOT", s3_root)
    home = location(s3_root) / "incoming"
    write_bytes(home / "a.txt", b"a")
    bucket, _, prefix = s3_root.removeprefix("s3://").partition("/")
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    client.put_object(Bucket=bucket, Key=f"{prefix}/incoming/x//deep.txt", Body=b"deep")
    client.put_object(Bucket=bucket, Key=f"{prefix}/incoming/placeholder/", Body=b"")
    listing = config_of(Ingestion(s3_root, str(home)).prepare("run")).open_source()
    assert [one.path for one in listing.list()] == ["a.txt"]
    assert listing.skipped == {"(folder with an empty name)": 1}
