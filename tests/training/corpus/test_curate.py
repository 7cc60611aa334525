"""Curation from listing to report: planted documents of every fate, and what happens when things go wrong."""

from __future__ import annotations

import gzip
import io
import json
import os
import tracemalloc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from include.documents.source import FolderSource, content_digest
from include.errors import DriftError, StateMovedError
from include.storage import list_files, location
from include.training.corpus import curate as module
from include.training.corpus import reading
from include.training.corpus.curate import schema
from include.training.corpus.records import Found
from include.training.corpus.report import STEPS, make_report, table
from tests.training.corpus.curation import Curation, folder_source, jsonl, write_texts
from tests.training.corpus.test_listing import ingestion
from tests.training.corpus.test_near_duplicates import with_changes
from tests.training.corpus.texts import GERMAN, english, gibberish

QUESTION = "Who keeps the ticket of the teacher in the old library when all of the others wait outside in the rain?"
LONG = english(1, 300)
PLANTED = {
    "a/good.md": f"# A title\n\n{LONG}\n",
    "a/other.txt": english(2),
    "a/words.html": f"<title>T</title><h1>Head</h1><p>{english(3)}</p>",
    "a/same.md": f"# A title\n\n{LONG}\r\n\n",
    "b/near.md": f"# A title\n\n{with_changes(LONG, 1)}\n",
    "b/short.md": "Too short.",
    "b/empty.txt": "",
    "b/long.txt": english(4, 2000),
    "b/german.txt": GERMAN,
    "b/noise.txt": gibberish(1),
    "b/contaminated.md": f"{english(5)}\n\n{QUESTION}\n",
    "b/table.csv": "a,b\n" + "\n".join(f"{n},{n**3}" for n in range(99)),
    "b/broken.pdf": "no PDF",
    "b/binary.txt": "a\0b",
}
FATES = {
    "b/short.md": "too_short",
    "b/empty.txt": "empty",
    "b/long.txt": "too_long",
    "b/german.txt": "other_language",
    "b/noise.txt": "no_language",
    "b/contaminated.md": "contaminated",
    "b/table.csv": "symbols",
    "b/broken.pdf": "malformed",
    "b/binary.txt": "not_text",
}


