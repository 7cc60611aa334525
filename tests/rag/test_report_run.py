"""What a run did: every count is told, dead letters by fault, and which version is live."""

from __future__ import annotations

import re

import pytest

from include.contracts import IngestionCounts
from include.rag.report.run import live_line, run_section
from tests.rag.report_records import COUNTS, letter, manifest, report


def test_every_count_of_the_manifest_is_told() -> None:
    text = run_section(report(30, 0), manifest(), [])
    assert "<p>40 documents found in file:///source.</p>" in text
    told = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text))
    numbers = sorted(int(number.replace(",", "")) for number in told.values())
    assert COUNTS.keys() == IngestionCounts.model_fields.keys()
    assert numbers == sorted(number for name, number in COUNTS.items() if name not in ("found", "records_quarantined"))
    assert (told["added"], told["deleted"], told["without text"], told["set aside"]) == ("12", "21", "2", "5")
    assert (told["chunks embedded"], told["chunks that kept a vector"]) == ("1,232", "1,233")


@pytest.mark.parametrize(("number", "kind"), [(0, "none"), (5, "alarming")])
def test_what_was_set_aside_stands_out(number: int, kind: str) -> None:
    counts = IngestionCounts(**{**COUNTS, "quarantined": number, "found": 35 + number})
    text = run_section(report(30, 0), manifest(counts=counts), [])
    assert f'<div class="{kind}"><dt>set aside</dt><dd>{number}</dd></div>' in text


def test_dead_letters_are_counted_by_fault_with_the_first_of_each() -> None:
    letters = [letter(n) for n in range(30)]
    letters += [letter(n, fault="time_limit", locator=f"line {n}", run_id="earlier") for n in range(100, 102)]
    counts = IngestionCounts(**{**COUNTS, "records_quarantined": 2})
    text = run_section(report(30, 0), manifest(quarantine_uri="file:///q.jsonl", counts=counts), letters)
    assert "32 dead letters; 30 from this run, among them 2 records of documents whose other records were read." in text
    assert "All of them: file:///q.jsonl" in text
    rows = re.findall(r'data-title="Fault">(.*?)</td><td data-title="Number">(.*?)</td>', text)
    assert rows == [("malformed", "30"), ("time limit", "2")]
    assert len(re.findall(r"bad/\d{5}\.pdf", text)) == 10 + 2
    assert "bad/00009.pdf</bdi> <small><bdi>reason 9</bdi>" in text and "bad/00010.pdf" not in text
    assert "<li>and 20 more</li>" in text
    assert "bad/00100.pdf</bdi>, <bdi>line 100</bdi>" in text


def test_where_nothing_was_set_aside_it_is_said() -> None:
    assert "<h3>Set aside</h3><p>Nothing.</p>" in run_section(report(30, 0), manifest(), [])


def test_the_index_is_described() -> None:
    text = run_section(report(30, 0), manifest(3), [])
    for fact in ("v0003", "hashing-1", "chunker-200", "lancedb, file:///store", "version 7, file:///ledger"):
        assert f"<td>{fact}</td>" in text


@pytest.mark.parametrize(
    ("misses", "version", "live", "line"),
    [
        (0, 2, 2, "v0002 is live; this run brought it up to date."),
        (30, 2, 2, "v0002 is live; this run brought it up to date."),
        (
            0,
            2,
            1,
            "When this was written v0001 was live; v0002 goes live next, unless it lacks something of what is live.",
        ),
        (30, 2, 1, "v0002 was refused and does not go live: v0001 stays live."),
        (0, 1, None, "When this was written no version was live; v0001 goes live next"),
        (30, 1, None, "v0001 was refused and does not go live: no version is live."),
    ],
)
def test_which_version_is_live(misses: int, version: int, live: int | None, line: str) -> None:
    made = report(30 - misses, misses, index_version=version).model_copy(update={"live_version": live})
    assert live_line(made).startswith(line)
