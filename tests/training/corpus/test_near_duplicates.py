"""Clusters of signatures against the definition: what estimated similarities link, whatever the order."""

from __future__ import annotations

import itertools
import random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.training.corpus import near_duplicates as module
from include.training.corpus.curate import PERMUTATIONS, SHINGLE_WORDS, signatures
from include.training.corpus.near_duplicates import BANDS, ROWS, Clusters, Signatures, near_duplicates
from include.training.corpus.words import ngram_hashes, word_hashes, words
from tests.training.corpus.texts import english


def signed(texts: list[str]) -> Signatures:
    made = signatures([ngram_hashes(word_hashes(words(text)), SHINGLE_WORDS) for text in texts])
    return np.frombuffer(b"".join(made), "<u4").reshape(-1, PERMUTATIONS)


def linked(found: Signatures, min_similarity: float) -> list[int]:
    """The definition, by comparing all pairs."""
    above = list(range(len(found)))
    for one in range(len(found)):
        for other in range(one):
            if (found[one] == found[other]).mean() >= min_similarity:
                first, second = sorted((above[one], above[other]))
                above = [first if top == second else top for top in above]
    return above


def with_changes(text: str, count: int) -> str:
    """The same text with some words of it replaced, far from each other."""
    found = text.split()
    for place in range(count):
        found[(place + 1) * len(found) // (count + 1)] = f"changed{place}"
    return " ".join(found)


def test_one_changed_word_is_a_near_duplicate_and_another_text_is_not() -> None:
    texts = [english(1, 300), with_changes(english(1, 300), 1), english(2, 300), with_changes(english(1, 300), 60)]
    firsts, uncompared = near_duplicates(signed(texts), np.arange(4), 0.8)
    assert firsts.tolist() == [0, 0, 2, 3]
    assert uncompared == 0


def chain(length: int) -> Signatures:
    """Each a near duplicate of the one before it, the last none of the first."""
    found = english(1, 300).split()
    texts = [" ".join(found)]
    for place in range(1, length):
        found[20 * place] = "changed"
        texts.append(" ".join(found))
    return signed(texts)


def test_of_a_chain_no_two_that_are_near_stand_for_themselves() -> None:
    found = chain(12)
    assert (found[0] == found[-1]).mean() < 0.7
    firsts, _ = near_duplicates(found, np.arange(12), 0.8)
    check(found, list(range(12)), firsts)
    assert 1 <= len(set(firsts.tolist())) < 6


@settings(max_examples=50, deadline=None)
@given(
    picks=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 25)), min_size=1, max_size=14),
    draw=st.randoms(use_true_random=False),
)
def test_clusters_are_of_near_duplicates_alone_whatever_the_order(
    picks: list[tuple[int, int]], draw: random.Random
) -> None:
    found = signed([with_changes(english(number, 150), changes) for number, changes in picks])
    rows = draw.sample(range(len(picks)), len(picks))
    check(found, rows, near_duplicates(found, np.array(rows), 0.8)[0])


def check(found: Signatures, rows: list[int], firsts: npt.NDArray[np.int64]) -> None:
    """Each cluster lies within what all pairs link; no two firsts are near; a first comes first."""
    links = linked(found, 0.8)
    for at, first in enumerate(firsts.tolist()):
        assert first <= at
        assert links[rows[first]] == links[rows[at]]
    alone = [rows[first] for first in set(firsts.tolist())]
    for one, other in itertools.combinations(alone, 2):
        assert (found[one] == found[other]).mean() < 0.8


def test_a_band_that_many_share_is_bounded_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(1)
    found = draw.integers(0, 2**32, (300, BANDS * ROWS), dtype=np.uint32)
    found[:, :ROWS] = 7  # one band of boilerplate
    found[299] = found[0]
    firsts, uncompared = near_duplicates(found, np.arange(300), 0.8)
    assert firsts.tolist() == [*range(299), 0]
    assert uncompared == 300 - 64 - 1
    monkeypatch.setattr(module, "MAX_PIVOTS", 300)
    assert near_duplicates(found, np.arange(300), 0.8)[1] == 0


def test_pairs_are_compared_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    found = signed([english(1), english(2), english(1), english(2), english(3)])
    monkeypatch.setattr(module, "_PAIRS", 2)
    assert near_duplicates(found, np.arange(5), 0.8)[0].tolist() == [0, 1, 0, 1, 4]
    assert near_duplicates(found[:0], np.arange(0), 0.8)[0].tolist() == []


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_each_set_is_known_by_its_smallest(pairs: list[tuple[int, int]]) -> None:
    clusters = Clusters(10)
    sets = [{number} for number in range(10)]
    for first, second in pairs:
        clusters.join(first, second)
        both = sets[first] | sets[second]
        for member in both:
            sets[member] = both
    assert clusters.firsts().tolist() == [min(mine) for mine in sets]


def test_signatures_estimate_the_similarity() -> None:
    """By the exact one of the shingles' sets, on average to 0.01."""
    errors = []
    for number in range(60):
        texts = [english(number, 200), with_changes(english(number, 200), number % 12)]
        first, second = (set(ngram_hashes(word_hashes(words(text)), SHINGLE_WORDS).tolist()) for text in texts)
        found = signed(texts)
        errors.append((found[0] == found[1]).mean() - len(first & second) / len(first | second))
    assert abs(np.mean(errors)) < 0.01
    assert np.std(errors) < 0.05
