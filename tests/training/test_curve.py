"""The plot of a training run: it is one, shows what was measured, and is the same each time."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest

from include.training.curve import baselines, draw
from tests.training.release_parts import BYTES, TOKENS, evaluation, point


def pixels(png: bytes) -> Any:
    """(height, width, 4), 0 to 1."""
    from matplotlib.image import imread

    return imread(io.BytesIO(png))


@pytest.mark.parametrize("architecture", ["decoder", "encoder_decoder"])
def test_a_curve_is_drawn_the_same_each_time(architecture: str) -> None:
    png = draw(evaluation(architecture), "base, version 1")
    assert png == draw(evaluation(architecture), "base, version 1")
    height, width, _ = pixels(png).shape
    assert (width, height) == (960, 648)
    assert b"matplotlib" not in png.lower()


def test_what_was_measured_is_seen() -> None:
    as_it_was = pixels(draw(evaluation(), "t"))
    for change in (
        {"curve": [point(step) | {"loss": 3.0} for step in range(10, 110, 10)]},
        {"curve": [point(step) | {"held_out_loss": 3.0} for step in range(10, 110, 10)]},
        {"curve": [point(step) | {"learning_rate": step / 1e5} for step in range(10, 110, 10)]},
        {"curve": [point(step) | {"grad_norm": 9.0} for step in range(10, 110, 10)]},
        {"baselines": {"ngram": {"order": 3, "bits_per_byte": 3.0}, "zlib": {"bits_per_byte": 2.5}}},
    ):
        assert (pixels(draw(evaluation(**change), "t")) != as_it_was).any(), change


@pytest.mark.parametrize(
    "curve",
    [
        [],
        [point(10)],
        [point(10) | {"loss": float("nan"), "grad_norm": float("inf")}, point(20)],
        [{"step": 10, "loss": 2.0}],
    ],
    ids=["empty", "one point", "no numbers", "only a loss"],
)
def test_a_poor_curve_is_drawn_too(curve: list[dict[str, float]]) -> None:
    assert pixels(draw(evaluation(curve=curve), "t")).shape[2] == 4


def test_a_title_is_text_and_no_formula() -> None:
    assert draw(evaluation(), r"$\frac{1}{0}$ and an unpaired $").startswith(b"\x89PNG")


def test_baselines_are_told_in_the_unit_of_the_loss() -> None:
    per_token = math.log(2) * BYTES / TOKENS
    assert baselines(evaluation()) == {
        "3-gram model": pytest.approx(2.0 * per_token),
        "zlib": pytest.approx(2.5 * per_token),
    }
    assert baselines(evaluation("encoder_decoder")) == {"unigram": 6.0}
