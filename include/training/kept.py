"""What curation left to train on: the documents of a part that it kept, each with its split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from include.errors import DriftError
from include.storage import read_parquet

if TYPE_CHECKING:
    import pyarrow as pa
    from upath import UPath

SPLITS = ("train", "held_out")


def kept_documents(part: UPath, kept: UPath, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The kept documents of a part, a row group at a time: their doc_id, some columns, and their `split`.

    `part` is one of curated/, `kept` its like of kept/. DriftError if the two do not fit together.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    splits, found = _splits(kept), 0
    with part.open("rb") as file:
        reader = pq.ParquetFile(file)
        for number in range(reader.num_row_groups):
            table = reader.read_row_group(number, columns=["doc_id", *columns])
            mine = pa.array([splits.get(doc_id) for doc_id in table["doc_id"].to_pylist()], pa.string())
            table = table.append_column("split", mine).filter(pc.is_valid(mine))
            found += table.num_rows
            yield table
    if found != len(splits):
        raise DriftError(f"{kept} keeps {len(splits):,} documents, but {part} has {found:,} of these: curate anew")


def _splits(kept: UPath) -> dict[str, str]:
    """doc_id -> split."""
    table = read_parquet(kept, columns=["doc_id", "split"])
    found = dict(zip(table["doc_id"].to_pylist(), table["split"].to_pylist(), strict=True))
    if len(found) != table.num_rows:
        raise DriftError(f"{kept} names {table.num_rows - len(found):,} documents twice: curate anew")
    if unknown := sorted(set(map(str, found.values())) - set(SPLITS)):
        raise DriftError(f"{kept} has splits {unknown}, which are not {' or '.join(SPLITS)}: curate anew")
    return found
