"""Which documents are held out: of each source some, by the digest of their cluster, so that all runs agree."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from include.training.corpus.config import CurationConfig

HELD_OUT_FROM = 20
"""Documents from which a source has at least one held out; a smaller one would lose too much of itself."""


def held_out(
    sources: npt.NDArray[np.int32], sizes: npt.NDArray[np.int64], keys: npt.NDArray[np.uint64], config: CurationConfig
) -> npt.NDArray[np.bool_]:
    """Whether each document is held out: held_out_share of each source's, those whose keys a seed puts first.

    `sources` has a number for each one's source, `sizes` are in bytes, `keys` digests of their clusters. No source
    holds out more than its even part of max_held_out_bytes; a document that does not fit in there is passed over.
    """
    chosen = np.zeros(len(sources), np.bool_)
    mine = {source: np.flatnonzero(sources == source) for source in np.unique(sources).tolist()}
    wanted = {source: _wanted(len(rows), config.held_out_share) for source, rows in mine.items()}
    limit = config.max_held_out_bytes // max(1, sum(map(bool, wanted.values())))
    places = _shuffled(keys, config.seed)
    for source, rows in mine.items():
        total = number = 0
        for row in rows[np.argsort(places[rows], kind="stable")].tolist():
            if number == wanted[source]:
                break
            if total + sizes[row] <= limit:
                chosen[row] = True
                total, number = total + int(sizes[row]), number + 1
    return chosen


def _wanted(documents: int, share: float) -> int:
    """How many of a source's documents; never all."""
    at_least = 1 if share and documents >= HELD_OUT_FROM else 0
    return min(max(at_least, round(share * documents)), documents - 1)


def _shuffled(keys: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.uint64]:
    """Another number for each, evenly spread whatever the keys are (the finaliser of SplitMix64)."""
    mixed = keys ^ np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))
