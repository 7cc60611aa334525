"""Of documents that are the same, or nearly, one is kept; some of those that are left are held out.

Texts are not read. For a million documents some 230 MB are in memory, and their signatures, 512 MB, in a temporary file
on the local disk, which the operating system keeps in memory as far as there is any to spare. (Measured; 25 s.)

Below the target's folder:

    kept/part-00000.parquet    doc_id and split ("train" or "held_out") of the documents that are kept of a part
    deduplication.json         counts and samples; written last
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from include.errors import UserError
from include.storage import list_files, read_json, write_json, write_parquet
from include.training.corpus.config import CurationConfig
from include.training.corpus.curate import DIGEST_BYTES, PERMUTATIONS
from include.training.corpus.near_duplicates import Places, Signatures, near_duplicates, similarity
from include.training.corpus.report import SAMPLES, Tally
from include.training.corpus.split import held_out

if TYPE_CHECKING:
    import pyarrow as pa
    from upath import UPath

log = logging.getLogger(__name__)

Words = npt.NDArray[np.uint64]
_ROWS = 10_000
"""Read at a time."""


@dataclass(frozen=True, kw_only=True)
class _Documents:
    """What is known of the documents of all parts, a row for each, in the parts' order."""

    ids: Words
    """Two numbers each: a doc_id is 32 hexadecimal digits."""
    digests: Words
    """Two numbers each."""
    signatures: Signatures
    priorities: npt.NDArray[np.int32]
    sources: npt.NDArray[np.int32]
    """Places among the names."""
    names: list[str]
    bytes: Places
    ends: Places
    """Of each part, the row behind its last."""


def deduplicate(parts: Sequence[UPath], target: UPath, config: CurationConfig) -> dict[str, Any]:
    """Keep one of all documents that are the same or nearly, hold out some of those, and tell it; small counts.

    Of duplicates the one is kept whose source stands first, then whose doc_id is the smallest: so neither the order of
    parts nor how documents are divided into them matters. No two that are kept are near duplicates, so none are in
    different splits. UserError if no document is left.
    """
    with tempfile.TemporaryFile() as spool:
        documents = _read(parts, spool)
        if documents is None:
            raise UserError(f"no document is left after the filters: {_reasons(target)}; see {target / 'dropped'}")
        ranked = np.lexsort((documents.ids[:, 1], documents.ids[:, 0], documents.priorities)).astype(np.int64)
        same_as = _exact_duplicates(documents.digests[ranked])
        is_unique = same_as == np.arange(len(ranked))
        rows = ranked[is_unique]
        firsts, uncompared = near_duplicates(documents.signatures, rows, config.min_near_duplicate)
        is_kept = firsts == np.arange(len(rows))
        tally, fetch = Tally(), _Rows(parts, documents.ends)
        _tell(tally, "exact_duplicate", documents, ranked[~is_unique], ranked[same_as[~is_unique]], fetch)
        _tell(tally, "near_duplicate", documents, rows[~is_kept], rows[firsts[~is_kept]], fetch)
    kept = rows[is_kept]
    out = held_out(
        documents.sources[kept],
        documents.bytes[kept],
        _cluster_keys(documents.digests[rows, 0], firsts)[is_kept],
        config,
    )
    _write_kept(parts, target, documents, kept, out)
    splits = {"train": _figures(documents, kept[~out]), "held_out": _figures(documents, kept[out])}
    told = {"schema_version": 1, "tally": tally.to_json(), "splits": splits, "uncompared": uncompared}
    write_json(target / "deduplication.json", told)
    log.info("%d documents: %s, kept %s", len(ranked), dict(tally.reasons), splits)
    if uncompared:
        log.warning("%d comparisons were left out among texts that share boilerplate", uncompared)
    counts = {name: split["documents"] for name, split in splits.items()}
    return {"documents": len(ranked), **dict(sorted(tally.reasons.items())), **counts}


