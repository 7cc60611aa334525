"""One ingestion in a process of its own, which tells what it does and is killed, or waits, where it is told to.

A boundary is the moment before or after an atomic write or a call that changes the store; its name is the same in
every run over the same documents.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include import storage
from include.documents import source
from include.errors import StateMovedError
from include.models.embeddings import Hashing
from include.rag import embed, pipeline
from include.rag.plan import read_plan
from include.rag.stores.lance import LanceStore
from include.storage import digest, location
from local.home import PROJECT
from tests.rag.ingestion import Ingestion, config_of

if TYPE_CHECKING:
    import pytest

DEADLINE_S = 120
"""Until a test gives up on what should happen."""
DOCUMENTS_PER_PART = 2
PLAN_ATTEMPTS = 5


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What the process shall do, and where it shall stop."""

    root: str
    source: str
    run_id: str
    notes: str
    """The file to which it appends a JSON line for whatever it does."""
    params: dict[str, Any] = field(default_factory=dict)
    step: str = "plan"
    """The first step to run."""
    die_at: str = ""
    pause_at: str = ""
    go: str = ""
    """The file whose existence ends the pause; needed with pause_at, since the empty path is a folder that exists."""


def start(orders: Orders) -> subprocess.Popen[bytes]:
    """The process; what it prints goes to a file beside its notes."""
    environment = os.environ | {"FMOPS_STORAGE_ROOT": orders.root}
    with Path(f"{orders.notes}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", __name__, json.dumps(asdict(orders))],
            cwd=PROJECT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def run(orders: Orders) -> int:
    """Its exit status once it has ended."""
    return start(orders).wait(DEADLINE_S)


def read_notes(orders: Orders, kind: str) -> list[str]:
    """What it noted of one kind: `at` a boundary, `embedded` text, `step`, `paused`, `locking`, `moved`, `ended`."""
    file = Path(orders.notes)
    lines = file.read_text().splitlines() if file.exists() else []
    return [note[kind] for note in map(json.loads, lines) if kind in note]


def log_of(orders: Orders) -> str:
    """What it printed, for the message of a failed test."""
    return Path(f"{orders.notes}.log").read_text()[-3000:]


def wait_until(happened: Callable[[], bool], what: str) -> None:
    """Return once it has happened; AssertionError at the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not happened():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.02)


def run_from(
    ingestion: Ingestion, run_id: str, step: str = "plan", say: Callable[[str], None] = lambda _: None
) -> None:
    """Run a step and all that come after it, as a retry of that task does.

    The steps are plan, embed SHARD for each shard, settle, commit, check, switch and publish.
    """
    config = ingestion.prepare(run_id)
    if step == "plan":
        say("plan")
        pipeline.plan(config)
    shards = read_plan(config_of(config)).shards
    steps = [*(f"embed {shard}" for shard in shards), "settle", "commit", "check", "switch", "publish"]
    for name in steps if step == "plan" else steps[steps.index(step) :]:
        say(name)
        if name.startswith("embed "):
            ingestion.embed(config, [name.removeprefix("embed ")])
        elif name == "settle":
            ingestion.settle(config)
        elif name == "commit":
            pipeline.commit(config)
        elif name == "check":
            pipeline.check(config)
        elif name == "switch":
            ingestion.go_live(config)
        elif news := pipeline.publish(config):
            pipeline.remember(config, news)


def assert_like_a_fresh_index(ingestion: Ingestion, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and ledger are those of one run over the same source, and a next run finds nothing to do."""
    rows, ledger = ingestion.rows(), ingestion.ledger()
    assert len({row["id"] for row in rows}) == len(rows)
    assert pipeline.plan(ingestion.prepare("run-next")) == []
    uri = Path(tempfile.mkdtemp(prefix="fresh-", dir=folder)).as_uri()
    with monkeypatch.context() as patch:
        patch.setenv("FMOPS_STORAGE_ROOT", uri)
        fresh = Ingestion(uri, ingestion.source)
        fresh.run("run-1")
    assert (rows, ledger) == (fresh.rows(), fresh.ledger())


class Witness:
    """Notes what the process does, and stops it at a boundary."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._root = location(orders.root).path
        self._seen: Counter[str] = Counter()
        self._file = os.open(orders.notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, **what: str) -> None:
        os.write(self._file, f"{json.dumps(what)}\n".encode())

    def at(self, place: str) -> None:
        self._seen[place] += 1
        name = place if self._seen[place] == 1 else f"{place} {self._seen[place]}"
        self.note(at=name)
        if name == self._orders.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if name == self._orders.pause_at:
            self.note(paused=name)
            wait_until(Path(self._orders.go).exists, "the order to go on")

    def watch(self) -> None:
        """Stand beside every call that leaves something behind."""
        self._around(storage.os, "replace", lambda _, new: self._written(new))
        for name in ("replace", "delete", "finish"):
            self._around(LanceStore, name, lambda *_, name=name: f"store {name}")
        self._around(_lance_table(), "create_index", lambda *_, **__: "index of a new table")
        lock, embed_texts = storage.fcntl.flock, Hashing.embed

        def noted_lock(file: Any, *how: Any) -> None:
            if file.name.endswith("commit.lock"):
                self.note(locking="")
            lock(file, *how)

        def noted_embed(embedder: Hashing, texts: list[str]) -> Any:
            vectors = embed_texts(embedder, texts)
            for text in texts:
                self.note(embedded=digest(text))
            self.at("embedded")
            return vectors

        storage.fcntl.flock = noted_lock
        Hashing.embed = noted_embed  # type: ignore[assignment,method-assign]

    def _around(self, owner: Any, name: str, describe: Callable[..., str]) -> None:
        original = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            place = describe(*arguments, **named)
            self.at(f"before {place}")
            result = original(*arguments, **named)
            self.at(f"after {place}")
            return result

        setattr(owner, name, call)

    def _written(self, path: str) -> str:
        name = os.path.relpath(path, self._root).removeprefix("default/")
        return "usage" if name.startswith("usage/") else name.removeprefix("rag/test/").removeprefix("versions/v0001/")


def _lance_table() -> type:
    from lancedb.table import LanceTable

    return LanceTable


def main(orders: Orders) -> None:
    """Run it; a run whose plan was overtaken plans anew, as its message tells a user to do."""
    witness = Witness(orders)
    witness.watch()
    embed.DOCUMENTS_PER_PART = DOCUMENTS_PER_PART
    source.SETTLED_S = -60.0  # files that were just written have stamps too
    ingestion = Ingestion(orders.root, orders.source, orders.params)
    witness.at("start")
    step = orders.step
    for _ in range(PLAN_ATTEMPTS):
        try:
            run_from(ingestion, orders.run_id, step, lambda name: witness.note(step=name))
            break
        except StateMovedError as error:
            witness.note(moved=str(error))
            step = "plan"
    else:
        raise SystemExit("overtaken again and again")
    witness.note(ended="")


if __name__ == "__main__":
    main(Orders(**json.loads(sys.argv[1])))
