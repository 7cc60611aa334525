from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from include.errors import DriftError, UserError
from include.storage import location, read_parquet
from include.training.corpus import decontaminate as module
from include.training.corpus.decontaminate import Contamination, index_evaluation_sets, read_indexed_sets
from include.training.corpus.words import word_hashes, words
from tests.training.corpus.curation import jsonl
from tests.training.corpus.texts import english

QUESTION = "Which worker opens the window before the end of the day when nobody is looking at the old garden?"


@pytest.fixture
def target(tmp_path: Path) -> UPath:
    return location(tmp_path.as_uri())


def evaluation_set(target: UPath, *records: object, name: str = "set.jsonl") -> str:
    data = jsonl(records)
    target.mkdir(parents=True, exist_ok=True)
    (target / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return str(target / name)


def found(contamination: Contamination, text: str) -> str | None:
    return contamination.found(words(text), word_hashes(words(text)))


@pytest.mark.parametrize("name", ["set.jsonl", "set.jsonl.gz"])
def test_thirteen_words_in_a_row_are_found_and_twelve_are_not(target: UPath, name: str) -> None:
    uri = evaluation_set(target, {"id": 7, "question": QUESTION, "choices": ["yes", english(1, 30)]}, name=name)
    made = index_evaluation_sets([uri], target)
    contamination = Contamination.read(target)
    thirteen = " ".join(words(QUESTION)[3:16])
    assert found(contamination, f"{english(5)} {thirteen.upper().replace(' ', ', ')} {english(6)}") == thirteen
    assert found(contamination, f"{english(5)} {' '.join(words(QUESTION)[3:15])} {english(6)}") is None
    assert found(contamination, english(1, 30)) is not None  # a text inside a list
    assert found(contamination, english(5)) is None
    assert found(contamination, "") is None
    assert (made.texts, made.too_short) == (3, 1)
    assert made == read_indexed_sets(target)


def test_a_short_text_counts_where_all_of_it_stands(target: UPath) -> None:
    index_evaluation_sets([evaluation_set(target, {"text": "one two three four five six seven eight nine"})], target)
    contamination = Contamination.read(target)
    assert found(contamination, "zero one two three four five six seven eight nine ten") is not None
    assert found(contamination, "one two three four five six seven eight") is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=30).map(" ".join), max_size=6), st.integers(1, 100))
def test_the_index_holds_each_ngram_once_and_sorted(texts: list[str], merge_at: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MERGE_AT", merge_at)
        target = UPath("memory://ngrams")
        made = index_evaluation_sets([evaluation_set(target, *texts, "a b c d e f g h i")], target)
    grams = set()
    for text in [*texts, "a b c d e f g h i"]:
        mine = text.split()
        if len(mine) >= 8:
            n = min(13, len(mine))
            grams |= {tuple(mine[at : at + n]) for at in range(len(mine) - n + 1)}
    table = read_parquet(target / "evaluation_ngrams.parquet")
    assert made.ngrams == table.num_rows == len(grams)
    lengths, hashes = table["words"].to_numpy(), table["hash"].to_numpy()
    assert np.array_equal(np.lexsort((hashes, lengths)), np.arange(len(lengths)))
    contamination = Contamination.read(target)
    for gram in grams:
        assert found(contamination, " ".join(gram)) is not None


def test_the_digest_is_of_the_ngrams_alone(target: UPath) -> None:
    uris = [evaluation_set(target, {"a": english(n)}, name=f"{n}.jsonl") for n in range(3)]
    one = index_evaluation_sets(uris, target).digest
    assert index_evaluation_sets(uris[::-1], target / "other").digest == one
    assert index_evaluation_sets(uris[:2], target).digest != one
    assert index_evaluation_sets([], target).ngrams == 0


def test_a_set_that_is_not_understood_is_refused(target: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(uri: str, message: str) -> None:
        with pytest.raises(UserError, match=message):
            index_evaluation_sets([uri], target / "none")
        assert not (target / "none").exists()

    refused(str(target / "none.jsonl"), "none.jsonl is not there: give the URI of a JSON lines file")
    refused(str(target), "is not there")
    refused(evaluation_set(target, {"answer": "B", "n": 4}), "has no text of at least 8 words")
    (target / "torn.jsonl").write_bytes(b'{"a": "b"}\n{"a": \n')
    refused(str(target / "torn.jsonl"), "torn.jsonl: line 2 is not JSON")
    (target / "torn.jsonl.gz").write_bytes(gzip.compress(jsonl([{"a": QUESTION}]))[:-20])
    refused(str(target / "torn.jsonl.gz"), "torn.jsonl.gz cannot be unpacked")
    (target / "plain.jsonl.gz").write_bytes(b"{}")
    refused(str(target / "plain.jsonl.gz"), "plain.jsonl.gz cannot be unpacked")
    monkeypatch.setattr(module, "MAX_NGRAMS", 5)
    refused(
        evaluation_set(target, {"question": QUESTION}), "evaluation_sets: 7 runs of 13 words or more; the limit is 5"
    )
    with pytest.raises(DriftError, match="the n-grams of evaluation sets are not there"):
        Contamination.read(target / "none")
    with pytest.raises(DriftError, match="the n-grams of evaluation sets are not there"):
        read_indexed_sets(target / "none")
