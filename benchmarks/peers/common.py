"""What every system is given, and how its process measures itself.

A system is two functions: ingest(source, home, embedder) brings the store below `home` up to date with the folder
`source`, and contents(home) reads back every chunk as (path below the source, text). Imports are not measured: the
rest of a process is, the opening of what an earlier process left included.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.models.embeddings import _WORDS, Hashing

if TYPE_CHECKING:
    from include.models.embeddings import Vectors

CHUNK_TOKENS, OVERLAP_TOKENS = 200, 30
"""In the words and signs that Hashing counts."""
BATCH = int(os.environ.get("FMOPS_BENCH_BATCH", "1000"))
"""Chunks that a peer is let handle at a time: more than its default, and faster."""

Contents = Iterable[tuple[str, str]]


class CountingHashing(Hashing):
    """The embedder of all systems; it counts the texts that it is given."""

    texts = 0

    def embed(self, texts: Sequence[str]) -> Vectors:
        """As Hashing does."""
        self.texts += len(texts)
        return super().embed(texts)


def words(text: str) -> list[str]:
    """The words and signs of a text, as Hashing counts them."""
    return _WORDS.findall(text)


def files(source: Path) -> list[Path]:
    """The documents, in the order of their paths."""
    return sorted(path for path in source.rglob("*") if path.is_file())


def read(source: Path) -> list[tuple[str, str]]:
    """(path, text) of every document."""
    return [(path.relative_to(source).as_posix(), path.read_text("utf-8")) for path in files(source)]


def processor_s() -> float:
    """Seconds of this process and of its ended children, threads included."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def peak_mb() -> float:
    """MiB that this process had in memory at most. Elsewhere than on Linux, what it was forked from may count too."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def judge(contents: Contents, source: Path) -> dict[str, int]:
    """How many chunks there are; of them stale (not in the document's text as it is), and more than once.

    `missing` are documents without a chunk. White space does not count: some splitters change it.
    """
    texts = {path: _bare(text) for path, text in read(source)}
    found = Counter((path, _bare(text)) for path, text in contents)
    return {
        "chunks": found.total(),
        "stale": sum(count for (path, text), count in found.items() if text not in texts.get(path, "")),
        "duplicates": found.total() - len(found),
        "missing": len(texts.keys() - {path for path, _ in found}),
    }


def _bare(text: str) -> str:
    return "".join(text.split())


def main(ingest: Callable[[Path, Path, Hashing], None], contents: Callable[[Path], Contents]) -> None:
    """Ingest once, and print what it took and what is there afterwards as one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("home", type=Path)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    options.home.mkdir(parents=True, exist_ok=True)
    embedder = CountingHashing()
    before_mb, cpu, wall = peak_mb(), processor_s(), time.perf_counter()
    ingest(options.source, options.home, embedder)
    found: dict[str, Any] = {"cpu_s": processor_s() - cpu, "wall_s": time.perf_counter() - wall}
    found |= {"peak_mb": peak_mb(), "imports_mb": before_mb, "embedded": embedder.texts}
    print(json.dumps(found | judge(contents(options.home), options.source)))
