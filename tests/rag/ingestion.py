"""Runs an ingestion's steps as the DAG's tasks do, without Airflow, and reads back what an index holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from include.models.embeddings import get_embedder
from include.rag import pipeline
from include.rag.config import IngestConfig, index_home
from include.rag.ledger import Ledger
from include.rag.stores import open_store


@dataclass
class Ingestion:
    """One index over one source, with a free embedder and small shards."""

    root: str
    source: str
    params: dict[str, Any] = field(default_factory=dict)

    def prepare(self, run_id: str) -> dict[str, Any]:
        defaults = {
            "source": self.source,
            "index": "test",
            "embedder": "hashing",
            "chunk_tokens": 32,
            "overlap_tokens": 4,
            "documents_per_shard": 3,
        }
        return pipeline.prepare({**defaults, **self.params}, run_id)

    def run(self, run_id: str) -> dict[str, Any]:
        """All steps in order; what check() returns."""
        config = self.prepare(run_id)
        self.embed(config, pipeline.plan(config))
        pipeline.commit(config)
        return pipeline.check(config)

    def embed(self, config: dict[str, Any], shards: list[str]) -> list[dict[str, Any]]:
        return [pipeline.embed(config, shard, dag_id="test", task_id=shard) for shard in shards]

    def rows(self) -> list[dict[str, Any]]:
        """Every chunk of the index, in the order of ids, without the two columns that say when and by whom."""
        home = index_home(self.root, "default", "test")
        store: Any = open_store("lancedb", home, get_embedder("hashing").dimension)
        table = store._table()
        rows = [] if table is None else table.to_arrow().drop_columns(["run_id", "ingested_at"]).to_pylist()
        return sorted(rows, key=lambda row: row["id"])

    def ledger(self) -> dict[str, tuple[str, int]]:
        """Path -> content digest and number of chunks."""
        ledger = Ledger(index_home(self.root, "default", "test"))
        entries = ledger.read(ledger.pointer().version).entries()
        return {entry.path: (entry.content_digest, entry.chunks) for entry in entries}


def config_of(values: dict[str, Any]) -> IngestConfig:
    return IngestConfig(**values)


def write_corpus(folder: Path, count: int = 8) -> None:
    """A few small documents of each format."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(count):
        words = " ".join(f"word{n}x{i}" for i in range(20 + 10 * n))
        if n % 4 == 0:
            (folder / f"{n:03d}.md").write_text(f"# Title {n}\n\n{words}\n\n## Part\n\nmore {words}\n")
        elif n % 4 == 1:
            (folder / f"{n:03d}.html").write_text(f"<title>T{n}</title><h1>Head {n}</h1><p>{words}</p>")
        elif n % 4 == 2:
            (folder / f"{n:03d}.txt").write_text(words)
        else:
            (folder / f"{n:03d}.jsonl").write_text("".join(f'{{"id": "r{i}", "text": "{words}"}}\n' for i in range(3)))
