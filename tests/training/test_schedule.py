"""The learning rate: up, then down, the same for the same step."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.training.schedule import DECAY, LOWEST, SCHEDULES, Schedule, learning_rate


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(steps=st.integers(1, 5000), peak=st.floats(1e-6, 1.0))
def test_it_rises_to_the_peak_and_falls(schedule: Schedule, steps: int, peak: float) -> None:
    rates = [learning_rate(step, steps, peak, schedule) for step in range(steps)]
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(peak)
    assert all(0 < rate <= peak * (1 + 1e-12) for rate in rates)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_worked_examples() -> None:
    assert learning_rate(0, 100, 1.0, "cosine") == pytest.approx(1 / 5)
    assert learning_rate(4, 100, 1.0, "cosine") == pytest.approx(1.0)
    assert learning_rate(100, 100, 1.0, "cosine") == pytest.approx(LOWEST)
    assert learning_rate(69, 100, 1.0, "wsd") == pytest.approx(1.0)
    assert learning_rate(85, 100, 1.0, "wsd") == pytest.approx(15 / (100 * DECAY))
