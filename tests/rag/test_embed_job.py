"""The job that embeds shards, on the local backend: what it makes, what a kill costs, what it says when it fails."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import psutil
import pytest

from include.documents import source
from include.errors import UserError
from include.jobs.guard import ALL
from include.jobs.harness import BadInput
from include.jobs.source import ENTRY, read_source
from include.rag import embed_job, pipeline
from include.rag.embed import read_result
from include.rag.hand_over import SCRIPT
from include.rag.plan import read_plan
from include.rag.stages import read_stages
from include.rag.stores import STORES
from include.storage import location, read_jsonl
from tests.models.model_server import STALL, Fault, ModelServer, texts_of
from tests.rag.ingestion import Ingestion, config_of, write_corpus
from tests.rag.job_ingestion import JobIngestion
from tests.rag.killed_run import wait_until

TORN = '{"text": "good words"}\n{"text": \n{"text": "more words"}\n'


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Eight good documents, one that is binary and one with a torn record: four shards."""
    folder = tmp_path / "source"
    write_corpus(folder)
    (folder / "binary.txt").write_bytes(b"abc\x00def")
    (folder / "torn.jsonl").write_text(TORN)
    return folder


@pytest.fixture
def by_job(root: str, corpus: Path) -> JobIngestion:
    return JobIngestion(root, str(corpus))


def letters(ingestion: Ingestion) -> list[dict[str, Any]]:
    """What is set aside, without when and by whom."""
    rows = read_jsonl(ingestion.home() / "quarantine.jsonl")
    return sorted(({k: v for k, v in row.items() if k != "created_at"} for row in rows), key=str)


def usage(ingestion: Ingestion, run_id: str) -> list[dict[str, Any]]:
    files = (location(ingestion.root) / "default" / "usage").rglob("*.jsonl")
    return [event for file in files for event in read_jsonl(file) if event["run_id"] == run_id]


