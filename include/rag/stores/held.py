"""Ids, digests and counts of documents in arrays: tens of bytes a document, where Python objects take a kilobyte."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    Array = np.ndarray[Any, Any]

MIXED = "mixed"
"""Stands for the digest of a document whose chunks are of more than one content."""


class Texts:
    """Texts in one array of fixed width; hexadecimal digits of one even length take a byte for two of them."""

    def __init__(self, values: Array, *, is_hex: bool) -> None:
        self.values = values
        self.is_hex = is_hex

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[str]:
        return map(self.at, range(len(self)))

    def at(self, place: int) -> str:
        """One of them."""
        value = bytes(self.values[place])  # without zeros at its end
        return value.ljust(self.values.itemsize, b"\0").hex() if self.is_hex else value.decode()

    def take(self, places: Any) -> Texts:
        """Those at some places, or where a mask is true."""
        return Texts(self.values[places], is_hex=self.is_hex)

    def sorted(self) -> Texts:
        """The same in order, each once."""
        import numpy as np

        values = np.sort(self.values, kind="stable")  # quick where most are in order already
        is_new = np.ones(len(values), bool)
        is_new[1:] = values[1:] != values[:-1]
        return Texts(values[is_new], is_hex=self.is_hex)

    def places(self, others: Texts) -> Array:
        """Where in these, which are sorted, each of some others stands; -1 for one that does not."""
        import numpy as np

        if not len(self) or not len(others):
            return np.full(len(others), -1)
        mine, wanted = _alike(self, others)
        places = np.minimum(np.searchsorted(mine, wanted), len(mine) - 1)
        return np.where(mine[places] == wanted, places, -1)

    def equal(self, others: Texts) -> Array:
        """Whether each is the same as the other at its place."""
        mine, theirs = _alike(self, others)
        is_equal: Array = mine == theirs
        return is_equal

    def _plain(self) -> Texts:
        return encoded(self, pack=False) if self.is_hex else self


def encoded(texts: Iterable[str] | pa.Array, *, pack: bool = True) -> Texts:
    """Texts, an Arrow array of them without nulls best of all, as one array."""
    import numpy as np
    import pyarrow as pa

    column = (texts if isinstance(texts, pa.Array) else pa.array(texts, pa.string())).cast(pa.large_string())
    ends = np.frombuffer(column.buffers()[1] or bytes(8), np.int64)[column.offset : column.offset + len(column) + 1]
    width = int(ends[1] - ends[0]) if len(column) else 0
    if pack and width and width % 2 == 0 and (np.diff(ends) == width).all():
        numbers = _numbers()[np.frombuffer(column.buffers()[2], np.uint8)[ends[0] : ends[-1]]]
        if (numbers < 16).all():
            values = numbers[0::2] << 4 | numbers[1::2]
            return Texts(values.view(f"S{width // 2}"), is_hex=True)
    return Texts(np.array([text.encode() for text in column.to_pylist()], np.bytes_), is_hex=False)


def joined(parts: Collection[Texts]) -> Texts:
    """All of some texts, one part after the other."""
    import numpy as np

    parts = [part for part in parts if len(part)]
    if len({(part.is_hex, part.values.itemsize if part.is_hex else 0) for part in parts}) > 1:
        parts = [part._plain() for part in parts]
    if not parts:
        return encoded([])
    return Texts(np.concatenate([part.values for part in parts]), is_hex=parts[0].is_hex)


class Held(Mapping[str, tuple[str, int]]):
    """Document id -> (digest of the content that its chunks are from, how many); MIXED for more than one digest."""

    def __init__(self, ids: Texts, digests: Texts, counts: Array) -> None:
        """`ids` are sorted; a count below zero is of a document that is MIXED."""
        self.ids = ids
        self.digests = digests
        self.counts = counts

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __getitem__(self, doc_id: str) -> tuple[str, int]:
        (place,) = self.ids.places(encoded([doc_id]))
        if place < 0:
            raise KeyError(doc_id)
        number = int(self.counts[place])
        return (MIXED, -number) if number < 0 else (self.digests.at(place), number)

    def differing(self, other: Held) -> Texts:
        """The ids of documents of which the other says something else, or which only one of both has; sorted."""
        import numpy as np

        places = other.ids.places(self.ids)
        common = places >= 0
        same = self.digests.take(common).equal(other.digests.take(places[common]))
        same &= self.counts[common] == other.counts[places[common]]
        differs = np.ones(len(self), bool)
        differs[common] = ~same
        only_there = self.ids.places(other.ids) < 0
        return joined([self.ids.take(differs), other.ids.take(only_there)]).sorted()


class HeldBuilder:
    """Gathers what a store holds, some chunks or documents at a time and in any order."""

    def __init__(self) -> None:
        self._ids: list[Texts] = []
        self._digests: list[Texts] = []
        self._counts: list[Array] = []

    def add(self, ids: Iterable[str] | pa.Array, digests: Iterable[str] | pa.Array, counts: Any) -> None:
        """Some documents with the digest of some of their chunks and how many these are."""
        import numpy as np

        self._ids.append(encoded(ids))
        self._digests.append(encoded(digests))
        self._counts.append(np.asarray(counts, np.int32))

    def done(self) -> Held:
        """All that was added, each document once; the builder is empty afterwards."""
        import numpy as np

        ids, self._ids = joined(self._ids), []
        digests, self._digests = joined(self._digests), []
        counts = np.concatenate([np.zeros(0, np.int32), *self._counts])
        self._counts = []
        order = np.argsort(ids.values, kind="stable")
        ids, digests, counts = ids.take(order), digests.take(order), counts[order]
        is_first = np.ones(len(ids), bool)
        is_first[1:] = ids.values[1:] != ids.values[:-1]
        first = np.flatnonzero(is_first)
        if len(first) == len(ids):
            return Held(ids, digests, counts)
        own = first[np.cumsum(is_first) - 1]  # for each row, the first one of its document
        is_odd = ~digests.equal(digests.take(own))
        totals = np.add.reduceat(counts, first)
        return Held(
            ids.take(first), digests.take(first), np.where(np.logical_or.reduceat(is_odd, first), -totals, totals)
        )


@cache
def _numbers() -> Array:
    """The number that each byte stands for as a lower hexadecimal digit; 255 for any other."""
    import numpy as np

    numbers = np.full(256, 255, np.uint8)
    for number, digit in enumerate(b"0123456789abcdef"):
        numbers[digit] = number
    return numbers


def _alike(some: Texts, others: Texts) -> tuple[Array, Array]:
    """The values of both as can be compared; nothing is packed where they are packed differently."""
    is_packed_alike = some.values.itemsize == others.values.itemsize or not some.is_hex
    if some.is_hex != others.is_hex or not is_packed_alike:
        some, others = some._plain(), others._plain()
    return some.values, others.values
