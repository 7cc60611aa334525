"""Words of a text and hashes of the n-grams that they form; what near duplicates and contamination are told by."""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
# Each ideograph and kana is a word by itself: their languages put no blanks between words.
_WORD = re.compile(f"[^\\W_{_IDEOGRAPHS}]+|[{_IDEOGRAPHS}]")
_FACTOR = 0x9E3779B97F4A7C15
"""Odd, so that no word's bits get lost however far in front it stands."""


def words(text: str) -> list[str]:
    """Runs of letters and digits in lower case, without punctuation."""
    return _WORD.findall(text.lower())


def word_hashes(found: list[str]) -> Hashes:
    """A 64-bit hash of each word, the same on every machine."""
    return np.fromiter(map(_hash, found), np.uint64, len(found))


def ngram_hashes(hashes: Hashes, n: int) -> Hashes:
    """A 64-bit hash of each n words in a row, of the words' own; none if there are fewer than n.

    A polynomial modulo 2**64 over hashes of words: two n-grams share one with the chance of 2**-64.
    """
    count = len(hashes) - n + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    made = np.zeros(count, np.uint64)
    for place in range(n):
        made *= np.uint64(_FACTOR)
        made += hashes[place : place + count]
    return made


@lru_cache(maxsize=1 << 17)
def _hash(word: str) -> int:
    return int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
