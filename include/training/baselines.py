"""What a language model has to beat: an n-gram model, which of order 1 knows no context, and a general compressor.

NumPy and the standard library alone. Token ids are below 65,536, so that four of them make one 64-bit key.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Keys = npt.NDArray[np.uint64]

TOKEN_BITS = 16
MAX_ORDER = 4
BLOCK_TOKENS = 65_536
"""Of a sample of a corpus that is too large to be counted whole."""
PLAIN_DISCOUNT = 0.75
"""Where a corpus is too small to estimate one; Chen and Goodman find such values best for unmodified Kneser-Ney."""


class NGram:
    """Interpolated modified Kneser-Ney: the strongest of the smoothed n-gram models.

    Chen and Goodman, An Empirical Study of Smoothing Techniques for Language Modeling, 1999, section 3: the highest
    order counts n-grams, each lower one how many different tokens stand before; three discounts an order, estimated in
    closed form from the counts of counts; the lowest order is mixed with the uniform distribution over the vocabulary.
    """

    def __init__(self, streams: Sequence[Ids], vocab_size: int, end_id: int, order: int = 3) -> None:
        """Count. Each stream begins with a document, and documents are ended by the end token.

        A document's first tokens have end tokens as their context, whatever stands before. ValueError for an order
        that is not from 1 to 4, a vocabulary beyond 65,536 or no token at all.
        """
        if not 1 <= order <= MAX_ORDER:
            raise ValueError(f"order={order} must be from 1 to {MAX_ORDER}")
        if not 1 <= vocab_size <= 1 << TOKEN_BITS:
            raise ValueError(f"vocab_size={vocab_size} must be from 1 to {1 << TOKEN_BITS}")
        self.order, self.vocab_size, self.end_id = order, vocab_size, end_id
        self.num_tokens = sum(map(len, streams))
        if not self.num_tokens:
            raise ValueError("an n-gram model needs at least one token")
        keys, counts = np.unique(np.concatenate([self._keys(one) for one in streams]), return_counts=True)
        orders = [_Order(keys, counts)]
        for length in range(order - 1, 0, -1):
            keys, counts = np.unique(_last(keys, length), return_counts=True)
            orders.append(_Order(keys, counts))
        self._orders = orders[::-1]

    def bits(self, stream: Ids) -> Floats:
        """What each token of a stream of documents costs, -log2 of its probability; (tokens,)."""
        return -np.log2(self._probabilities(self._keys(stream)))

    def distribution(self, context: Ids) -> Floats:
        """Probability of each token of the vocabulary after a context, its last order - 1 tokens; (vocabulary,)."""
        recent = np.asarray(context)[len(context) - self.order + 1 :] if self.order > 1 else np.empty(0, np.int64)
        rows = np.concatenate([np.tile(recent, (self.vocab_size, 1)), np.arange(self.vocab_size)[:, None]], axis=1)
        return self._probabilities(_packed(rows.astype(np.uint64).T))

    def _probabilities(self, keys: Keys) -> Floats:
        found = np.full(len(keys), 1 / self.vocab_size)
        for length, order in enumerate(self._orders, start=1):
            found = order.mix(_last(keys, length), found)
        return found

    def _keys(self, stream: Ids) -> Keys:
        """The n-gram that ends at each token, packed."""
        tokens = np.asarray(stream).astype(np.uint64)
        columns, is_first = [tokens], np.ones(len(tokens), bool)
        is_first[1:] = tokens[:-1] == self.end_id
        starts = np.maximum.accumulate(np.where(is_first, np.arange(len(tokens)), 0))
        place = np.arange(len(tokens)) - starts
        for back in range(1, self.order):
            earlier = np.full(len(tokens), self.end_id, np.uint64)
            earlier[back:] = tokens[:-back]
            columns.append(np.where(place >= back, earlier, np.uint64(self.end_id)))
        return _packed(np.stack(columns[::-1]))


class _Order:
    """The n-grams of one length: how much each is worth after its discount, and what its context hands down."""

    def __init__(self, keys: Keys, counts: npt.NDArray[np.int64]) -> None:
        discounts = _discounts(counts)[np.minimum(counts, 3)]
        self._keys, self._worth = keys, counts - discounts
        self._contexts, firsts = np.unique(keys >> np.uint64(TOKEN_BITS), return_index=True)
        self._totals = np.add.reduceat(counts, firsts)
        self._handed_down = np.add.reduceat(discounts, firsts)

    def mix(self, keys: Keys, shorter: Floats) -> Floats:
        """Probabilities at this length, from those of the length below; a context that is unknown adds nothing."""
        worth = _look_up(self._keys, self._worth, keys, 0.0)
        contexts = keys >> np.uint64(TOKEN_BITS)
        totals = _look_up(self._contexts, self._totals, contexts, 0.0)
        handed_down = _look_up(self._contexts, self._handed_down, contexts, 0.0)
        is_known = totals > 0
        mixed: Floats = np.where(is_known, (worth + handed_down * shorter) / np.where(is_known, totals, 1), shorter)
        return mixed


def _discounts(counts: npt.NDArray[np.int64]) -> Floats:
    """What is taken from a count of 0, of 1, of 2 and of 3 or more; none is more than the count."""
    of = np.bincount(np.minimum(counts, 5), minlength=6)[:5].astype(float)
    if not of[1:5].all():
        return np.array([0.0, *[PLAIN_DISCOUNT] * 3])
    share = of[1] / (of[1] + 2 * of[2])
    return np.array([0.0, *(np.clip(k - (k + 1) * share * of[k + 1] / of[k], 0, k) for k in (1, 2, 3))])


def _packed(columns: npt.NDArray[np.uint64]) -> Keys:
    """One key of each column's tokens, the last in the lowest bits; (length, number) -> (number,)."""
    keys = np.zeros(columns.shape[1], np.uint64)
    for row in columns:
        keys = (keys << np.uint64(TOKEN_BITS)) | row
    return keys


def _last(keys: Keys, length: int) -> Keys:
    """The keys of the last tokens."""
    return keys & np.uint64((1 << TOKEN_BITS * length) - 1)


def _look_up(keys: Keys, values: npt.NDArray[Any], wanted: Keys, default: float) -> Floats:
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], default)


def sample(files: Sequence[Ids], max_tokens: int, end_id: int) -> list[Ids]:
    """Streams of a corpus to count, each beginning with a document: all of it, or blocks from all over it.

    Of a memory-mapped corpus only the blocks are read. At most max_tokens tokens.
    """
    total = sum(map(len, files))
    if total <= max_tokens:
        return [np.asarray(file) for file in files if len(file)]
    size = min(BLOCK_TOKENS, max_tokens)
    starts = np.linspace(0, total - size, max(1, max_tokens // size)).astype(np.int64)
    firsts = np.cumsum([0, *map(len, files)])
    found = []
    for start in starts:
        number = int(np.searchsorted(firsts, start, side="right")) - 1
        block = np.asarray(files[number][start - firsts[number] :][:size])
        ends = np.flatnonzero(block == end_id)
        first = 0 if start == firsts[number] else int(ends[0]) + 1 if len(ends) else len(block)
        if first < len(block):
            found.append(block[first:])
    return found or [np.asarray(next(file for file in files if len(file))[:max_tokens])]


def zlib_bits(text: bytes) -> int:
    """Size of a text compressed whole at level 9, without a dictionary: zlib's holds 32 KB, no training corpus."""
    return 8 * len(zlib.compress(text, 9))
