"""A ledger's tables find, replace and list rows as a dictionary would, and are read back as they were written."""

from __future__ import annotations

from dataclasses import asdict

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.errors import StateMovedError, UserError
from include.rag.ledger import Entry, Keyed, Ledger, Pointer
from include.rag.stores.held import encoded
from include.storage import location, write_json

ids = st.text("0123456789abcdef", min_size=1, max_size=4)
rows = st.dictionaries(ids, st.text(max_size=5), max_size=12)


def keyed(values: dict[str, str]) -> Keyed:
    schema = pa.schema([("doc_id", pa.string()), ("value", pa.string())])
    return Keyed(schema.empty_table()).replaced((), ({"doc_id": k, "value": v} for k, v in values.items()))


@settings(deadline=None)  # the first example imports what Arrow computes with
@given(rows, rows, st.sets(ids, max_size=6))
def test_a_keyed_table_is_a_dictionary(before: dict[str, str], fresh: dict[str, str], gone: set[str]) -> None:
    after = keyed(before).replaced(gone, ({"doc_id": k, "value": v} for k, v in fresh.items()))
    expected = {k: v for k, v in before.items() if k not in gone} | fresh
    assert sorted(after.rows()) == [[key, expected[key]] for key in sorted(expected)]
    assert len(after) == len(expected)
    for key in before.keys() | fresh.keys() | gone | {"", "zz"}:
        assert after.some([key]).get(key) == ([key, expected[key]] if key in expected else None)


def entry(doc_id: str, source: str = "file:///a", chunks: int = 1) -> Entry:
    return Entry(
        doc_id=doc_id, source=source, path=f"{doc_id}.md", content_digest="d", source_version="s", pipeline="p",
        use_case="u", title="t",
        chunks=chunks, run_id="r", ingested_at="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


def test_a_snapshot_is_read_back_as_it_was_committed(root: str) -> None:
    ledger = Ledger(location(root))
    empty = ledger.read(0)
    assert (len(empty), empty.chunks, list(empty.entries()), empty.get("a")) == (0, 0, [], None)
    entries = [entry("a"), entry("b", "file:///b", 3), entry("c", chunks=0)]
    ledger.commit(empty.replaced((), map(asdict, entries)), Pointer(version=1), expected_version=0)
    snapshot = ledger.read(ledger.pointer().version)
    assert list(snapshot.entries()) == entries
    assert snapshot.get("b") == entries[1]
    assert dict(snapshot.paths(encoded(["a", "c", "d"]))) == {"a": "a.md", "c": "c.md"}
    assert snapshot.chunks == 4
    assert snapshot.held() == {"a": ("d", 1), "b": ("d", 3)}


def test_a_commit_after_another_is_refused(root: str) -> None:
    ledger = Ledger(location(root))
    ledger.commit(ledger.read(0), Pointer(version=1), expected_version=0)
    with pytest.raises(StateMovedError, match="from version 0 to 1"):
        ledger.commit(ledger.read(0), Pointer(version=1, run_id="late"), expected_version=0)
    assert ledger.pointer().run_id == ""


def test_a_ledger_of_another_release_is_refused(root: str) -> None:
    write_json(location(root) / "ledger" / "CURRENT.json", {"schema_version": 99})
    with pytest.raises(UserError, match="schema_version 99; this release reads 2"):
        Ledger(location(root)).pointer()
