"""The job that embeds shards on SageMaker, as far as the tests' endpoint is one: two instances, files on S3."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from include.rag import pipeline
from include.rag.plan import read_plan
from include.storage import location, read_json, read_jsonl, write_bytes
from tests.aws.endpoint import ROLE, AwsEndpoint, aws_endpoint
from tests.rag.ingestion import Ingestion, config_of
from tests.rag.job_ingestion import JobIngestion

ROOT, OTHER, SOURCE = (f"s3://rag/{name}" for name in ("root", "other", "source"))
WORKER = "123456789012.dkr.ecr.us-east-1.amazonaws.com/fmops:worker"
COUNT = 14


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsEndpoint]:
    """An endpoint with documents on it, which boto3 and the settings of target aws find."""
    with aws_endpoint() as endpoint:
        settings = {"TARGET": "aws", "STORAGE_ROOT": ROOT, "SAGEMAKER_ROLE": ROLE, "WORKER_IMAGE": WORKER}
        for name, value in {**endpoint.environment, **{f"FMOPS_{key}": text for key, text in settings.items()}}.items():
            monkeypatch.setenv(name, value)
        endpoint.client("s3").create_bucket(Bucket="rag")
        for n in range(COUNT):
            write_bytes(location(SOURCE) / f"{n:02d}.md", f"# Title {n}\n\nwords of document {n}\n".encode())
        write_bytes(location(SOURCE) / "binary.txt", b"abc\x00def")
        yield endpoint


def events(root: str, run_id: str) -> int:
    """How many batches were embedded."""
    files = (location(root) / "default" / "usage").rglob("*.jsonl")
    return sum(event["run_id"] == run_id for file in files for event in read_jsonl(file))


def test_two_instances_embed_each_shard_once_and_make_the_rows_that_tasks_make(
    aws: AwsEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = {"store": "lancedb", "job_instances": 2, "job_hours": 1}
    by_job, by_tasks = JobIngestion(ROOT, SOURCE, params), Ingestion(OTHER, SOURCE, {"store": "lancedb"})
    with monkeypatch.context() as patch:
        patch.setenv("FMOPS_STORAGE_ROOT", OTHER)
        expected = by_tasks.run("run-1")
    config = by_job.prepare("run-1")
    pipeline.plan(config)
    (metrics,) = by_job.embed(config, [])
    shards = read_plan(config_of(config)).shards
    assert len(shards) == 5
    done = re.findall(r"^(algo-[12]): .*(shard-\d{4}): (\d+) of \3 documents", by_job.log(), re.MULTILINE)
    assert sorted(shard for _, shard, _ in done) == list(shards), "each once"
    assert {host for host, _, _ in done} == {"algo-1", "algo-2"}
    assert events(ROOT, "run-1") == events(OTHER, "run-1") == len(shards)
    assert metrics["hosts"] == 2

    by_job.settle(config)
    pipeline.commit(config)
    found = pipeline.check(config)
    assert {**found, "manifest_uri": ""} == {**expected, "manifest_uri": ""}
    assert (found["added"], found["quarantined"]) == (COUNT, 1)
    assert by_job.rows() == by_tasks.rows()


def test_a_job_that_is_killed_and_run_again_embeds_only_what_was_left(aws: AwsEndpoint) -> None:
    by_job = JobIngestion(ROOT, SOURCE, {"store": "lancedb"})
    config = by_job.prepare("run-1")
    pipeline.plan(config)
    named = by_job.named(config)
    assert named is not None
    aws.plan("oom", job=named.job_name(1), line="shard-0000: 3 of 3 documents")
    by_job.start(named)
    status = by_job.end()
    assert (status.state, status.cause) == ("failed", "out_of_memory")
    kept = chunks(config)
    by_job.start(named)
    by_job.end()
    embedded = by_job.result(named).metrics["chunks_embedded"]
    assert by_job.job.endswith("-g2")
    assert kept > 0
    assert kept + embedded == chunks(config) == COUNT


def chunks(config: dict[str, Any]) -> int:
    """In the parts that are whole."""
    files = [
        file for file in (config_of(config).home / "parts").rglob("*.json") if file.with_suffix(".parquet").exists()
    ]
    return sum(row.get("chunks", 0) for file in files for row in read_json(file))
