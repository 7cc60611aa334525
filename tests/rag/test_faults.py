"""What goes wrong around a run: sources that move, full disks, signals, clocks, torn files, embedders and stores."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from include import storage
from include.documents import reading_process, source
from include.errors import EmbeddingError
from include.models.embeddings import Hashing
from include.rag import embed, pipeline
from include.rag.stores.lance import LanceStore
from tests.rag import killed_run
from tests.rag.ingestion import Ingestion, write_corpus
from tests.rag.killed_run import Orders, assert_like_a_fresh_index, log_of, read_notes, wait_until
from tests.rag.zoo import looping_pdf


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(embed, "DOCUMENTS_PER_PART", killed_run.DOCUMENTS_PER_PART)
    monkeypatch.setattr(source, "SETTLED_S", -60.0)
    folder = tmp_path / "source"
    write_corpus(folder, 6)
    return folder


# The source moves while the run is on


def _change(file: Path) -> None:
    file.write_text("changed while the run was on")


def _rename(file: Path) -> None:
    file.rename(file.with_name(f"renamed-{file.name}"))


@pytest.mark.parametrize("before", ["embed", "commit", "check"])
@pytest.mark.parametrize("move", [_change, Path.unlink, _rename], ids=["changed", "deleted", "renamed"])
def test_the_run_after_one_that_the_source_moved_under_is_right(
    ingestion: Ingestion,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: str,
    move: Callable[[Path], object],
) -> None:
    """What moves is a document that the run reads, and one that it need not read."""
    ingestion.run("run-1")
    (corpus / "002.txt").write_text("what this run shall read")
    config = ingestion.prepare("run-2")
    shards = pipeline.plan(config)
    for step in ("embed", "commit", "check"):
        if step == before:
            move(corpus / "002.txt")
            move(corpus / "004.md")
        if step == "embed":
            ingestion.embed(config, shards)
        else:
            getattr(pipeline, step)(config)
    ingestion.run("run-3")
    assert_like_a_fresh_index(ingestion, tmp_path, monkeypatch)


# A full disk


@pytest.mark.slow
def test_a_full_disk_at_any_write_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = tmp_path / "source"
    write_corpus(corpus, 3)

    def at(name: str) -> Ingestion:
        uri = (tmp_path / name).as_uri()
        monkeypatch.setenv("FMOPS_STORAGE_ROOT", uri)
        return Ingestion(uri, str(corpus))

    roomy = at("roomy")
    roomy.run("run-1")
    fsync, full_at, is_full = os.fsync, 0, True
    while is_full:  # until a run ends before its disk is full
        ingestion = at(f"full-{full_at}")
        writes, is_full = iter(range(10_000)), False

        def fill(number: int, writes: Iterator[int] = writes, last: int = full_at) -> None:
            if next(writes) == last:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(number)

        with monkeypatch.context() as patch:
            patch.setattr(storage.os, "fsync", fill)
            try:
                ingestion.run("run-1")
            except OSError as error:
                assert error.errno == errno.ENOSPC
                is_full = True
        assert not list((tmp_path / f"full-{full_at}").rglob("*.tmp"))
        if is_full:
            ingestion.run("run-1")
        assert (ingestion.rows(), ingestion.ledger()) == (roomy.rows(), roomy.ledger())
        full_at += 1
    assert full_at > 10


# A signal


@pytest.mark.parametrize("reader_is", ["idle", "busy"])
def test_a_terminated_run_leaves_no_reading_process(
    ingestion: Ingestion, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader_is: str
) -> None:
    if reader_is == "busy":
        monkeypatch.setenv("FMOPS_DOCUMENT_SECONDS", "4")
        (corpus / "000.pdf").write_bytes(looping_pdf())
    for file in corpus.glob("*.[tmj]*"):  # whichever is read first, the process is there
        file.rename(file.with_suffix(".html"))
    orders = Orders(
        root=ingestion.root,
        source=ingestion.source,
        run_id="run-1",
        notes=str(tmp_path / "notes.jsonl"),
        pause_at="embedded" if reader_is == "idle" else "",
        go=str(tmp_path / "never"),
    )
    with ExitStack() as stack:
        process = stack.enter_context(killed_run.start(orders))
        stack.callback(process.kill)
        reading: list[psutil.Process] = []

        def is_reading() -> bool:
            assert process.poll() is None, log_of(orders)
            is_paused = bool(read_notes(orders, "paused"))  # asked first: what is there then stays there
            reading[:] = _reading_processes(process.pid)
            if reader_is == "idle":
                return is_paused
            return any(_processor_time(one) > 1 for one in reading)

        wait_until(is_reading, f"its reading process is {reader_is}")
        assert len(reading) == 1
        process.terminate()
        process.wait(killed_run.DEADLINE_S)
        gone, alive = psutil.wait_procs(reading, timeout=killed_run.DEADLINE_S)
    assert (len(gone), alive) == (1, [])
    ingestion.run("run-1")
    assert_like_a_fresh_index(ingestion, tmp_path, monkeypatch)


def _reading_processes(parent: int) -> list[psutil.Process]:
    children = psutil.Process(parent).children()
    return [one for one in children if reading_process.__name__ in one.cmdline()]


def _processor_time(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


# A clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """By how many seconds the machine's clock is off, and what 002.txt is said to be, if not what it is."""
    faked, time_now, stat = SimpleNamespace(off=60.0, seen=None), source.time.time, os.stat

    def fake_stat(path: Any, *arguments: Any, **named: Any) -> Any:
        is_faked = faked.seen is not None and str(path).endswith("002.txt")
        return faked.seen if is_faked else stat(path, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(source, "SETTLED_S", 2.0)
        patch.setattr(source.time, "time", lambda: time_now() + faked.off)
        patch.setattr(source.os, "stat", fake_stat)
        yield faked


def test_a_change_after_the_clock_was_put_back_is_seen(
    ingestion: Ingestion, corpus: Path, clock: SimpleNamespace
) -> None:
    ingestion.run("run-1")
    clock.off = -3600.0
    _replace_word(corpus / "002.txt")
    clock.seen = _moved((corpus / "002.txt").stat(), -3660.0)
    assert ingestion.run("run-2")["changed"] == 1
    assert any("WORD" in row["text"] for row in ingestion.rows())


@pytest.mark.parametrize(("off", "changed"), [(-3600.0, 1), (60.0, 0)])
def test_a_time_that_lies_ahead_proves_nothing(
    ingestion: Ingestion, corpus: Path, clock: SimpleNamespace, off: float, changed: int
) -> None:
    """A change that leaves no trace in a file's times is seen if they lay ahead when the file was read."""
    clock.off = off
    ingestion.run("run-1")
    clock.seen = (corpus / "002.txt").stat()
    _replace_word(corpus / "002.txt")
    assert ingestion.run("run-2")["changed"] == changed


def _moved(seen: os.stat_result, seconds: float) -> SimpleNamespace:
    """The same file at other times."""
    values = {name: getattr(seen, name) for name in dir(seen) if name.startswith("st_")}
    for name in ("st_mtime", "st_ctime"):
        values |= {name: values[name] + seconds, f"{name}_ns": values[f"{name}_ns"] + int(seconds * 1e9)}
    return SimpleNamespace(**values)


def _replace_word(file: Path) -> None:
    """Another text of the same size in the same file."""
    text = file.read_text()
    with file.open("r+") as stream:
        stream.write(text.replace("word", "WORD"))


# Torn files, embedders, stores


def test_a_torn_last_line_is_set_aside_until_it_is_whole(
    ingestion: Ingestion, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = '{"text": "the first record"}\n{"text": "the last record"}\n'
    (corpus / "log.jsonl").write_text(whole[:-10])
    counts = ingestion.run("run-1")
    assert (counts["added"], counts["records_quarantined"]) == (7, 1)
    assert _texts(ingestion, "log.jsonl") == {"the first record"}
    (corpus / "log.jsonl").write_text(whole)
    counts = ingestion.run("run-2")
    assert (counts["changed"], counts["records_quarantined"]) == (1, 0)
    assert _texts(ingestion, "log.jsonl") == {"the first record", "the last record"}
    assert_like_a_fresh_index(ingestion, tmp_path, monkeypatch)


def _texts(ingestion: Ingestion, path: str) -> set[str]:
    return {row["text"] for row in ingestion.rows() if row["path"] == path}


def test_an_embedder_that_answers_too_few_rows_leaves_the_index_as_it_was(
    ingestion: Ingestion, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingestion.run("run-1")
    before = ingestion.rows(), ingestion.ledger()
    (corpus / "002.txt").write_text("a changed text")
    original = Hashing.embed
    with monkeypatch.context() as patch:
        patch.setattr(Hashing, "embed", lambda self, texts: original(self, texts)[:-1])
        with pytest.raises(EmbeddingError, match=r"hashing-1 answered \(0, 256\) for 1 texts"):
            ingestion.run("run-2")
    assert (ingestion.rows(), ingestion.ledger()) == before
    ingestion.run("run-2")
    assert_like_a_fresh_index(ingestion, tmp_path, monkeypatch)


@pytest.mark.parametrize("call", ["replace", "delete", "finish"])
@pytest.mark.parametrize("again", ["run-2", "run-3"])
def test_a_store_that_fails_after_it_wrote_is_repaired_by_running_again(
    ingestion: Ingestion, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, again: str
) -> None:
    ingestion.run("run-1")
    (corpus / "002.txt").write_text("a changed text")
    (corpus / "new.txt").write_text("an added document")
    (corpus / "001.html").unlink()
    original = getattr(LanceStore, call)

    def fail(self: LanceStore, *arguments: Any) -> None:
        original(self, *arguments)
        raise ConnectionError("the store went away")

    with monkeypatch.context() as patch:
        patch.setattr(LanceStore, call, fail)
        with pytest.raises(ConnectionError, match="the store went away"):
            ingestion.run("run-2")
    ingestion.run(again)
    assert_like_a_fresh_index(ingestion, tmp_path, monkeypatch)
