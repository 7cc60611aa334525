"""Two ingestions at once on one index: one writes at a time, and the other finds it done or plans anew."""

from __future__ import annotations

import signal
import subprocess
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from include import storage
from include.documents import source
from include.rag import embed
from tests.rag import killed_run
from tests.rag.ingestion import Ingestion, version_home, write_corpus
from tests.rag.killed_run import Orders, assert_like_a_fresh_index, log_of, read_notes, wait_until

TIMES = [0, *(pytest.param(time, marks=pytest.mark.slow) for time in (1, 2, 3, 4))]
"""How often two runs are let loose on each other; who comes first is left to the machine."""
LAST_WRITE = "before ledger/CURRENT.json"
"""Where a commit has written everything, holds the lock, and is known to nobody yet."""


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(embed, "DOCUMENTS_PER_PART", killed_run.DOCUMENTS_PER_PART)
    monkeypatch.setattr(source, "SETTLED_S", -60.0)
    folder = tmp_path / "source"
    write_corpus(folder, 8)
    return folder


def orders_of(ingestion: Ingestion, run_id: str, folder: Path, **more: str) -> Orders:
    notes = str(folder / f"{run_id}.jsonl")
    go = str(folder / f"{run_id}.go")
    return Orders(root=ingestion.root, source=ingestion.source, run_id=run_id, notes=notes, go=go, **more)


def begin(stack: ExitStack, orders: Orders) -> subprocess.Popen[bytes]:
    """A process that does not outlive the test."""
    process = stack.enter_context(killed_run.start(orders))
    stack.callback(process.kill)
    return process


def await_pause(process: subprocess.Popen[bytes], orders: Orders) -> None:
    wait_until(lambda: bool(read_notes(orders, "paused")) or process.poll() is not None, f"{orders.run_id} pauses")
    assert process.poll() is None, log_of(orders)


def await_lock(process: subprocess.Popen[bytes], orders: Orders) -> None:
    wait_until(lambda: bool(read_notes(orders, "locking")) or process.poll() is not None, f"{orders.run_id} locks")
    assert process.poll() is None, log_of(orders)


def assert_ended_well(process: subprocess.Popen[bytes], orders: Orders) -> None:
    assert process.wait(killed_run.DEADLINE_S) == 0, log_of(orders)
    assert read_notes(orders, "ended")


def change(corpus: Path) -> None:
    (corpus / "000.md").write_text("# Longer\n\n" + " ".join(f"more{n}" for n in range(200)))
    (corpus / "001.html").unlink()
    (corpus / "new.txt").write_text("an added document")


@pytest.mark.parametrize("kind", [pytest.param("initial", marks=pytest.mark.slow), "update"])
@pytest.mark.parametrize("time", TIMES)
def test_two_runs_over_the_same_documents_come_to_the_index_of_one(
    ingestion: Ingestion, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, time: int
) -> None:
    if kind == "update":
        ingestion.run("run-before")
        change(corpus)
    both = [orders_of(ingestion, run_id, tmp_path, pause_at="start") for run_id in ("run-a", "run-b")]
    with ExitStack() as stack:
        processes = [begin(stack, orders) for orders in both]
        for process, orders in zip(processes, both, strict=True):
            await_pause(process, orders)
        for orders in both:
            Path(orders.go).touch()
        for process, orders in zip(processes, both, strict=True):
            assert_ended_well(process, orders)
    assert_like_a_fresh_index(ingestion, tmp_path, monkeypatch)


@pytest.mark.parametrize("kind", [pytest.param("initial", marks=pytest.mark.slow), "update"])
def test_a_run_that_planned_before_another_committed_other_documents_plans_anew(
    ingestion: Ingestion, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "update":
        ingestion.run("run-before")
        (corpus / "002.txt").write_text("what the early run reads")
    early = orders_of(ingestion, "run-early", tmp_path, pause_at="embedded")
    with ExitStack() as stack:
        process = begin(stack, early)
        await_pause(process, early)
        change(corpus)
        (corpus / "002.txt").write_text("what the late run reads")
        ingestion.run("run-late")
        Path(early.go).touch()
        assert_ended_well(process, early)
    assert len(read_notes(early, "moved")) == 1
    assert_like_a_fresh_index(ingestion, tmp_path, monkeypatch)


@pytest.mark.parametrize("kind", [pytest.param("initial", marks=pytest.mark.slow), "update"])
def test_a_run_goes_on_when_the_one_that_holds_the_lock_is_killed(
    ingestion: Ingestion, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "update":
        ingestion.run("run-before")
        change(corpus)
    holder = orders_of(ingestion, "run-holder", tmp_path, pause_at=LAST_WRITE)
    other = orders_of(ingestion, "run-other", tmp_path)
    with ExitStack() as stack:
        holding = begin(stack, holder)
        await_pause(holding, holder)
        waiting = begin(stack, other)
        await_lock(waiting, other)
        holding.send_signal(signal.SIGKILL)
        holding.wait(killed_run.DEADLINE_S)
        assert_ended_well(waiting, other)
    assert_like_a_fresh_index(ingestion, tmp_path, monkeypatch)


def test_a_check_waits_while_another_run_commits(
    ingestion: Ingestion, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the store and the ledger they differ, and a check would take out what the commit has just written."""
    ingestion.run("run-1")
    change(corpus)
    writer = orders_of(ingestion, "run-2", tmp_path, pause_at=LAST_WRITE)
    checker = replace(orders_of(ingestion, "run-1", tmp_path), step="check")
    with ExitStack() as stack:
        writing = begin(stack, writer)
        await_pause(writing, writer)
        checking = begin(stack, checker)
        await_lock(checking, checker)
        Path(writer.go).touch()
        assert_ended_well(writing, writer)
        assert_ended_well(checking, checker)
    assert_like_a_fresh_index(ingestion, tmp_path, monkeypatch)


def test_two_runs_over_two_sources_keep_both_their_dead_letters(
    ingestion: Ingestion, corpus: Path, tmp_path: Path
) -> None:
    """They lie in one file, which a run reads before it writes it."""
    (corpus / "bad.txt").write_bytes(b"\x00")
    write_corpus(tmp_path / "other", 2)
    (tmp_path / "other" / "worse.txt").write_bytes(b"\x00")
    one = orders_of(ingestion, "run-a", tmp_path, pause_at="before quarantine.jsonl")
    two = replace(orders_of(ingestion, "run-b", tmp_path), source=str(tmp_path / "other"))
    with ExitStack() as stack:
        writing = begin(stack, one)
        await_pause(writing, one)
        waiting = begin(stack, two)
        await_lock(waiting, two)
        Path(one.go).touch()
        assert_ended_well(writing, one)
        assert_ended_well(waiting, two)
    file = version_home(ingestion.root) / "quarantine.jsonl"
    assert {row["path"] for row in storage.read_jsonl(file)} == {"bad.txt", "worse.txt"}
