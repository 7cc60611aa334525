from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from include.training.corpus.config import CurationConfig
from include.training.corpus.split import held_out


def split(sources: list[int], sizes: list[int], keys: list[int], **settings: object) -> list[bool]:
    config = CurationConfig(**settings)
    arrays = np.array(sources, np.int32), np.array(sizes, np.int64), np.array(keys, np.uint64)
    return [bool(one) for one in held_out(*arrays, config)]


def count(number: int, **settings: object) -> int:
    return sum(split([0] * number, [10] * number, list(range(number)), **settings))


def test_a_share_of_each_source_and_at_least_one_of_twenty() -> None:
    assert [count(number, held_out_share=0.02) for number in (1, 19, 20, 74, 76, 1000)] == [0, 0, 1, 1, 2, 20]
    assert [count(number, held_out_share=0) for number in (20, 1000)] == [0, 0]
    assert [count(number, held_out_share=0.5) for number in (1, 2, 3)] == [0, 1, 2]


def test_the_limit_is_divided_among_sources_and_what_does_not_fit_is_passed_over() -> None:
    sources, sizes, keys = [0] * 1000 + [1] * 1000, [10] * 1000 + [10_000] * 1000, list(range(2000))
    chosen = np.array(split(sources, sizes, keys, max_held_out_bytes=100))
    assert (chosen[:1000].sum(), chosen[1000:].sum()) == (5, 0)
    sizes[1500] = 50
    assert split(sources, sizes, keys, max_held_out_bytes=100)[1500]
    assert sum(split(sources, sizes, keys, max_held_out_bytes=0)) == 0


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 500)), max_size=150), st.integers(0, 2**32 - 1), st.randoms()
)
def test_order_does_not_matter(documents: list[tuple[int, int]], seed: int, draw: object) -> None:
    settings: dict[str, object] = {"seed": seed, "max_held_out_bytes": 1000, "held_out_share": 0.1}

    def chosen(order: list[int]) -> set[int]:
        found = split([documents[at][0] for at in order], [documents[at][1] for at in order], order, **settings)
        return {at for at, is_out in zip(order, found, strict=True) if is_out}

    order = list(range(len(documents)))
    first = chosen(order)
    draw.shuffle(order)  # type: ignore[attr-defined]
    assert chosen(order) == first
    assert sum(documents[at][1] for at in first) <= 1000


def test_another_seed_holds_out_others() -> None:
    chosen = [split([0] * 500, [1] * 500, list(range(500)), seed=seed, held_out_share=0.02) for seed in (1, 2)]
    assert chosen[0] != chosen[1]
    assert sum(chosen[0]) == sum(chosen[1]) == 10
