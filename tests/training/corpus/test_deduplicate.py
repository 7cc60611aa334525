"""Of duplicates one is kept, the same one however documents are divided into parts."""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from include.errors import UserError
from include.storage import digest, list_files, location, read_json, read_parquet, write_json, write_parquet
from include.training.corpus.config import CurationConfig
from include.training.corpus.curate import SHINGLE_WORDS, schema, signatures
from include.training.corpus.deduplicate import deduplicate
from include.training.corpus.report import Tally
from include.training.corpus.words import ngram_hashes, word_hashes, words
from include.training.kept import kept_documents
from tests.training.corpus.test_near_duplicates import with_changes
from tests.training.corpus.texts import english


@dataclass(frozen=True)
class Given:
    name: str
    text: str
    source: str = "docs"
    priority: int = 0

    @property
    def doc_id(self) -> str:
        return digest(self.name)[:32]

    def row(self) -> dict[str, Any]:
        (signature,) = signatures([ngram_hashes(word_hashes(words(self.text)), SHINGLE_WORDS)])
        told = {"path": f"{self.name}.md", "licence": "MIT", "locator": None, "language": "en"}
        size, exact = len(self.text.encode()), bytes.fromhex(digest(self.text)[:32])
        own = {"doc_id": self.doc_id, "source": self.source, "text": self.text, "priority": self.priority}
        return {**own, **told, "bytes": size, "exact_digest": exact, "signature": signature}


def run(folder: UPath, parts: list[list[Given]], **settings: Any) -> tuple[dict[str, str], dict[str, Any]]:
    """Name -> split of what is kept, and what deduplicate() returned."""
    places = []
    for number, documents in enumerate(parts):
        places.append(folder / "curated" / f"part-{number:05d}.parquet")
        write_parquet(places[-1], pa.Table.from_pylist([one.row() for one in documents], schema=schema()))
    found = deduplicate(places, folder, CurationConfig(**settings))
    splits: dict[str, str] = {}
    for place, documents in zip(places, parts, strict=True):
        kept = read_parquet(folder / "kept" / place.name).to_pylist()
        assert [row["doc_id"] for row in kept] == [
            one.doc_id for one in documents if one.doc_id in {row["doc_id"] for row in kept}
        ], "in the part's order"
        tables = list(kept_documents(place, folder / "kept" / place.name, ["text"]))
        assert sum(table.num_rows for table in tables) == len(kept)
        by_id = {one.doc_id: one.name for one in documents}
        splits |= {by_id[row["doc_id"]]: row["split"] for row in kept}
    return splits, found


@pytest.fixture
def folder(tmp_path: Path) -> UPath:
    return location(tmp_path.as_uri())


LONG = english(1, 300)


def test_planted_duplicates(folder: UPath) -> None:
    documents = [
        Given("later source", LONG, "second", 1),
        Given("first", LONG),
        Given("near", with_changes(LONG, 1)),
        Given("other", english(2, 300)),
        Given("same words elsewhere", with_changes(LONG, 60)),
        Given("twice", english(2, 300), "second", 1),
        Given("near and later", with_changes(LONG, 2), "second", 1),
    ]
    splits, found = run(folder, [documents[:3], [], documents[3:]])
    first = min((documents[1], documents[2]), key=lambda one: one.doc_id).name
    assert set(splits) == {first, "other", "same words elsewhere"}
    assert found == {"documents": 7, "exact_duplicate": 2, "near_duplicate": 2, "train": 3, "held_out": 0}
    told = read_json(folder / "deduplication.json")
    assert told["tally"]["dropped"] == {
        "docs": {"near_duplicate": 1},
        "second": {"exact_duplicate": 2, "near_duplicate": 1},
    }
    assert told["splits"]["train"]["sources"] == {"docs": 3}
    samples = told["tally"]["samples"]
    assert {one["path"] for one in samples["exact_duplicate"]} == {"later source.md", "twice.md"}
    assert {one["detail"] for one in samples["exact_duplicate"]} == {
        "similarity 1.00 to docs first.md",
        "similarity 1.00 to docs other.md",
    }
    assert all(len(one["text"]) == 200 for one in samples["near_duplicate"])


