"""Runs an ingestion's steps as the DAG's tasks do, without Airflow, and reads back what an index holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from upath import UPath

from include.rag import pipeline
from include.rag.config import IngestConfig
from include.rag.ledger import Ledger
from include.rag.versions import Versions


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
            "on_many_deletions": "delete",
        }
        return pipeline.prepare({**defaults, **self.params}, run_id)

    def run(self, run_id: str) -> dict[str, Any]:
        """All steps in order up to check(), whose result comes back; the version goes live, judged or not."""
        config = self.prepare(run_id)
        self.embed(config, pipeline.plan(config))
        self.settle(config)
        pipeline.commit(config)
        checked = pipeline.check(config)
        self.go_live(config)
        return checked

    def settle(self, config: dict[str, Any]) -> None:
        """Delete what is gone, as a run does that nobody is asked in."""
        pipeline.settle(config, pipeline.guard(config), None)

    def go_live(self, config: dict[str, Any]) -> None:
        """The version of a run goes live without being judged, if anything was committed."""
        if Ledger(config_of(config).home).version():
            self.versions.go_live(config["version"], by=config["run_id"])

    def embed(self, config: dict[str, Any], shards: list[str]) -> list[dict[str, Any]]:
        return [pipeline.embed(config, shard, dag_id="test", task_id=shard) for shard in shards]

    @property
    def versions(self) -> Versions:
        return Versions(self.root, "default", "test")

    def home(self, number: int = 1) -> UPath:
        """The folder of a version."""
        return self.versions.home_of(number)

    def store(self, number: int = 1) -> Any:
        return self.versions.open(number, self.versions.get(number).spec)

    def rows(self, number: int = 1) -> list[dict[str, Any]]:
        """Every chunk of a version, in the order of ids, without the two columns that say when and by whom."""
        table = self.store(number)._table()
        rows = [] if table is None else table.to_arrow().drop_columns(["run_id", "ingested_at"]).to_pylist()
        return sorted(rows, key=lambda row: row["id"])

    def ledger(self, number: int = 1) -> dict[str, tuple[str, int]]:
        """Path -> content digest and number of chunks."""
        ledger = Ledger(self.home(number))
        entries = ledger.read(ledger.pointer().version).entries()
        return {entry.path: (entry.content_digest, entry.chunks) for entry in entries}


def version_home(root: str, number: int = 1) -> UPath:
    """The folder of a version of the index `test`."""
    return Versions(root, "default", "test").home_of(number)


def version_store(root: str, number: int = 1) -> Any:
    """The store of a version of the index `test`."""
    return Ingestion(root, "").store(number)


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