def _read(parts: Sequence[UPath], spool: IO[bytes]) -> _Documents | None:
    """All columns but the texts, some rows at a time; signatures go to the file. None if there is no row."""
    import pyarrow.parquet as pq

    columns = ["doc_id", "exact_digest", "priority", "source", "bytes", "signature"]
    gathered: list[list[Any]] = [[] for _ in columns[:-1]]
    names: dict[str, int] = {}
    ends = [0]
    for part in parts:
        with part.open("rb") as file:
            for batch in pq.ParquetFile(file).iter_batches(_ROWS, columns=columns, use_threads=False):
                ids, digests, priorities, sources, sizes, signatures = (batch[name] for name in columns)
                spool.write(_joined(signatures))
                mine = [names.setdefault(name, len(names)) for name in sources.to_pylist()]
                read = (
                    np.frombuffer(bytes.fromhex("".join(ids.to_pylist())), ">u8").astype(np.uint64).reshape(-1, 2),
                    np.frombuffer(_joined(digests), ">u8").astype(np.uint64).reshape(-1, DIGEST_BYTES // 8),
                    priorities.to_numpy(),
                    np.array(mine, np.int32),
                    sizes.to_numpy(),
                )
                for column, values in zip(gathered, read, strict=True):
                    column.append(values)
        ends.append(sum(map(len, gathered[-1])))
    if not ends[-1]:
        return None
    ids, digests, priorities, sources, sizes = map(np.concatenate, gathered)
    spool.flush()
    return _Documents(
        ids=ids,
        digests=digests,
        signatures=np.memmap(spool, "<u4", "r", shape=(len(sizes), PERMUTATIONS)),
        priorities=priorities,
        sources=sources,
        names=list(names),
        bytes=sizes,
        ends=np.array(ends[1:], np.int64),
    )


def _joined(column: pa.Array) -> bytes:
    return b"".join(column.to_pylist())


def _exact_duplicates(digests: Words) -> Places:
    """For each row the first one of the same digest."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: of the same digest the first comes first
    ordered = digests[order]
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    found = np.empty(len(order), np.int64)
    found[order] = order[is_first][np.cumsum(is_first) - 1]
    return found


def _cluster_keys(digests: Words, firsts: Places) -> Words:
    """For each row the smallest digest in its cluster, which stays the same whichever of it is kept."""
    found = np.full(len(digests), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(found, firsts, digests)
    return found[firsts]


def _tell(tally: Tally, reason: str, documents: _Documents, dropped: Places, kept: Places, fetch: _Rows) -> None:
    """Count duplicates by source, with samples: each with the document that is kept in its place."""
    for place, count in enumerate(np.bincount(documents.sources[dropped], minlength=len(documents.names)).tolist()):
        if count:
            tally.drop(documents.names[place], reason, count=count)
    alike = similarity(documents.signatures, dropped[:SAMPLES], kept[:SAMPLES])
    for row, other, share in zip(dropped[:SAMPLES].tolist(), kept[:SAMPLES].tolist(), alike.tolist(), strict=True):
        first = fetch(other)
        where = " ".join(filter(None, (first["source"], first["path"], first["locator"])))
        tally.sample(reason, {**fetch(row), "detail": f"similarity {share:.2f} to {where}"})


class _Rows:
    """Reads single documents back, for samples."""

    def __init__(self, parts: Sequence[UPath], ends: Places) -> None:
        self._parts, self._ends = parts, ends

    def __call__(self, row: int) -> dict[str, Any]:
        import pyarrow.parquet as pq

        number = int(np.searchsorted(self._ends, row, side="right"))
        row -= int(self._ends[number - 1]) if number else 0
        with self._parts[number].open("rb") as file:
            reader = pq.ParquetFile(file)
            group = 0
            while row >= (size := reader.metadata.row_group(group).num_rows):
                row, group = row - size, group + 1
            table = reader.read_row_group(group, columns=["source", "path", "locator", "text"]).slice(row, 1)
            found: dict[str, Any] = table.to_pylist()[0]
            return found


def _write_kept(parts: Sequence[UPath], target: UPath, documents: _Documents, kept: Places, out: Any) -> None:
    """For each part, its kept documents in its own order."""
    import pyarrow as pa

    order = np.argsort(kept)
    kept, out = kept[order], out[order]
    edges = np.searchsorted(kept, np.concatenate(([0], documents.ends)))
    for part, start, end in zip(parts, edges[:-1], edges[1:], strict=True):
        ids = [f"{first:016x}{second:016x}" for first, second in documents.ids[kept[start:end]].tolist()]
        splits = np.where(out[start:end], "held_out", "train").tolist()
        columns = {"doc_id": pa.array(ids, pa.string()), "split": pa.array(splits, pa.string())}
        write_parquet(target / "kept" / part.name, pa.table(columns))


def _figures(documents: _Documents, rows: Places) -> dict[str, Any]:
    counts = np.bincount(documents.sources[rows], minlength=len(documents.names)).tolist()
    sources = {name: count for name, count in sorted(zip(documents.names, counts, strict=True)) if count}
    return {"documents": len(rows), "bytes": int(documents.bytes[rows].sum()), "sources": sources}


def _reasons(target: UPath) -> str:
    """What the filters dropped, as the counts of parts tell it."""
    total = Tally()
    for name in list_files(target / "counts"):
        total.add(Tally.from_json(read_json(target / "counts" / name)))
    return f"{total.read.total():,} read, " + ", ".join(
        f"{one} {count:,}" for one, count in total.reasons.most_common()
    )
