"""Pre-training on AWS: corpus and releases on S3, segments as SageMaker's training jobs, one of them taken away."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import include
from include.config import load_settings
from include.jobs import source
from include.jobs.base import open_backend
from include.models import registry
from include.storage import list_files, location, read_json
from include.training import pipeline
from tests.aws.endpoint import AwsEndpoint
from tests.jobs.conftest import aws, aws_server  # which puts the plugins on the path, as a triggerer has them
from tests.jobs.worlds import Attempt, attempts
from tests.training.in_jobs import jobs_python
from tests.training.made_up import LEARNT, write_documents
from tests.training.steps import Steps

__all__ = ["attempts", "aws", "aws_server"]

DEADLINE_S = 300
"""Until a test gives up on a job."""
BUCKET = "pretraining"
HOLDS = "it holds until somebody takes it away"
INTERRUPTED = f"""
import sys, time
from include.training import pretrain

def main(job):
    from include.training.trainer import Trainer

    save = Trainer._checkpoint

    def hold(self):
        save(self)
        sys.stdout.write("{HOLDS}\\n")
        sys.stdout.flush()
        time.sleep(3600)

    if job.last_checkpoint() is None:
        job.checkpoint_due = lambda every_s: True
        Trainer._checkpoint = hold
    return pretrain.main(job)
"""
"""A script that trains, but stands still behind its first checkpoint, so that a test can say when it is interrupted."""


@pytest.fixture
def deployment(aws: AwsEndpoint, attempts: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AwsEndpoint:
    """The account, whose containers have torch; its scripts are the project's and INTERRUPTED."""
    aws.client("s3").create_bucket(Bucket=BUCKET)
    aws.set_pace(python=str(jobs_python()))
    for name, value in aws.deployment(f"s3://{BUCKET}/{uuid.uuid4().hex}").items():
        monkeypatch.setenv(name, value)
    copy = tmp_path / "include"
    shutil.copytree(Path(include.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "interrupted.py").write_text(INTERRUPTED)
    monkeypatch.setattr(source, "FOLDER", copy)
    return aws


def run_job(spec: Mapping[str, Any], task_id: str, **channels: Any) -> tuple[dict[str, Any], str]:
    """What a task with this job hands on, and the job's log."""
    backend = open_backend("sagemaker", load_settings())
    attempt = Attempt(dict(spec), task_id, channels=channels)
    assert attempt.run() is None, "it frees its slot at once"
    until = time.monotonic() + DEADLINE_S
    while (status := backend.describe("training", attempt.job)) is None or not status.is_over:
        assert time.monotonic() < until, f"{attempt.job} is {status} after {DEADLINE_S} s"
        time.sleep(0.1)
    done = attempt.resume()
    assert done is not None
    return done, "\n".join(backend.log("training", attempt.job)[0])


@pytest.mark.slow
def test_a_run_on_spot_instances_that_is_interrupted_ends_in_a_release(deployment: AwsEndpoint) -> None:
    """Slow because each job loads torch anew."""
    location(f"s3://{BUCKET}/made-up/documents.jsonl").write_bytes(write_documents())
    made_up = {"name": "made-up", "uri": f"s3://{BUCKET}/made-up", "kind": "records", "licence": "CC0-1.0"}
    # One process: what the script changes in its job would not reach those that it starts.
    steps = Steps(sources=[made_up], spot=True, processes=1, **LEARNT)
    specs = steps.run()
    jobs: list[dict[str, Any]] = []
    for number in (1, 2, 3, 4):
        spec = specs[f"segment_{number}"]
        if number == 2:
            spec["script"] = "include.interrupted"
            deployment.plan("interrupt", line=HOLDS)
        done, log = run_job(spec, f"segment_{number}", **({"previous": jobs[-1]} if jobs else {}))
        jobs.append(done)
        if number == 2:
            assert deployment.faults_left() == []
            assert "goes on from step 10: state" in log and "goes on from step 11: step-000000000011" in log
    jobs.append(run_job(specs["evaluate"], "evaluate", model=jobs[-1])[0])
    assert [job["status"] for job in deployment.jobs()] == ["Completed"] * len(jobs)

    evaluation = read_json(location(jobs[-1]["output_uri"]) / "evaluation.json")
    assert [point["step"] for point in evaluation["curve"]] == list(range(1, LEARNT["steps"] + 1))
    assert evaluation["tokens_seen"] == LEARNT["steps"] * LEARNT["batch_tokens"]
    assert pipeline.gate(steps.config, jobs[-1])["verdict"] == "passed"
    told = pipeline.release(steps.config, steps.packed, jobs, dag_id="pretraining")
    assert (told["version"], told["alias"]) == (1, "champion")
    found = registry.find(steps.config["root"], "default", "docs-lm")
    registry.verify(found, with_digests=True)
    assert found.uri.startswith(f"s3://{BUCKET}/") and "model/model.safetensors" in list_files(location(found.uri))
    assert (found.lineage.jobs, found.licences) == (tuple(job["job"] for job in jobs), ("CC0-1.0",))
    assert found.cost.usd is not None and found.cost.usd > 0
    assert pipeline.register(steps.config) is None, "without a server's ARN there is no view"
