"""The baselines: an n-gram model that is one, against the formulas written out, and the compressor."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.training.baselines import NGram, sample, zlib_bits

END, VOCAB = 0, 6
streams = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=80)
Gram = tuple[int, ...]


def grams_of(stream: Sequence[int], order: int) -> list[Gram]:
    """The n-gram that ends at each token; a document's first have end tokens before them."""
    found, document = [], [END] * (order - 1)
    for token in stream:
        document.append(token)
        found.append(tuple(document[-order:]))
        if token == END:
            document = [END] * (order - 1)
    return found


class Reference:
    """Chen and Goodman's interpolated modified Kneser-Ney with dictionaries, formula by formula."""

    def __init__(self, many: Sequence[Sequence[int]], order: int, vocab_size: int = VOCAB) -> None:
        self.vocab_size = vocab_size
        counts = Counter(gram for stream in many for gram in grams_of(stream, order))
        self.counts = {order: counts}
        for length in range(order - 1, 0, -1):  # N1+(. w): how many different tokens stand before
            self.counts[length] = Counter(gram[1:] for gram in self.counts[length + 1])

    def discount(self, length: int, count: int) -> float:
        n = Counter(self.counts[length].values())
        if not all(n[k] for k in (1, 2, 3, 4)):
            return 0.75
        y = n[1] / (n[1] + 2 * n[2])
        k = min(count, 3)
        return min(max(k - (k + 1) * y * n[k + 1] / n[k], 0.0), k)

    def probability(self, gram: Gram) -> float:
        if not gram:
            return 1 / self.vocab_size
        length, shorter = len(gram), self.probability(gram[1:])
        followers = {one: count for one, count in self.counts[length].items() if one[:-1] == gram[:-1]}
        if not followers:
            return shorter
        total = sum(followers.values())
        handed_down = sum(self.discount(length, count) for count in followers.values())
        count = followers.get(gram, 0)
        own = count - self.discount(length, count) if count else 0.0
        return (own + handed_down * shorter) / total


@settings(max_examples=60)
@given(many=st.lists(streams, min_size=1, max_size=3), read=streams, order=st.integers(1, 4))
def test_it_is_modified_kneser_ney(many: list[list[int]], read: list[int], order: int) -> None:
    model = NGram([np.array(one, np.uint16) for one in many], VOCAB, END, order)
    reference = Reference(many, order)
    expected = [-math.log2(reference.probability(gram)) for gram in grams_of(read, order)]
    assert model.bits(np.array(read, np.uint16)) == pytest.approx(expected)


@settings(max_examples=60)
@given(
    many=st.lists(streams, min_size=1, max_size=3),
    context=st.lists(st.integers(0, VOCAB - 1), min_size=3, max_size=5),
    order=st.integers(1, 4),
)
def test_probabilities_sum_to_one_after_any_context(many: list[list[int]], context: list[int], order: int) -> None:
    model = NGram([np.array(one, np.uint16) for one in many], VOCAB, END, order)
    found = model.distribution(np.array(context))
    assert found.shape == (VOCAB,)
    assert found.sum() == pytest.approx(1.0)
    assert found.min() > 0, "what was never seen is possible"


def test_enough_counts_give_discounts_of_their_own() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.zipf(1.5, 4000) % 500
    reference = Reference([tokens.tolist()], 2, 500)
    discounts = [reference.discount(2, count) for count in (1, 2, 3)]
    assert len(set(discounts)) == 3 and 0 < discounts[0] < 1, "the closed form is tested, not the fallback"
    model = NGram([tokens], 500, END, 2)
    for gram in list(reference.counts[2])[:20]:
        assert model.distribution(np.array(gram[:-1]))[gram[-1]] == pytest.approx(reference.probability(gram))


def test_documents_do_not_see_each_other() -> None:
    model = NGram([np.array([3, 4, END, 5, 3, END] * 20, np.uint16)], VOCAB, END)
    alone, behind = model.bits(np.array([5, 3, END])), model.bits(np.array([3, 4, END, 5, 3, END]))[3:]
    assert alone == pytest.approx(behind)
    assert model.bits(np.array([3])) == pytest.approx(1.0, abs=0.05), "half the documents begin with it"


def test_a_habit_costs_little_and_what_breaks_it_much() -> None:
    model = NGram([np.array([*[1, 2, 3, 4] * 50, END], np.uint16)], VOCAB, END)
    bits = model.bits(np.array([1, 2, 3, 4, 1, 2, 5]))
    assert bits[2:6].max() < 0.1 and bits[6] > 5


@pytest.mark.parametrize(
    ("tokens", "vocab_size", "order", "why"),
    [([1], 6, 0, "order=0"), ([1], 6, 5, "order=5"), ([1], 65_537, 3, "vocab_size=65537"), ([], 6, 3, "one token")],
)
def test_what_cannot_be_counted_is_refused(tokens: list[int], vocab_size: int, order: int, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        NGram([np.array(tokens, np.uint16)], vocab_size, END, order)


def test_the_largest_ids_do_not_run_into_each_other() -> None:
    stream = np.array([65_535, 65_534, 65_533, 65_532, END, 65_535, 65_534, 65_533, 1, END], np.uint16)
    found = NGram([stream], 65_536, END, 4).distribution(np.array([65_535, 65_534, 65_533]))
    assert set(np.argsort(found)[-2:].tolist()) == {1, 65_532}


@given(
    sizes=st.lists(st.integers(0, 4000), min_size=1, max_size=4),
    max_tokens=st.integers(50, 5000),
    mean=st.integers(5, 400),
)
def test_a_sample_is_of_whole_beginnings_and_no_larger_than_told(sizes: list[int], max_tokens: int, mean: int) -> None:
    rng = np.random.default_rng(1)
    files = [np.where(rng.random(size) < 1 / mean, END, rng.integers(1, 100, size)).astype(np.uint16) for size in sizes]
    files[0] = np.append(files[0], np.uint16(END))
    found = sample(files, max_tokens, END)
    total = sum(map(len, files))
    assert sum(map(len, found)) == total if total <= max_tokens else 0 < sum(map(len, found)) <= max_tokens


def test_a_sample_is_from_all_over_the_corpus() -> None:
    files = [np.arange(1, 200_001) % 50 for _ in range(2)]
    numbered = [file + 100 * number for number, file in enumerate(files)]
    for file in numbered:
        file[99::100] = END
    found = sample(numbered, 140_000, END)
    assert len(found) == 2 and 130_000 < sum(map(len, found)) <= 140_000
    assert {int(one[0]) // 100 for one in found} == {0, 1}


def test_of_order_1_it_is_about_each_tokens_share() -> None:
    stream = np.repeat([1, 2, 3], [700, 200, 100])
    found = NGram([stream], VOCAB, END, 1)
    assert found.distribution(np.empty(0, int))[1:4] == pytest.approx([0.7, 0.2, 0.1], abs=0.002)
    assert found.bits(np.array([1, 3, 1])) == pytest.approx(found.bits(np.array([3, 1, 1]))[[1, 0, 2]])


def test_zlib_compresses_the_text_whole() -> None:
    text = b"as one does " * 40
    assert zlib_bits(text) == 8 * len(zlib.compress(text, 9)) < 8 * len(text) / 10
