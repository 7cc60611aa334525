"""The listing: complete, divided into shards, and named by what the documents are rather than by where they lie."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from include.contracts import IngestionCounts, IngestionManifest
from include.documents.source import content_digest
from include.errors import DriftError, UserError
from include.storage import list_files, location, write_parquet, write_record
from include.training.corpus import listing as module
from include.training.corpus.listing import Listing, Unit, read_listing, read_units
from tests.training.corpus.curation import Curation, folder_source, jsonl, write_texts

TEXTS = {f"{number % 3}/{number:02d}.md": f"text {number}\n" * (number + 1) for number in range(12)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_texts(tmp_path / "docs", TEXTS)
    return tmp_path / "docs"


def units(listed: Listing) -> list[Unit]:
    return [unit for shard in listed.shards for unit in read_units(shard)]


def listed(root: str, *sources: dict[str, Any], shard_bytes: int = 64 << 20) -> Listing:
    return Curation(root, sources).make_listing(shard_bytes)


def test_every_document_is_in_one_shard(root: str, folder: Path) -> None:
    (folder / "picture.png").write_bytes(b"x")
    (folder / ".hidden.md").write_text("x")
    found = listed(root, folder_source(folder), shard_bytes=200)
    assert [unit.path for unit in units(found)] == sorted(TEXTS)
    assert all(shard.bytes <= 200 or shard.units == 1 for shard in found.shards)
    assert len(found.shards) > 3
    assert (found.units, found.bytes) == (12, sum(map(len, TEXTS.values())))
    assert found.units == sum(shard.units for shard in found.shards)
    assert found.skipped == {"docs": {".png": 1}}
    assert read_listing(location(root) / "listing") == found


def test_a_large_corpus_makes_larger_shards(root: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SHARDS", 2)
    assert len(listed(root, folder_source(folder), shard_bytes=1).shards) <= 3


def test_the_digest_is_of_what_documents_hold(root: str, folder: Path, tmp_path: Path) -> None:
    first = listed(root, folder_source(folder))
    for file in folder.rglob("*.md"):
        os.utime(file, (1, 1))
    shutil.copytree(folder, tmp_path / "moved")  # neither times nor places matter
    assert listed(root, folder_source(tmp_path / "moved")).digest == first.digest


def changed_text(folder: Path) -> None:
    (folder / "1" / "04.md").write_text("text 5\n" * 5)


def renamed(folder: Path) -> None:
    (folder / "1" / "04.md").rename(folder / "1" / "05.md")


def removed(folder: Path) -> None:
    (folder / "1" / "04.md").unlink()


def added(folder: Path) -> None:
    (folder / "new.md").write_text("")


@pytest.mark.parametrize("change", [changed_text, renamed, removed, added])
def test_a_changed_document_changes_the_digest(root: str, folder: Path, change: Callable[[Path], None]) -> None:
    first = listed(root, folder_source(folder))
    change(folder)
    assert listed(root, folder_source(folder)).digest != first.digest


def test_changed_settings_change_the_digest(root: str, folder: Path) -> None:
    changes: list[dict[str, Any]] = [{}, {"name": "x"}, {"licence": "x"}, {"language": "de"}, {"split_by_folder": True}]
    found = {listed(root, folder_source(folder, **{"name": "docs", **change})).digest for change in changes}
    found.add(listed(root, folder_source(folder), shard_bytes=200).digest)
    assert len(found) == len(changes) + 1


def test_nothing_to_read_is_an_error_that_names_the_source(root: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.png").write_bytes(b"x")
    empty = folder_source(tmp_path / "empty", "second")
    with pytest.raises(
        UserError, match=r"source second: .*/empty has no document that can be read; left aside: 1 .png"
    ):
        listed(root, folder_source(folder), empty)
    with pytest.raises(UserError, match=r"source second: .* has no file of records \(.jsonl, .*; left aside: 1 .png"):
        listed(root, {**empty, "kind": "records"})
    with pytest.raises(UserError, match="has no file of records.*left aside: nothing"):
        listed(root, {**empty, "kind": "records", "uri": str(tmp_path / "not-there")})
    with pytest.raises(UserError, match="is not a folder that can be read") as caught:
        listed(root, folder_source(tmp_path / "not-there"))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="shard_bytes=0 must be at least 1"):
        listed(root, folder_source(folder), shard_bytes=0)
    with pytest.raises(DriftError, match="has no listing.json"):
        read_listing(location(root) / "listing")


def test_a_prefix_without_objects_is_refused(s3_root: str) -> None:
    source = {"name": "mine", "uri": f"{s3_root}/none", "licence": "MIT"}
    with pytest.raises(UserError, match=r"source 's3://.*/none' is not a folder that can be read; give a folder"):
        listed(s3_root, source)
    with pytest.raises(UserError, match=r"source mine: s3://.*/none has no file of records .*left aside: nothing"):
        listed(s3_root, {**source, "kind": "records"})


def test_too_many_folders_are_no_sources(root: str, tmp_path: Path) -> None:
    write_texts(tmp_path / "docs", {f"f{number}/a.md": "x" for number in range(101)})
    listed(root, folder_source(tmp_path / "docs"))
    with pytest.raises(UserError, match="source docs: split_by_folder makes more than 100 sources"):
        listed(root, folder_source(tmp_path / "docs", split_by_folder=True))


def test_records_are_divided_where_they_can_be(root: str, tmp_path: Path) -> None:
    folder = tmp_path / "records"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(jsonl({"text": "x" * 10} for _ in range(100)))
    (folder / "readme.md").write_text("no record")
    (folder / ".hidden.jsonl").write_text("x")
    source = {"name": "mine", "uri": str(folder), "kind": "records", "licence": "MIT"}
    found = listed(root, source, shard_bytes=1000)
    size = (folder / "a.jsonl").stat().st_size
    assert [(unit.start, unit.end) for unit in units(found)] == [(0, 1000), (1000, 2000), (2000, size)]
    assert found.skipped == {"mine": {".md": 1}}
    assert listed(root, {**source, "uri": str(folder / "a.jsonl")}, shard_bytes=1000).units == 3
    assert found.digest == listed(root, source, shard_bytes=1000).digest
    (folder / "a.jsonl").write_bytes(jsonl({"text": "y" * 10} for _ in range(100)))
    assert found.digest != listed(root, source, shard_bytes=1000).digest


def ingestion(root: str, run: str, version: int, rows: list[dict[str, str]], created_at: str) -> None:
    """What a run of an ingestion leaves, as far as a corpus reads it."""
    home = location(root) / "default" / "rag" / "handbook"
    ledger = home / "versions" / "v0001" / "ledger" / f"{version:08d}.parquet"
    write_parquet(ledger, pa.Table.from_pylist([{**row, "chunks": 1} for row in rows]))
    counts = dict.fromkeys(IngestionCounts.model_fields, 0)
    manifest = IngestionManifest(
        tenant="default",
        use_case="test",
        created_at=created_at,
        index="handbook",
        index_version=1,
        run_id=run,
        source_uri="x",
        store="x",
        store_uri="x",
        embedder="x",
        chunker="x",
        ledger_uri=str(ledger),
        ledger_version=version,
        quarantine_uri=None,
        counts=IngestionCounts(**counts),
    )
    write_record(home / "runs" / run / "manifest.json", manifest)


def test_an_index_is_listed_by_its_newest_ledger(root: str, folder: Path) -> None:
    source = {"name": "ours", "uri": "handbook", "kind": "index", "licence": "internal"}
    with pytest.raises(UserError, match="index 'handbook' of tenant 'default' has no ingestion.*run the DAG rag_ing"):
        listed(root, source)
    texts = {
        path: {"source": folder.as_uri(), "path": path, "content_digest": content_digest(text.encode())}
        for path, text in TEXTS.items()
    }
    rows = list(texts.values())
    ingestion(root, "b", 2, rows[:5], "2026-02-01T00:00:00Z")
    ingestion(root, "a", 3, rows[:7], "2026-03-01T00:00:00Z")
    ingestion(root, "c", 1, rows[:2], "2026-01-01T00:00:00Z")
    found = listed(root, source)
    assert [(unit.folder, unit.path, unit.mark) for unit in units(found)] == [
        (row["source"], row["path"], row["content_digest"]) for row in rows[:7]
    ]
    newest = next(name for name in list_files(location(root)) if name.endswith("00000003.parquet"))
    (location(root) / newest).unlink()
    with pytest.raises(UserError, match="source ours: .*00000003.parquet is gone: run the DAG rag_ingestion"):
        listed(root, source)


def test_an_index_without_documents_is_an_error(root: str) -> None:
    ingestion(root, "a", 1, [], "2026-03-01T00:00:00Z")
    with pytest.raises(UserError, match="handbook has no document; left aside: nothing"):
        listed(root, {"name": "ours", "uri": "handbook", "kind": "index", "licence": "internal"})
