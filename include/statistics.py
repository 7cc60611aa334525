"""How sure a mean is: bootstrap intervals over the items of an evaluation, and over paired differences.

Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13; for retrieval measures Sakai, SIGIR 2006.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
RESAMPLES = 2000
SEED = 1234


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A mean and the percentile interval about it."""

    mean: float
    low: float
    high: float


def mean_interval(values: Sequence[float], *, confidence: float = CONFIDENCE, seed: int = SEED) -> Interval:
    """The mean of independent items with its bootstrap interval; the same values give the same interval.

    Of one value, or of values that are all equal, the interval is that value: resampling cannot tell more, so a caller
    asks for a least number of items beside it. ValueError for no value, or one that is no finite number.
    """
    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError(f"a mean needs at least one finite value; got {list(values)[:5]}")
    if min(values) == max(values):
        value = float(values[0])
        return Interval(mean=value, low=value, high=value)
    import numpy as np
    from scipy.stats import bootstrap

    # Percentile, not BCa: BCa is undefined where few items differ, which good and bad indexes alike come to.
    found = bootstrap(
        (np.asarray(values, dtype=float),),
        np.mean,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=100,  # of all resamples at once, the memory would grow with their number times the items
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean=math.fsum(values) / len(values), low=float(found.low), high=float(found.high))


def paired_difference(
    after: Sequence[float], before: Sequence[float], *, confidence: float = CONFIDENCE, seed: int = SEED
) -> Interval:
    """The mean of after - before, item by item, with its interval; ValueError if they are not equally many."""
    differences = [one - other for one, other in zip(after, before, strict=True)]
    return mean_interval(differences, confidence=confidence, seed=seed)
