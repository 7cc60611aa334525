from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from include.training.corpus.words import ngram_hashes, word_hashes, words

WORDS = st.lists(st.sampled_from(["a", "b", "c", "the", "Zürich"]), max_size=12)


def test_words_are_letters_and_digits_in_lower_case() -> None:
    assert words("The Cat's 2 naïve_files, Été!") == ["the", "cat", "s", "2", "naïve", "files", "été"]
    assert words("任务abc运行") == ["任", "务", "abc", "运", "行"]
    assert words("... --- ...") == []


def test_hashes_are_the_same_on_every_machine() -> None:
    assert word_hashes(["task"]).tolist() == [16033963842909639629]
    assert word_hashes(words("\ud800")).tolist() == []


@given(WORDS, WORDS, st.integers(1, 5))
def test_ngrams_are_equal_where_their_words_are(first: list[str], second: list[str], n: int) -> None:
    one, other = (ngram_hashes(word_hashes(found), n) for found in (first, second))
    grams = [[tuple(found[at : at + n]) for at in range(len(found) - n + 1)] for found in (first, second)]
    assert [len(one), len(other)] == [len(mine) for mine in grams]
    assert (one[:, None] == other[None, :]).tolist() == [[mine == yours for yours in grams[1]] for mine in grams[0]]
    assert one.dtype == np.uint64
