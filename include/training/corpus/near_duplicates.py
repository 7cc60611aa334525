"""Clusters of near duplicates among MinHash signatures, by locality-sensitive hashing, whatever order they come in.

A signature of 128 numbers is divided into BANDS of ROWS. Two texts of Jaccard similarity s agree in one band at least
with the chance of 1 - (1 - s**ROWS)**BANDS (Leskovec et al., Mining of Massive Datasets, 3.4.2): at 0.8 all but one in
20 million, at 0.9 all. Those that agree are compared by all of their numbers, of which the share that agrees estimates
their similarity.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Signatures = npt.NDArray[np.uint32]
Places = npt.NDArray[np.int64]

BANDS = 32
ROWS = 4
MAX_PIVOTS = 64
"""How many of those that share a band are compared with all the others: a band that is the boilerplate of a million
otherwise different texts would make a million million comparisons."""
_PAIRS = 1 << 16
"""Compared at once; 64 MB."""
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)


class Clusters:
    """Sets that are joined pair by pair; each is known by its smallest member."""

    def __init__(self, count: int) -> None:
        self._above = np.arange(count, dtype=np.int64)

    def join(self, first: int, second: int) -> None:
        """Make one set of the two that these are in."""
        first, second = self._top(first), self._top(second)
        self._above[max(first, second)] = min(first, second)

    def firsts(self) -> Places:
        """The smallest member of each one's set."""
        above = self._above
        while not np.array_equal(above, above[above]):
            above = above[above]
        return above

    def _top(self, place: int) -> int:
        above = self._above
        while above[place] != place:
            above[place] = above[above[place]]
            place = int(above[place])
        return place


def near_duplicates(signatures: Signatures, rows: Places, min_similarity: float) -> tuple[Places, int]:
    """For each of some rows, the place among them of the first of its cluster; and how many MAX_PIVOTS left uncompared.

    `signatures` has BANDS x ROWS columns and stays where it is, in memory or in a file. Of a cluster the row that comes
    first in `rows` stands for all. No two that stand for clusters are near duplicates, but for what was not compared.
    """
    assert signatures.shape[1] == BANDS * ROWS
    clusters, uncompared = Clusters(len(rows)), 0
    for band in range(BANDS):
        keys = np.concatenate(
            [_keys(signatures[some, band * ROWS : (band + 1) * ROWS]) for some in _pieces(rows)]
            or [np.empty(0, np.uint64)]
        )
        uncompared += _join_equal(keys, signatures, rows, clusters, min_similarity)
    return clusters.firsts(), uncompared


def similarity(signatures: Signatures, first: Places, second: Places) -> npt.NDArray[np.float64]:
    """The estimated Jaccard similarity of pairs of rows: the share of numbers that agree."""
    pairs = zip(_pieces(first), _pieces(second), strict=True)
    found = [(signatures[some] == signatures[others]).mean(axis=1) for some, others in pairs]
    return np.concatenate(found) if found else np.empty(0)


def _pieces(rows: Places) -> list[Places]:
    return [rows[start : start + _PAIRS] for start in range(0, len(rows), _PAIRS)]


def _keys(band: Signatures) -> npt.NDArray[np.uint64]:
    """One 64-bit number for each row of a band. Where two bands collide, comparing all numbers tells them apart."""
    pairs = np.ascontiguousarray(band).view(np.uint64)
    mixed = pairs * _FACTORS
    return np.asarray((mixed[:, 0] ^ (mixed[:, 0] >> np.uint64(29))) + mixed[:, 1])


def _join_equal(
    keys: npt.NDArray[np.uint64], signatures: Signatures, rows: Places, clusters: Clusters, min_similarity: float
) -> int:
    """Join near duplicates among the rows that share a key; how many were not compared.

    In each group the first row is compared with all the others, then the first of those that are no near duplicates of
    it, and so on.
    """
    order = np.argsort(keys, kind="stable").astype(np.int64)
    group = np.cumsum(_is_first(keys[order]))
    for _ in range(MAX_PIVOTS):
        is_first = _is_first(group)
        others = order[~is_first]
        if not len(others):
            return 0
        pivots = order[is_first][np.cumsum(is_first)[~is_first] - 1]
        is_near = similarity(signatures, rows[pivots], rows[others]) >= min_similarity
        for pivot, other in zip(pivots[is_near].tolist(), others[is_near].tolist(), strict=True):
            clusters.join(pivot, other)
        order, group = others[~is_near], group[~is_first][~is_near]
    return len(order)


def _is_first(sorted_values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Whether each value differs from the one before it."""
    found = np.ones(len(sorted_values), np.bool_)
    found[1:] = sorted_values[1:] != sorted_values[:-1]
    return found
