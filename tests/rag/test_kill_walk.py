"""kill -9 at every boundary of an ingestion: whoever runs it again comes to the index of an undisturbed run.

Run again is: the task that died, as Airflow retries it; the whole run, as someone who clears it does; and a new run.
"""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from include import storage
from include.documents import source
from include.models.embeddings import Hashing
from include.rag import embed, pipeline
from tests.rag import killed_run
from tests.rag.ingestion import Ingestion, version_home
from tests.rag.killed_run import Orders, log_of, read_notes, run_from

SOME = {
    "initial": ("before index of a new table", "after store finish", "before ledger/CURRENT.json"),
    "update": ("after store replace", "after store delete"),
}
"""Boundaries that the usual tests walk too: around the store's acknowledgement and the ledger."""


def write_first(folder: Path) -> None:
    """Six documents, three to a shard, two to a part; one of them cannot be read."""
    folder.mkdir()
    for n in range(5):
        (folder / f"{n}.txt").write_text(" ".join(f"word{n}x{i}" for i in range(25 + 10 * n)))
    (folder / "5.txt").write_bytes(b"not \x00 text")


def change(folder: Path) -> None:
    """One changed, two added, one deleted, one more that cannot be read."""
    (folder / "1.txt").write_text(" ".join(f"other{i}" for i in range(50)))
    (folder / "2.txt").unlink()
    (folder / "3.txt").write_bytes(b"no longer \x00 text")
    (folder / "6.txt").write_text("an added document")
    (folder / "7.txt").write_text("another added document")


@dataclass
class Scene:
    """A source, the storage that a run begins with, and what the run makes of them when nothing disturbs it."""

    folder: Path
    source: Path
    begin: Path
    set_root: Callable[[Path], None]
    batches: list[set[str]]
    """The digests of the texts that were embedded in this process, batch by batch."""

    def __post_init__(self) -> None:
        self.run_id = "run-2" if self.begin.exists() else "run-1"
        self.orders = self.child("undisturbed")
        assert killed_run.run(self.orders) == 0, log_of(self.orders)
        self.expected = self.state(self.folder / "undisturbed")
        self.embedded = read_notes(self.orders, "embedded")
        self.batches.clear()
        run_from(self.at("batches", self.begin), self.run_id)
        self.parts = list(self.batches)
        assert sorted(self.embedded) == sorted(one for part in self.parts for one in part)

    def child(self, name: str, die_at: str = "") -> Orders:
        """Orders for a process of its own over a storage of its own."""
        root = self.at(name, self.begin).root
        notes = str(self.folder / f"{name}.jsonl")
        return Orders(root=root, source=str(self.source), run_id=self.run_id, notes=notes, die_at=die_at)

    def at(self, name: str, begin: Path) -> Ingestion:
        """An ingestion over a copy of a storage."""
        root = self.folder / name
        if begin.exists():
            shutil.copytree(begin, root)
        self.set_root(root)
        return Ingestion(root.as_uri(), str(self.source))

    def state(self, root: Path) -> tuple[Any, ...]:
        """Rows, ledger and dead letters, without what differs from run to run."""
        ingestion = Ingestion(root.as_uri(), str(self.source))
        file = version_home(root.as_uri()) / "quarantine.jsonl"
        kept = ("path", "locator", "content_digest", "stage", "fault", "reason", "attempt")
        letters = [{name: row[name] for name in kept} for row in storage.read_jsonl(file)]
        return ingestion.rows(), ingestion.ledger(), sorted(letters, key=lambda row: row["path"])

    def walk(self, boundaries: list[str]) -> None:
        """Kill a process at each, and run it again in each way."""
        for number, boundary in enumerate(boundaries):
            name = f"killed-{number}"
            orders = self.child(name, boundary)
            assert killed_run.run(orders) == -signal.SIGKILL, f"{boundary}: {log_of(orders)}"
            last_step = (read_notes(orders, "step") or ["plan"])[-1]  # killed while it prepared: no step began
            for way in ("retried", "cleared", "new"):
                again = self.at(f"{name}-{way}", self.folder / name)
                self.batches.clear()
                step = last_step if way == "retried" else "plan"
                run_from(again, "run-new" if way == "new" else self.run_id, step)
                self.compare(again, read_notes(orders, "embedded"), f"killed {boundary}, {way}")
                shutil.rmtree(storage.location(again.root).path)
            shutil.rmtree(self.folder / name)

    def compare(self, again: Ingestion, embedded: list[str], where: str) -> None:
        assert self.state(Path(storage.location(again.root).path)) == self.expected, where
        times = Counter([*embedded, *(one for part in self.batches for one in part)])
        assert times.keys() == set(self.embedded), where
        twice = {text for text, count in times.items() if count > 1}
        assert max(times.values(), default=0) <= 2, where
        assert not twice or any(twice <= part for part in self.parts), f"{where}: more than one part embedded twice"
        assert pipeline.plan(again.prepare("run-next")) == [], f"{where}: the next run finds nothing to do"


@pytest.fixture(params=["initial", "update"])
def scene(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    batches: list[set[str]] = []
    original = Hashing.embed

    def spy(self: Hashing, texts: list[str]) -> Any:
        batches.append({storage.digest(text) for text in texts})
        return original(self, texts)

    def set_root(root: Path) -> None:
        monkeypatch.setenv("FMOPS_STORAGE_ROOT", root.as_uri())

    monkeypatch.setattr(Hashing, "embed", spy)
    monkeypatch.setattr(embed, "DOCUMENTS_PER_PART", killed_run.DOCUMENTS_PER_PART)
    monkeypatch.setattr(source, "SETTLED_S", -60.0)
    folder, begin = tmp_path / "source", tmp_path / "begin"
    write_first(folder)
    if request.param == "update":
        set_root(begin)
        run_from(Ingestion(begin.as_uri(), str(folder)), "run-1")
        change(folder)
    return Scene(tmp_path, folder, begin, set_root, batches)


def test_a_run_killed_around_its_commit_is_repaired_by_running_again(scene: Scene) -> None:
    name = "update" if scene.begin.exists() else "initial"
    assert set(SOME[name]) <= set(read_notes(scene.orders, "at"))
    scene.walk(list(SOME[name]))


@pytest.mark.slow
def test_a_run_killed_anywhere_is_repaired_by_running_again(scene: Scene) -> None:
    boundaries = [place for place in read_notes(scene.orders, "at") if place != "start"]
    assert len(boundaries) > 50
    assert len(set(boundaries)) == len(boundaries)
    scene.walk(boundaries)


def test_a_new_run_after_a_killed_commit_finds_the_parts_though_a_document_was_set_aside(scene: Scene) -> None:
    bad = "0.txt"  # the first of its shard, so that all others move up
    (scene.source / bad).write_bytes(b"not \x00 text")
    orders = scene.child("killed", "before store replace")
    assert killed_run.run(orders) == -signal.SIGKILL, log_of(orders)
    again = scene.at("again", scene.folder / "killed")
    scene.batches.clear()
    run_from(again, "run-new")
    assert scene.batches == []
    assert scene.state(scene.folder / "again")[2] != []