def random_documents() -> st.SearchStrategy[list[Given]]:
    one = st.builds(
        lambda number, changes, source: (with_changes(english(number, 100), changes), source),
        st.integers(0, 5),
        st.sampled_from([0, 0, 1, 2, 3, 30]),
        st.integers(0, 2),
    )
    return st.lists(one, min_size=1, max_size=40).map(
        lambda found: [Given(str(at), text, f"s{source}", source) for at, (text, source) in enumerate(found)]
    )


@settings(max_examples=25, deadline=None)
@given(documents=random_documents(), seed=st.integers(0, 2**16), parts=st.integers(1, 5))
def test_the_result_does_not_depend_on_sharding(documents: list[Given], seed: int, parts: int) -> None:
    wanted: dict[str, Any] = {"held_out_share": 0.3, "seed": seed}
    with tempfile.TemporaryDirectory() as name:
        folder = location(Path(name).as_uri())
        splits, found = run(folder / "whole", [documents], **wanted)
        draw = random.Random(seed)
        shuffled = draw.sample(documents, len(documents))
        divided = [shuffled[number::parts] for number in range(parts)]
        assert run(folder / "divided", divided, **wanted) == (splits, found)
    kept = [one for one in documents if one.name in splits]
    assert found["train"] + found["held_out"] == len(kept)
    dropped = found.get("exact_duplicate", 0) + found.get("near_duplicate", 0)
    assert len(documents) == len(kept) + dropped
    assert len({one.text for one in kept}) == len(kept)
    check_no_near_duplicates([one.row()["signature"] for one in kept])


def check_no_near_duplicates(found: list[bytes]) -> None:
    """None among those that are kept, so none between the splits."""
    rows = np.frombuffer(b"".join(found), "<u4").reshape(len(found), -1)
    alike = (rows[:, None, :] == rows[None, :, :]).mean(axis=2)
    assert (alike[~np.eye(len(rows), dtype=bool)] < 0.8).all()


def test_the_split_follows_the_cluster_whichever_of_it_is_kept(folder: UPath) -> None:
    texts = {str(number): english(number, 100) for number in range(60)}
    alone = [Given(name, text, "b", 1) for name, text in texts.items()]
    before = [Given(f"copy {name}", text, "a", 0) for name, text in texts.items()]
    first, _ = run(folder / "alone", [alone], held_out_share=0.02)
    second, _ = run(folder / "copied", [alone, before], held_out_share=0.02)
    assert set(second) == {f"copy {name}" for name in texts}
    assert [second[f"copy {name}"] for name in texts] == [first[name] for name in texts]
    assert list(first.values()).count("held_out") == 1


def test_nothing_left_is_an_error_that_says_why(folder: UPath) -> None:
    tally = Tally()
    tally.read["docs"] = 5
    tally.drop("docs", "too_short", 3)
    tally.drop("docs", "other_language", 2)
    write_json(folder / "counts" / "part-00000.json", tally.to_json())
    with pytest.raises(UserError, match="no document is left after the filters: 5 read, too_short 3, other_language 2"):
        run(folder, [[], []])
    assert not any(name.startswith(("kept", "dedup")) for name in list_files(folder))


def test_repeated_it_writes_the_same(folder: UPath) -> None:
    documents = [Given(str(number), english(number % 30, 100)) for number in range(40)]
    first = run(folder, [documents[:20], documents[20:]])
    before = {name: (folder / name).read_bytes() for name in list_files(folder)}
    assert run(folder, [documents[:20], documents[20:]]) == first
    assert {name: (folder / name).read_bytes() for name in list_files(folder)} == before