def test_a_job_makes_the_rows_counts_and_dead_letters_that_tasks_make(
    by_job: JobIngestion, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = (tmp_path / "other").as_uri()
    by_tasks = Ingestion(other, str(corpus))

    def run(run_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
        with monkeypatch.context() as patch:
            patch.setenv("FMOPS_STORAGE_ROOT", other)
            expected = by_tasks.run(run_id)
        found = by_job.run(run_id)
        for counts in (expected, found):
            del counts["manifest_uri"]
        return expected, found

    expected, found = run("run-1")
    assert found == expected
    assert (found["added"], found["quarantined"], found["records_quarantined"]) == (9, 1, 1)
    assert by_job.rows() == by_tasks.rows()
    assert (by_job.ledger(), letters(by_job)) == (by_tasks.ledger(), letters(by_tasks))
    progress = by_job.status().progress
    assert (progress["step"], progress["of"], progress["quarantined"]) == (10, 10, 1)
    assert progress["chunks_per_s"] > 0
    events = usage(by_job, "run-1")
    assert {(event["dag_id"], event["task_id"]) for event in events} == {("test", "embed.job")}
    assert sum(one["tokens_in"] for one in events) == sum(one["tokens_in"] for one in usage(by_tasks, "run-1"))
    stages = {record["stage"] for record in read_stages(config_of(by_job.prepare("run-1")))}
    assert {f"embed shard-000{n}" for n in range(4)} <= stages

    (corpus / "000.md").rename(corpus / "renamed.md")
    (corpus / "003.jsonl").write_text('{"text": "something else"}\n')
    expected, found = run("run-2")
    assert found == expected, "vectors of the index are taken by the job too"
    assert found["chunks_reused"] > 0
    assert by_job.rows() == by_tasks.rows()


def test_with_nothing_to_embed_there_is_no_job(by_job: JobIngestion) -> None:
    by_job.run("run-1")
    first = by_job.job
    assert by_job.run("run-2")["unchanged"] == 9
    assert by_job.job == first


def test_a_job_that_has_run_is_not_run_again_for_the_same_work(
    by_job: JobIngestion, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "SETTLED_S", -60.0)  # files that were just written have stamps too
    config = by_job.prepare("run-1")
    by_job.embed(config, pipeline.plan(config))
    pipeline.plan(config)  # cleared, and planned again
    named = by_job.named(config)
    assert named is not None
    assert by_job.start(named) == "", "its output is there"
    (corpus / "more.md").write_text("# More\n\nwords")
    pipeline.plan(config)
    changed = by_job.named(config)
    assert changed is not None
    assert changed.job_digest != named.job_digest, "other work is another job"


def test_a_killed_job_that_is_run_again_embeds_only_what_was_left(by_job: JobIngestion, server: ModelServer) -> None:
    by_job.params |= {"embedder": "openai", "chunk_tokens": 100}
    server.faults = [Fault(), Fault(), Fault(), STALL]  # one request for each shard
    config = by_job.prepare("run-1")
    assert pipeline.plan(config) == []
    named = by_job.named(config)
    assert named is not None
    run = config_of(config)
    shards = read_plan(run).shards
    first = by_job.start(named)
    others = len(shards) - 1
    wait_until(lambda: not server.faults and len(finished(config, shards)) == others, "all but the one that stalls")
    stalled = server.requests[3]
    done = len(server.requests)
    kill_script(Path(location(by_job.root).path) / "jobs" / first)
    status = by_job.end()
    assert (status.state, status.cause) == ("failed", "user_code"), status
    assert by_job.start(named) == first.removesuffix("-g1") + "-g2"
    by_job.end()
    by_job.result(named)
    assert [texts_of(body) for body in server.requests[done:]] == [texts_of(stalled)]
    assert finished(config, shards) == set(shards)
    assert len(server.texts) - len(texts_of(stalled)) == len(set(server.texts))


def finished(config: dict[str, Any], shards: tuple[str, ...]) -> set[str]:
    found = set()
    for shard in shards:
        try:
            read_result(config_of(config), shard)
        except FileNotFoundError:
            continue
        found.add(shard)
    return found


def kill_script(folder: Path) -> None:
    """All processes of a job but its supervisor, at once."""
    job_id = (folder / "id").read_text()
    for process in psutil.process_iter():
        try:
            if process.environ().get(ALL) == job_id and "--detach" not in process.cmdline():
                process.kill()
        except psutil.Error:
            continue


def test_a_shard_that_fails_ends_the_job_and_is_named(by_job: JobIngestion, server: ModelServer) -> None:
    by_job.params |= {"embedder": "openai", "chunk_tokens": 100, "documents_per_shard": 50}
    server.faults = [Fault(status=404)]
    config = by_job.prepare("run-1")
    pipeline.plan(config)
    named = by_job.named(config)
    assert named is not None
    by_job.start(named)
    status = by_job.end()
    assert (status.state, status.cause) == ("failed", "bad_input"), status
    assert "shard-0000: " in status.message and "404" in status.message


@pytest.mark.parametrize(
    ("errors", "tries", "raised", "words"),
    [
        ([ConnectionResetError("cut"), TimeoutError("slow")], 3, None, ""),
        ([OSError("a"), OSError("b"), OSError("the last")], 3, RuntimeError, "shard-7: OSError: the last"),
        ([PermissionError("no")], 1, RuntimeError, "shard-7: PermissionError: no"),
        ([UserError("chunk_tokens=3")], 1, BadInput, "shard-7: chunk_tokens=3"),
        ([MemoryError("all")], 1, MemoryError, "all"),
    ],
)
def test_a_shard_is_tried_again_where_that_may_help(
    errors: list[Exception], tries: int, raised: type[Exception] | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def attempt(run: dict[str, Any], shard: str) -> dict[str, int]:
        tried.append(shard)
        if errors:
            raise errors.pop(0)
        return {"documents": 3}

    monkeypatch.setattr(embed_job, "_embed", attempt)
    monkeypatch.setattr(embed_job, "PAUSE_S", 0.0)
    if raised is None:
        assert embed_job.embed({}, "shard-7") == {"documents": 3}
    else:
        with pytest.raises(raised, match=words):
            embed_job.embed({}, "shard-7")
    assert tried == ["shard-7"] * tries


def test_the_packed_source_alone_is_enough(by_job: JobIngestion, tmp_path: Path) -> None:
    packed = read_source(SCRIPT)
    names = {path.removesuffix(".py").replace("/", ".") for path, _ in packed.files}
    assert {path.partition(":")[0] for path in STORES.values()} <= names, "a store that is opened by its name"
    config = by_job.prepare("run-1")
    pipeline.plan(config)
    named = by_job.named(config)
    assert named is not None
    alone, ml = tmp_path / "alone", tmp_path / "ml"
    with tarfile.open(fileobj=io.BytesIO(packed.pack())) as tar:
        tar.extractall(alone, filter="data")
    for name, uri in named.spec.channels.items():
        shutil.copytree(location(uri).path, ml / "processing" / "input" / name)
    environment = {
        "PATH": os.environ["PATH"],
        "FMOPS_ML_ROOT": str(ml),
        "FMOPS_HYPERPARAMETERS": json.dumps({"fmops_script": SCRIPT}),
    }
    done = subprocess.run(
        [sys.executable, alone / ENTRY], cwd=ml, env=environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shards = read_plan(config_of(config)).shards
    assert finished(config, shards) == set(shards)
