"""What a plan must know of each document that was indexed before, as sorted arrays: some tens of bytes a document."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from include.rag.ledger import Keyed, Snapshot
from include.rag.stores.held import Texts, encoded, joined

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


class Marked:
    """Documents, and which of them a listing has shown."""

    def __init__(self, ids: Texts) -> None:
        """`ids` are sorted."""
        import numpy as np

        self.ids = ids
        self.is_found = np.zeros(len(ids), bool)

    def find(self, ids: Texts) -> Array:
        """Where each of some documents stands here, -1 for one that does not; they count as found."""
        places = self.ids.places(ids)
        self.is_found[places[places >= 0]] = True
        return places

    def found(self) -> Texts:
        """Those that were found."""
        return self.ids.take(self.is_found)

    def missing(self) -> Texts:
        """Those that were not."""
        return self.ids.take(~self.is_found)


class Known(Marked):
    """The documents of a ledger: their digests, and whether they are of a source and made as they are wanted."""

    def __init__(self, snapshot: Snapshot, *, source: str, pipeline: str, use_case: str) -> None:
        import numpy as np
        import pyarrow.compute as pc

        ids, digests, mine, wanted = [], [], [np.zeros(0, bool)], [np.zeros(0, bool)]
        for batch in snapshot.batches(["doc_id", "content_digest", "source", "pipeline", "use_case"]):
            ids.append(encoded(batch["doc_id"]))
            digests.append(encoded(batch["content_digest"]))
            mine.append(pc.equal(batch["source"], source).to_numpy(zero_copy_only=False))
            is_wanted = pc.and_(pc.equal(batch["pipeline"], pipeline), pc.equal(batch["use_case"], use_case))
            wanted.append(is_wanted.to_numpy(zero_copy_only=False))
        all_ids = joined(ids)
        order = np.argsort(all_ids.values, kind="stable")
        super().__init__(all_ids.take(order))
        del ids, all_ids
        self.digests = joined(digests).take(order)
        self.is_mine: Array = np.concatenate(mine)[order]
        self.is_wanted: Array = np.concatenate(wanted)[order]

    def missing(self) -> Texts:
        """Those of the source that were not found."""
        return self.ids.take(self.is_mine & ~self.is_found)

    def is_same(self, place: int, content_digest: str) -> bool:
        """Whether a document is here as it is wanted, made of these bytes."""
        return bool(place >= 0 and self.is_wanted[place] and self.digests.at(place) == content_digest)


class Stamps:
    """By which stamp each document was read, kept as a digest, and the digest of its content."""

    def __init__(self, stamps: Keyed) -> None:
        import numpy as np

        ids, digests, prints = [], [], [_prints([])]
        for batch in stamps.batches():
            doc_ids, texts, contents = batch.columns
            ids.append(encoded(doc_ids))
            prints.append(_prints(texts.to_pylist()))
            digests.append(encoded(contents))
        all_ids = joined(ids)
        order = np.argsort(all_ids.values, kind="stable")
        self._ids = all_ids.take(order)
        del ids, all_ids
        self._digests = joined(digests).take(order)
        self._prints = np.concatenate(prints)[order]

    def look_up(self, ids: Texts, stamps: list[str]) -> list[str | None]:
        """Of each of some documents the content's digest, empty if it was read by another stamp; None if unknown."""
        import numpy as np

        places = self._ids.places(ids)
        is_known = places >= 0
        is_same = np.zeros(len(places), bool)
        is_same[is_known] = self._prints[places[is_known]] == _prints(stamps)[is_known]
        return [
            (self._digests.at(place) if same and stamp else "") if known else None
            for place, known, same, stamp in zip(places, is_known, is_same, stamps, strict=True)
        ]


def _prints(stamps: Iterable[str]) -> Array:
    import numpy as np

    return np.frombuffer(b"".join(hashlib.blake2b(stamp.encode(), digest_size=16).digest() for stamp in stamps), "S16")
