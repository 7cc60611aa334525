"""Span denoising: what is left out can be put back, as much is left out as the paper says, and everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.training.denoise import corrupt

END, FIRST, COUNT = 0, 900, 100


def restored(inputs: list[int], targets: list[int], first: int, count: int) -> list[int]:
    """The passage: each sentinel of the inputs replaced by what follows it in the targets."""
    spans: dict[int, list[int]] = {}
    for token in targets[:-1]:
        if first <= token < first + count:
            spans[last := token] = []
        else:
            spans[last].append(token)
    assert list(spans) == [first + number for number in range(len(spans))]
    assert all(spans.values()), "a sentinel stands for at least one token"
    found: list[int] = []
    for token in inputs[:-1]:
        found += spans.pop(token) if first <= token < first + count else [token]
    assert not spans
    return found


@given(
    tokens=st.lists(st.integers(1, 800), min_size=1, max_size=300),
    seed=st.integers(0, 2**32),
    noise=st.floats(0.01, 1.0),
    mean_span=st.floats(1.0, 10.0),
    count=st.integers(1, COUNT),
)
def test_what_is_left_out_can_be_put_back(
    tokens: list[int], seed: int, noise: float, mean_span: float, count: int
) -> None:
    given_tokens = np.array(tokens, np.uint16)
    inputs, targets = corrupt(
        given_tokens, np.random.default_rng(seed), FIRST, count, END, noise=noise, mean_span=mean_span
    )
    assert inputs.dtype == targets.dtype == np.int64
    assert inputs[-1] == targets[-1] == END
    assert len(inputs) <= len(tokens) + 1
    assert restored(inputs.tolist(), targets.tolist(), FIRST, count) == tokens
    assert given_tokens.tolist() == tokens, "what was given is not changed"


@pytest.mark.parametrize(("length", "num_noise", "num_spans"), [(1, 1, 1), (2, 1, 1), (100, 15, 5), (1000, 150, 50)])
def test_as_much_is_left_out_as_the_paper_says(length: int, num_noise: int, num_spans: int) -> None:
    inputs, targets = corrupt(np.arange(1, length + 1) % 800 + 1, np.random.default_rng(1), FIRST, COUNT, END)
    assert (len(inputs), len(targets)) == (length - num_noise + num_spans + 1, num_noise + num_spans + 1)


def test_spans_are_as_many_as_sentinels_at_most() -> None:
    inputs, _ = corrupt(np.full(1000, 5), np.random.default_rng(1), FIRST, 7, END)
    assert (inputs >= FIRST).sum() == 7


def test_what_is_left_out_lies_everywhere() -> None:
    tokens, left_out = np.arange(1, 101), np.zeros(100)
    for seed in range(2000):
        inputs, _ = corrupt(tokens, np.random.default_rng(seed), FIRST, COUNT, END)
        left_out[np.setdiff1d(tokens, inputs) - 1] += 1
    share = left_out / 2000
    assert share.mean() == pytest.approx(0.15)
    assert share[[0, -1]].min() > 0.05, "a passage may begin or end with a span"
    assert share[3:-3].min() > 0.12 and share.max() < 0.18


def test_the_same_generator_gives_the_same_spans() -> None:
    first, second = (corrupt(np.arange(1, 200), np.random.default_rng(3), FIRST, COUNT, END) for _ in range(2))
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))
    other_inputs, _ = corrupt(np.arange(1, 200), np.random.default_rng(4), FIRST, COUNT, END)
    assert not np.array_equal(first[0], other_inputs)


def test_no_token_is_no_passage() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        corrupt(np.empty(0, np.int64), np.random.default_rng(1), FIRST, COUNT, END)