@pytest.fixture(params=["file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> UPath:
    """A folder on each kind of storage, one after the other."""
    if request.param == "s3":
        return location(str(request.getfixturevalue("s3_root")))
    return location(tmp_path.as_uri())


def test_planted_documents_meet_their_fates(place: UPath) -> None:
    write_texts(place / "docs", PLANTED)
    (place / "sets").mkdir(parents=True, exist_ok=True)
    (place / "sets" / "quiz.jsonl").write_bytes(jsonl([{"question": QUESTION, "answer": "A"}]))
    curation = Curation(
        str(place / "storage"),
        [folder_source(str(place / "docs"), split_by_folder=True)],
        max_characters=5_000,
        evaluation_sets=(str(place / "sets" / "quiz.jsonl"),),
    )
    report = curation.run(shard_bytes=3_000)
    assert curation.reasons() == FATES
    rows = {row["path"]: row for row in curation.rows()}
    assert set(rows) == set(PLANTED) - set(FATES)
    good = rows["a/good.md"]
    assert good["text"] == f"# A title\n\n{LONG}"
    assert (good["source"], good["licence"], good["language"], good["locator"]) == ("a", "MIT", "en", None)
    assert good["bytes"] == len(good["text"])
    assert good["exact_digest"] == rows["a/same.md"]["exact_digest"]
    assert good["signature"] == rows["a/same.md"]["signature"]
    kept = {path for path, row in rows.items() if row["doc_id"] in curation.splits()}
    assert {"a/other.txt", "a/words.html"} < kept
    assert len(kept & {"a/good.md", "a/same.md", "b/near.md"}) == 1
    check_report(report)


def check_report(report: dict[str, Any]) -> None:
    assert [step["name"] for step in report["steps"]] == ["read", *STEPS]
    steps = {step["name"]: step for step in report["steps"]}
    assert (steps["read"]["documents"], steps["read"]["kept"]) == (14, 12)
    assert steps["read"]["dropped"] == {
        "malformed": {"documents": 1, "percent": 7.14},
        "not_text": {"documents": 1, "percent": 7.14},
    }
    assert steps["near_duplicates"]["kept"] == 3
    for before, after in zip(report["steps"], report["steps"][1:], strict=False):
        assert before["kept"] == after["documents"]
        assert after["kept_percent"] == round(100 * after["kept"] / after["documents"], 2)
    assert {name: one["documents"] for name, one in report["sources"].items()} == {"a": 4, "b": 10}
    for one in report["sources"].values():
        assert one["documents"] == one["kept"] + sum(one["dropped"].values())
        assert one["kept"] == one["train"] + one["held_out"]
    (sample,) = report["samples"]["contaminated"]
    assert sample["path"] == "b/contaminated.md"
    assert sample["detail"] == "who keeps the ticket of the teacher in the old library when all"
    assert all(len(one["text"]) <= 200 for name, some in report["samples"].items() if name != "note" for one in some)
    assert report["evaluation_sets"]["texts"] == 2
    text = table(report)
    assert "decontamination" in text and "contaminated 1" in text
    assert max(map(len, text.splitlines())) < 120
    json.dumps(report, allow_nan=False)


def test_records_of_all_kinds_are_read(place: UPath) -> None:
    texts = [english(number) for number in range(60)]
    (place / "records").mkdir(parents=True, exist_ok=True)
    (place / "records" / "a.jsonl").write_bytes(
        jsonl({"body": text, "license": "CC0-1.0"} for text in texts[:20]) + b'{torn\n{"body": 5}\n'
    )
    (place / "records" / "b.ndjson.gz").write_bytes(gzip.compress(jsonl({"body": text} for text in texts[20:40])))
    buffer = io.BytesIO()
    pq.write_table(pa.table({"body": texts[40:], "n": range(20)}), buffer, row_group_size=5)
    (place / "records" / "c.parquet").write_bytes(buffer.getvalue())
    source = {"name": "mine", "uri": str(place / "records"), "kind": "records", "text_field": "body"}
    curation = Curation(str(place / "one"), [{**source, "licence": "MIT"}])
    curation.run(shard_bytes=2_000)
    assert len(curation.make_listing(2_000).shards) > 8
    assert sorted(row["text"] for row in curation.rows()) == sorted(texts)
    assert {(row["path"], row["licence"]) for row in curation.rows()} == {
        ("a.jsonl", "CC0-1.0"),
        ("b.ndjson.gz", "MIT"),
        ("c.parquet", "MIT"),
    }
    assert sorted(row["reason"] for row in curation.dropped()) == ["malformed", "malformed"]
    whole = Curation(str(place / "other"), [{**source, "licence": "MIT"}])
    whole.run()
    assert whole.splits() == curation.splits()
    assert whole.rows() == curation.rows()
    without = Curation(str(place / "third"), [source])
    without.make_listing()
    assert without.curate(0)["dropped"] == {"malformed": 2, "no_licence": 40}


def test_records_in_one_file(root: str, tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_bytes(jsonl({"text": english(number), "license": "MIT"} for number in range(3)))
    curation = Curation(root, [{"name": "one", "uri": str(tmp_path / "one.jsonl"), "kind": "records"}])
    assert curation.run()["steps"][0]["kept"] == 3
    assert {row["path"] for row in curation.rows()} == {""}


def test_documents_of_an_index_that_changed_are_told_and_left_out(root: str, tmp_path: Path) -> None:
    texts = {f"{number}.txt": english(number) for number in range(4)}
    write_texts(tmp_path / "docs", texts)
    uri = (tmp_path / "docs").as_uri()
    rows = [
        {"source": uri, "path": path, "content_digest": content_digest(text.encode())} for path, text in texts.items()
    ]
    ingestion(root, "run", 1, rows, "2026-03-01T00:00:00Z")
    (tmp_path / "docs" / "1.txt").write_text(english(9))
    (tmp_path / "docs" / "2.txt").unlink()
    curation = Curation(root, [{"name": "ours", "uri": "handbook", "kind": "index", "licence": "internal"}])
    curation.run()
    assert curation.reasons() == {"1.txt": "changed", "2.txt": "vanished"}
    assert [row["path"] for row in curation.rows() if row["source"] == "ours"] != []
    assert {row["path"] for row in curation.rows()} == {"0.txt", "3.txt"}


def test_what_happens_to_documents_after_they_were_listed(place: UPath) -> None:
    write_texts(place / "docs", {f"{number}.txt": english(number) for number in range(4)})
    curation = Curation(str(place / "storage"), [folder_source(str(place / "docs"))])
    listed = curation.make_listing()
    (place / "docs" / "1.txt").write_text(english(9))
    (place / "docs" / "2.txt").unlink()
    assert curation.curate(0) == {"index": 0, "read": 4, "kept": 2, "dropped": {"changed": 1, "vanished": 1}}
    curation.deduplicate(listed)
    assert len(curation.splits()) == 2


def test_a_forbidden_document_is_told_and_a_failing_disk_stops_the_task(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_texts(tmp_path / "docs", {f"{number}.txt": english(number) for number in range(3)})
    curation = Curation(root, [folder_source(tmp_path / "docs")])
    curation.make_listing()
    errors: dict[str, OSError] = {"1.txt": PermissionError(13, "Permission denied")}
    read = FolderSource.read

    def failing(source: FolderSource, path: str) -> bytes:
        if path in errors:
            raise errors[path]
        return read(source, path)

    monkeypatch.setattr(FolderSource, "read", failing)
    assert curation.curate(0)["dropped"] == {"unreadable": 1}
    errors["2.txt"] = OSError(5, "Input/output error")
    again = Curation(f"{root}/again", [folder_source(tmp_path / "docs")])
    again.make_listing()
    with pytest.raises(OSError, match="Input/output error"):
        again.curate(0)
    assert list_files(again.target) == {}, "nothing half-written remains"


@pytest.mark.parametrize("change", ["written", "gone"])
def test_a_file_of_records_that_changed_stops_the_task(place: UPath, change: str) -> None:
    (place / "records").mkdir(parents=True, exist_ok=True)
    file = place / "records" / "a.jsonl"
    file.write_bytes(jsonl({"text": english(number)} for number in range(3)))
    curation = Curation(
        str(place / "storage"), [{"name": "a", "uri": str(file.parent), "kind": "records", "licence": "MIT"}]
    )
    curation.make_listing()
    if change == "gone":
        file.unlink()
    else:
        file.write_bytes(jsonl({"text": english(number)} for number in range(4)))
    with pytest.raises(StateMovedError, match="a.jsonl changed since it was listed: clear the task that lists"):
        curation.curate(0)


def test_titles_of_records_are_not_lost(root: str, tmp_path: Path) -> None:
    records = [{"title": f"The title {number}", "text": english(number)} for number in range(2)]
    write_texts(tmp_path / "docs", {"a.jsonl": jsonl(records).decode()})
    curation = Curation(root, [folder_source(tmp_path / "docs")])
    curation.run()
    (row,) = curation.rows()
    assert row["text"] == f"The title 0\n{english(0)}\n\nThe title 1\n{english(1)}"


def test_a_part_that_is_done_is_not_done_again(root: str, tmp_path: Path) -> None:
    write_texts(tmp_path / "docs", {f"{number}.txt": english(number) for number in range(3)})
    curation = Curation(root, [folder_source(tmp_path / "docs")])
    curation.make_listing()
    first = curation.curate(0)
    part = curation.target / "curated" / "part-00000.parquet"
    before = part.read_bytes()
    os.utime(part.path, (1, 1))
    assert curation.curate(0) == first
    assert Path(part.path).stat().st_mtime == 1
    other = Curation(root, [folder_source(tmp_path / "docs")], min_characters=10_000)
    assert other.curate(0)["dropped"] == {"too_short": 3}
    assert curation.curate(0) == first
    assert part.read_bytes() == before, "the same documents make the same bytes"


def test_what_a_task_needs_and_does_not_find(root: str, tmp_path: Path) -> None:
    write_texts(tmp_path / "docs", {"a.txt": english(1)})
    curation = Curation(root, [folder_source(tmp_path / "docs")])
    with pytest.raises(DriftError, match="has no listing.json: clear the task that lists the corpus"):
        curation.curate(0)
    curation.make_listing()
    with pytest.raises(DriftError, match="n-grams of evaluation sets are not there"):
        Curation(root, [], evaluation_sets=("memory://x",)).curate(0)
    with pytest.raises(DriftError, match="counts/part-00000.json is not there"):
        make_report(curation.target, curation.listing)


def test_nothing_remains_of_a_part_whose_last_group_fails(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_texts(tmp_path / "docs", {"a.txt": english(1)})
    curation = Curation(root, [folder_source(tmp_path / "docs")])
    curation.make_listing()

    def failing(_: object) -> list[bytes]:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(module, "signatures", failing)
        with pytest.raises(MemoryError):
            curation.curate(0)
    assert list_files(curation.target) == {}
    assert curation.curate(0)["kept"] == 1


def test_documents_are_read_one_at_a_time(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that counts how many of its records are held."""
    alive, most = 0, 0

    class Counted(Found):
        """Has no slots of its own, so it can be watched."""

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def counting(*_: object) -> Iterator[Found]:
        nonlocal alive, most
        for number in range(100):
            record = Counted(f"row {number}", text=english(number % 9), licence="MIT")
            weakref.finalize(record, gone)
            alive += 1
            most = max(most, alive)
            yield record

    (tmp_path / "a.jsonl").write_bytes(b"{}\n")
    curation = Curation(root, [{"name": "a", "uri": str(tmp_path / "a.jsonl"), "kind": "records"}])
    curation.make_listing()
    monkeypatch.setattr(reading, "read_records", counting)
    assert curation.curate(0)["kept"] == 100
    assert most <= 2, "the last one is let go when the next is there"


def test_documents_are_written_in_groups_and_not_gathered(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice the documents, and no more memory."""
    monkeypatch.setattr(module, "_GROUP_BYTES", 100_000)

    def peak(number: int) -> int:
        (tmp_path / f"{number}").mkdir()
        with (tmp_path / f"{number}" / "a.jsonl").open("wb") as file:
            for place in range(number):
                file.write(jsonl([{"text": english(place % 50, 1000) + str(place)}]))
        source = {"name": "a", "uri": str(tmp_path / str(number)), "kind": "records", "licence": "MIT"}
        curation = Curation(f"{root}/{number}", [source])
        curation.make_listing()
        tracemalloc.start()
        try:
            assert curation.curate(0)["kept"] == number
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)  # what is loaded once
    small, large = peak(40), peak(120)
    assert large < small + 200_000, f"{small:,} bytes for 40 documents, {large:,} for 120, which are 480 KB more"
    part = location(root) / "120" / "corpus" / "curated" / "part-00000.parquet"
    with part.open("rb") as file:
        assert pq.ParquetFile(file).num_row_groups > 5
        assert pq.ParquetFile(file).schema_arrow.equals(schema())
