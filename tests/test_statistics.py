"""Bootstrap intervals: they hold the mean, narrow with more items, and say so where there is nothing to resample."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.statistics import Interval, mean_interval, paired_difference

scores = st.lists(st.sampled_from([0.0, 0.2, 0.5, 1.0]), min_size=1, max_size=30)


@settings(deadline=None, max_examples=30)
@given(scores)
def test_an_interval_lies_within_the_values_and_is_the_same_every_time(values: list[float]) -> None:
    found = mean_interval(values)
    assert found.mean == pytest.approx(sum(values) / len(values))
    assert min(values) - 1e-12 <= found.low <= found.mean + 1e-12
    assert found.mean - 1e-12 <= found.high <= max(values) + 1e-12
    assert found == mean_interval(values)


@pytest.mark.parametrize("values", [[0.3], [1.0] * 7, [0.0, 0.0]])
def test_values_without_any_spread_have_an_interval_of_one_point(values: list[float]) -> None:
    assert mean_interval(values) == Interval(mean=values[0], low=values[0], high=values[0])


@pytest.mark.parametrize("values", [[], [float("nan"), 1.0], [float("inf")]])
def test_nothing_and_what_is_no_number_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one finite value"):
        mean_interval(values)


def test_the_interval_agrees_with_the_normal_approximation_of_many_items() -> None:
    generator = random.Random(7)
    values = [generator.gauss(10.0, 2.0) for _ in range(400)]
    found = mean_interval(values)
    assert found.high - found.low == pytest.approx(2 * 1.96 * 2.0 / 20, rel=0.15)
    wide = mean_interval(values, confidence=0.99)
    assert wide.low < found.low < found.high < wide.high


def test_pairing_sees_what_two_separate_intervals_do_not() -> None:
    generator = random.Random(7)
    before = [generator.random() for _ in range(40)]
    after = [value - 0.05 + generator.uniform(-0.01, 0.01) for value in before]
    assert mean_interval(after).high > mean_interval(before).low
    found = paired_difference(after, before)
    assert found.high < -0.04
    with pytest.raises(ValueError, match="argument 2"):
        paired_difference([1.0], [1.0, 0.0])
