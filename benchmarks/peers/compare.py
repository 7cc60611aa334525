"""One corpus, one embedder, every system in a process of its own: cold, unchanged, and with 1 % of it changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import corpus
from benchmarks.measuring import settle
from benchmarks.peers import common
from include.storage import digest
from local.setup_environment import uv_environment

PROJECT = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).parents[1] / "requirements-peers.txt"
ADDED = "A sentence that was put in.\n\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class System:
    """What is compared, and what it keeps its chunks in."""

    name: str
    module: str
    store: str
    options: tuple[tuple[str, str], ...] = ()
    """Environment variables of its process."""


WORKERS = os.cpu_count() or 1
ROUNDS = 3

OURS = System(name="this project", module="ours", store="LanceDB")
SHARED = System(
    name="shards at a time", module="ours", store="LanceDB", options=(("FMOPS_BENCH_WORKERS", str(WORKERS)),)
)
PEERS = (
    System(name="LangChain, tuned", module="langchain", store="LanceDB"),
    System(name="LangChain index()", module="langchain", store="LanceDB", options=(("FMOPS_BENCH_BATCH", "100"),)),
    System(name="LlamaIndex", module="llamaindex", store="LanceDB"),
    System(name="Haystack", module="haystack", store="FAISS"),
)

Passes = dict[str, dict[str, Any]]
"""By pass (cold, unchanged, changed), what a system's process printed."""


def peers_python(folder: Path) -> Path:
    """The interpreter of the peers' environment, which is made anew when its requirements change."""
    stamp, wanted = folder / "stamp", digest(sys.version, REQUIREMENTS.read_bytes())
    python = folder / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != wanted:
        print("the peers' environment is made, once", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        uv = [sys.executable, "-m", "uv", "--quiet"]
        install = ["pip", "install", "--python", str(python), "--no-deps", "--requirement", str(REQUIREMENTS)]
        # Copied: LlamaIndex's reader of its own files refuses links.
        for command in (["venv", "--python", sys.executable, str(folder)], [*install, "--link-mode", "copy"]):
            subprocess.run([*uv, *command], env=uv_environment(os.environ, {}), check=True)
        stamp.write_text(wanted)
    return python


def compare(scratch: Path, count: int, environment: Path) -> float:
    """Print the tables; how many times as fast as the best peer this project ingests, by the clock."""
    python = peers_python(environment)
    original = scratch / "corpus"
    characters = corpus.make(original, count)
    settle()
    pythons = {OURS: Path(sys.executable), **dict.fromkeys(PEERS, python), SHARED: Path(sys.executable)}
    rounds = [{one: _cold(one, pythons[one], original, scratch / "cold") for one in pythons} for _ in range(ROUNDS)]
    best = {one: {name: min(found[one][name] for found in rounds) for name in ("cpu_s", "wall_s")} for one in pythons}
    passes = {one: _measure(one, pythons[one], original, scratch) for one in (OURS, *PEERS)}
    for one, found in passes.items():
        found["cold"] |= best[one]
    print(f"\n{count:,} documents of {characters / count:,.0f} characters on average, from botocore's descriptions;")
    print(
        f"chunks of at most {common.CHUNK_TOKENS} words and signs, {common.OVERLAP_TOKENS} shared; hashing embedder\n"
    )
    print_table(passes, count)
    print(f"rates: the best of {ROUNDS} rounds, all systems in each; shards at a time: {WORKERS}, as Airflow runs them")
    return print_ratios(best)


def print_ratios(best: dict[System, dict[str, float]]) -> float:
    """How many times as fast this project is as its peers; the least of them by the clock is returned.

    `best` holds the cpu_s and wall_s of every system; what the shards' own processes use is not in SHARED's cpu_s.
    """

    def ratio(ours: System, peer: System, measure: str) -> float:
        return best[peer][measure] / best[ours][measure]

    print(f"\n{'times as fast as':20}{'by CPU':>12}{'by clock':>12}{'shared':>12}")
    for peer in PEERS:
        cells = (ratio(OURS, peer, "cpu_s"), ratio(OURS, peer, "wall_s"), ratio(SHARED, peer, "wall_s"))
        print(f"{peer.name:20}" + "".join(f"{cell:>12.2f}" for cell in cells))
    return min(ratio(SHARED, peer, "wall_s") for peer in PEERS)


def print_table(passes: dict[System, Passes], count: int) -> None:
    """A line for each system."""
    heads = ("store", "docs/CPU-s", "docs/s", "chunks", "unchanged s", "changed s", "embedded", "stale", "twice", "MiB")
    print(f"{'':20}" + "".join(f"{head:>12}" for head in heads))
    for system, found in passes.items():
        cold, again, changed = (found[name] for name in ("cold", "unchanged", "changed"))
        cells: list[str] = [system.store, f"{count / cold['cpu_s']:,.0f}", f"{count / cold['wall_s']:,.0f}"]
        cells += [f"{cold['chunks']:,}", f"{again['cpu_s']:.1f}", f"{changed['cpu_s']:.1f}"]
        cells += [
            f"{again['embedded']:,}+{changed['embedded']:,}",
            *(f"{changed[k]:,}" for k in ("stale", "duplicates")),
        ]
        cells += [f"{cold['peak_mb']:,.0f}"]
        print(f"{system.name:20}" + "".join(f"{cell:>12}" for cell in cells))
    print("unchanged, changed: CPU seconds of a second run, and of a third after 1 % of the documents were changed;")
    print("embedded: texts in both; stale, twice: chunks afterwards that no document holds, or that are there twice")


def _cold(system: System, python: Path, source: Path, home: Path) -> dict[str, Any]:
    found = run_system(system, python, source, home)
    shutil.rmtree(home)
    return found


def _measure(system: System, python: Path, original: Path, scratch: Path) -> Passes:
    source, home = scratch / system.module / "corpus", scratch / system.module / "home"
    shutil.copytree(original, source)
    settle()
    passes = {name: run_system(system, python, source, home) for name in ("cold", "unchanged")}
    for path in common.files(source)[::100]:
        change(path)
    settle()
    passes["changed"] = run_system(system, python, source, home)
    for name, found in passes.items():
        if found["missing"]:
            raise RuntimeError(f"{system.name}, {name}: {found['missing']} documents have no chunk in the store")
    shutil.rmtree(scratch / system.module)
    return passes


def change(path: Path) -> None:
    """Take out the first half of a document and put in a sentence, so that chunks move and some text is gone."""
    text = path.read_text("utf-8")
    path.write_text(ADDED + text[len(text) // 2 :], "utf-8")


def run_system(system: System, python: Path, source: Path, home: Path) -> dict[str, Any]:
    """Ingest once in a process of its own; what common.main() printed there."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1")
    command = [str(python), "-W", "ignore", "-m", f"benchmarks.peers.{system.module}", str(source), str(home)]
    done = subprocess.run(
        command,
        cwd=PROJECT,
        env={**os.environ, **one_thread, **dict(system.options)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
