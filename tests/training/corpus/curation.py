"""Runs the steps of a curation as the DAG's tasks do, and reads back what they left."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from upath import UPath

from include.storage import location, read_parquet
from include.training.corpus.config import CurationConfig
from include.training.corpus.curate import curate_shard
from include.training.corpus.decontaminate import index_evaluation_sets
from include.training.corpus.deduplicate import deduplicate
from include.training.corpus.listing import Listing, list_shards
from include.training.corpus.report import make_report
from include.training.corpus.sources import parse_sources


class Curation:
    """One corpus below a root."""

    def __init__(self, root: str, sources: Sequence[Mapping[str, Any]], **settings: Any) -> None:
        self.root = root
        self.sources = sources
        self.config = CurationConfig(**settings)
        self.listing = location(root) / "listing"
        self.target = location(root) / "corpus"

    def make_listing(self, shard_bytes: int = 64 << 20) -> Listing:
        sources = parse_sources(self.sources, self.root)
        if self.config.evaluation_sets:
            index_evaluation_sets(self.config.evaluation_sets, self.listing)
        return list_shards(sources, root=self.root, tenant="default", target=self.listing, shard_bytes=shard_bytes)

    def curate(self, index: int) -> dict[str, Any]:
        return curate_shard(self.listing, index, self.target, self.config, root=self.root)

    def deduplicate(self, listed: Listing) -> dict[str, Any]:
        return deduplicate(self.parts(listed), self.target, self.config)

    def parts(self, listed: Listing) -> list[UPath]:
        return [self.target / "curated" / f"part-{shard.index:05d}.parquet" for shard in listed.shards]

    def run(self, shard_bytes: int = 64 << 20) -> dict[str, Any]:
        """All steps; the report."""
        listed = self.make_listing(shard_bytes)
        for shard in listed.shards:
            self.curate(shard.index)
        self.deduplicate(listed)
        return make_report(self.target, self.listing)

    def rows(self) -> list[dict[str, Any]]:
        """The documents that were curated, of all parts, in order of ids."""
        found = [
            row
            for file in sorted((self.target / "curated").iterdir(), key=str)
            for row in read_parquet(file).to_pylist()
        ]
        return sorted(found, key=lambda row: row["doc_id"])

    def dropped(self) -> list[dict[str, Any]]:
        """What the parts say of what they dropped."""
        files = sorted((self.target / "dropped").iterdir(), key=str)
        return [json.loads(line) for file in files for line in file.read_bytes().splitlines()]

    def reasons(self) -> dict[str, str]:
        """Path, and place in the file, -> why it was dropped."""
        return {row["path"] + (f" {row['locator']}" if row["locator"] else ""): row["reason"] for row in self.dropped()}

    def splits(self) -> dict[str, str]:
        """doc_id -> split of what was kept."""
        files = sorted((self.target / "kept").iterdir(), key=str)
        return {row["doc_id"]: row["split"] for file in files for row in read_parquet(file).to_pylist()}


def folder_source(folder: Path | str, name: str = "docs", **more: Any) -> dict[str, Any]:
    return {"name": name, "uri": str(folder), "licence": "MIT", **more}


def write_texts(folder: UPath | Path, texts: Mapping[str, str]) -> None:
    """Files of those names below a folder."""
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())


def jsonl(records: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)
