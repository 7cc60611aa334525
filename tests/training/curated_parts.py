"""Parts as curation leaves them, made of documents that a test names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from include.storage import new_file, write_parquet


@dataclass(frozen=True)
class Given:
    """A document and what became of it; `split` None: it was dropped."""

    doc_id: str
    text: str
    source: str = "docs"
    licence: str | None = "Apache-2.0"
    split: str | None = "train"


def write_part(folder: UPath, number: int, documents: Sequence[Given], rows: int = 3) -> tuple[UPath, UPath]:
    """The part and what was kept of it, `rows` documents in a row group."""
    part, kept = (folder / name / f"part-{number:05d}.parquet" for name in ("curated", "kept"))
    table = pa.table(
        {
            "doc_id": pa.array([one.doc_id for one in documents], pa.string()),
            "source": pa.array([one.source for one in documents], pa.string()),
            "licence": pa.array([one.licence for one in documents], pa.string()),
            "path": pa.array([f"{one.doc_id}.md" for one in documents], pa.string()),
            "locator": pa.array([None for _ in documents], pa.string()),
            "text": pa.array([one.text for one in documents], pa.string()),
            "bytes": pa.array([len(one.text.encode()) for one in documents], pa.int64()),
            "language": pa.array(["en" for _ in documents], pa.string()),
        }
    )
    with new_file(part) as file:
        pq.write_table(table, file, row_group_size=rows)
    # Kept in another order than curated: nothing may rely on it.
    kept_ones = sorted((one for one in documents if one.split is not None), key=lambda one: one.doc_id, reverse=True)
    columns = {name: pa.array([getattr(one, name) for one in kept_ones], pa.string()) for name in ("doc_id", "split")}
    write_parquet(kept, pa.table(columns))
    return part, kept


WORDS = "the task runs a dag and retries when its worker fails so that data in buckets stays whole".split()


def prose(number: int, words: int = 60) -> str:
    """Text of words, another for each number."""
    return " ".join(WORDS[(number * 7 + place * (number % 5 + 1)) % len(WORDS)] for place in range(words)) + ".\n"
