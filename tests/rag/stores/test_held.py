"""What a store holds, in arrays: it reads as a mapping does, however its ids and digests are written."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.rag.stores.held import MIXED, Held, HeldBuilder, encoded, joined

words = st.text("0123456789abcdef", min_size=1, max_size=4)
digits = st.binary(min_size=16, max_size=16).map(bytes.hex)
held = st.one_of(*(st.dictionaries(key, st.tuples(key, st.integers(1, 9)), max_size=8) for key in (words, digits)))


def held_of(found: dict[str, tuple[str, int]]) -> Held:
    builder = HeldBuilder()
    builder.add(list(found), [digest for digest, _ in found.values()], [number for _, number in found.values()])
    return builder.done()


@settings(deadline=None)  # the first example imports NumPy and Arrow
@given(held, held)
def test_it_is_the_mapping_and_differs_where_the_mappings_do(
    some: dict[str, tuple[str, int]], other: dict[str, tuple[str, int]]
) -> None:
    ours, theirs = held_of(some), held_of(other)
    assert (ours, list(ours)) == (some, sorted(some))
    differing = {key for key in some.keys() | other.keys() if some.get(key) != other.get(key)}
    assert set(ours.differing(theirs)) == set(theirs.differing(ours)) == differing


def test_zeros_at_the_end_of_an_id_are_part_of_it() -> None:
    ids = ["00" * 16, "ab" * 15 + "00", "ab" * 16]
    assert list(encoded(ids)) == ids
    assert encoded(ids).is_hex
    assert list(encoded(ids).places(encoded(["ab" * 15 + "00", "ab" * 15]))) == [1, -1]


def test_texts_that_are_packed_and_others_are_joined() -> None:
    assert list(joined([encoded(["abcd"]), encoded([]), encoded(["ABCD", "x"])])) == ["abcd", "ABCD", "x"]
    assert list(joined([])) == []


def test_a_document_in_pieces_is_counted_whole_and_mixed_contents_are_told() -> None:
    builder = HeldBuilder()
    builder.add(["a", "b"], ["one", "two"], [1, 2])
    builder.add(["a", "b"], ["one", "other"], [3, 4])
    found = builder.done()
    assert found == {"a": ("one", 4), "b": (MIXED, 6)}
    with pytest.raises(KeyError):
        found["c"]
