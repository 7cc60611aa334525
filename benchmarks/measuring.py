"""What the benchmarks share: clocks, peak memory, lines of a table."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers.common import processor_s
from include.documents.source import SETTLED_S


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Processor seconds, wall seconds, result."""
    cpu, wall = processor_s(), time.perf_counter()
    result = work()
    return processor_s() - cpu, time.perf_counter() - wall, result


def change(source: Path, count: int) -> int:
    """Add a sentence to the first texts in the order of their names; how many."""
    files = sorted(path for path in source.rglob("*") if path.suffix in (".md", ".txt"))[:count]
    for path in files:
        path.write_text(path.read_text() + "\nThis sentence was added.\n")
    return len(files)


def settle() -> None:
    """Let the files rest, as a user's mostly have: the stamps of files that just changed are not relied on."""
    time.sleep(SETTLED_S + 0.5)


def times(value: float, base: float, baseline: int) -> str:
    """A ratio in words."""
    return f"{value / base:.2f} x baseline {baseline}"


def row(name: str, value: float, unit: str, note: str) -> None:
    """One line of the table."""
    print(f"{name:36} {value:9.1f} {unit:13} {note}")
