"""What a job is given to embed a run's shards, and what is refused because a job cannot be given it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from include.config import Settings
from include.errors import UserError
from include.rag import pipeline
from include.rag.config import IngestConfig
from include.rag.hand_over import check
from include.rag.plan import num_documents, read_plan
from include.storage import location, read_jsonl
from tests.rag.ingestion import config_of, write_corpus
from tests.rag.job_ingestion import JobIngestion

WORKER = "123456789012.dkr.ecr.us-east-1.amazonaws.com/fmops:worker"
ROLE = "arn:aws:iam::123456789012:role/fmops-jobs"
MODEL = {"embedding_url": "http://models/v1", "embedding_model": "m", "embedding_dimension": 8}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    write_corpus(folder)
    return folder


@pytest.fixture
def by_job(root: str, corpus: Path) -> JobIngestion:
    return JobIngestion(root, str(corpus))


def spec(ingestion: JobIngestion, config: dict[str, Any]) -> dict[str, Any]:
    found = pipeline.hand_over(config, ingestion.params, dag_id="dag", task_id="embed.job")
    assert found is not None
    return found


def test_every_shard_is_handed_over_with_its_number_of_documents(by_job: JobIngestion) -> None:
    by_job.params |= {"job_instances": 2, "job_hours": 0.5, "instance_type": "ml.c5.xlarge"}
    config = by_job.prepare("run-1")
    assert pipeline.plan(config) == []
    found = spec(by_job, config)
    assert (found["kind"], found["sharded"], found["max_runtime_s"]) == ("processing", ["shards"], 1800)
    assert found["resources"] == {"image": "worker", "instance_type": "ml.c5.xlarge", "instance_count": 2}
    files = sorted(location(found["channels"]["shards"]).iterdir(), key=str)
    numbers = {file.stem: json.loads(file.read_text())["documents"] for file in files}
    assert numbers == {"shard-0000": 3, "shard-0001": 3, "shard-0002": 2}
    (run,) = location(found["channels"]["run"]).iterdir()
    handed = json.loads(run.read_text())
    assert IngestConfig(**handed["config"]) == config_of(config)
    assert handed["caller"] == {"dag_id": "dag", "task_id": "embed.job"}


@pytest.mark.parametrize("per_shard", [1, 3, 7])
def test_the_numbers_of_documents_are_what_the_shards_hold(
    by_job: JobIngestion, per_shard: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("include.rag.plan.MAX_SHARDS", 3)
    by_job.params |= {"documents_per_shard": per_shard}
    config = config_of(by_job.prepare("run-1"))
    pipeline.plan(config.model_dump())
    plan = read_plan(config)
    folder = config.run_home / "plan"
    held = [len(list(read_jsonl(folder / f"due-{block:06d}.jsonl"))) for block in range(plan.blocks)]
    numbers = [num_documents(config, plan, shard) for shard in plan.shards]
    assert sum(numbers) == sum(held) == 8
    assert all(number >= 0 for number in numbers)


def test_no_instance_is_without_a_shard(by_job: JobIngestion) -> None:
    by_job.params |= {"job_instances": 50}
    config = by_job.prepare("run-1")
    pipeline.plan(config)
    assert spec(by_job, config)["resources"]["instance_count"] == 3


def test_the_same_work_is_handed_over_in_the_same_files(by_job: JobIngestion, corpus: Path) -> None:
    config = by_job.prepare("run-1")
    pipeline.plan(config)
    first = spec(by_job, config)
    before = {file: location(str(file)).stat().st_mtime_ns for file in location(by_job.root).rglob("job/**/*.json")}
    assert spec(by_job, config) == first
    assert {file: location(str(file)).stat().st_mtime_ns for file in before} == before
    (corpus / "more.md").write_text("# More\n\nwords")
    pipeline.plan(config)
    assert spec(by_job, config)["channels"] != first["channels"]


def test_tasks_embed_unless_a_job_is_asked_for(by_job: JobIngestion) -> None:
    by_job.params["embed_on"] = "tasks"
    config = by_job.prepare("run-1")
    assert len(pipeline.plan(config)) == 3
    assert pipeline.hand_over(config, by_job.params, dag_id="dag", task_id="embed.job") is None


def test_settings_are_handed_over_without_secrets(by_job: JobIngestion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMOPS_MODEL_CONCURRENCY", "7")
    monkeypatch.setenv("AIRFLOW__FMOPS__OPENSEARCH_PREFIX", "mine")
    monkeypatch.setenv("FMOPS_EMBEDDING_API_KEY", "sk-not-to-be-seen")  # of an embedder that this run does not take
    monkeypatch.setenv("FMOPS_OPENSEARCH_PASSWORD", "not-to-be-seen")
    config = by_job.prepare("run-1")
    pipeline.plan(config)
    found = spec(by_job, config)
    (run,) = location(found["channels"]["run"]).iterdir()
    assert json.loads(run.read_text())["environment"] == {
        "FMOPS_MODEL_CONCURRENCY": "7",
        "FMOPS_OPENSEARCH_PREFIX": "mine",
    }
    files = [file for file in location(by_job.root).rglob("*") if file.is_file()]
    assert not any(b"not-to-be-seen" in file.read_bytes() for file in files)
    assert "not-to-be-seen" not in json.dumps(found)


AWS = {"target": "aws", "sagemaker_role": ROLE, "worker_image": WORKER}
OPENAI = {"embedder": "openai:m:8", **MODEL}
OPENSEARCH = {"store": "opensearch", "opensearch_url": "https://search"}
TASKS = ", or embed_on=tasks$"


@pytest.fixture
def roots(root: str, s3_root: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A storage root of each target; a model for embedder `openai`."""
    for name, value in MODEL.items():
        monkeypatch.setenv(f"FMOPS_{name.upper()}", str(value))
    return {"local": root, "aws": s3_root}


def checked(roots: dict[str, str], **changes: Any) -> None:
    """check() of a run; a name of a setting changes that, a Param's the run."""
    root = roots[changes.get("target", "local")]
    known = {name: value for name, value in changes.items() if name in IngestConfig.model_fields}
    settings = {name: value for name, value in changes.items() if name in Settings.model_fields.keys() - known.keys()}
    run = {"root": root, "source": f"{root}/docs", "embedder": "hashing", "store": "lancedb", "embed_on": "job"}
    run |= {"run_id": "r", "index": "i", "tenant": "t", "use_case": "u"}
    run |= {"chunk_tokens": 100, "overlap_tokens": 0, "documents_per_shard": 1}
    check(IngestConfig(**{**run, **known}), changes, Settings(storage_root=root, **settings))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({**OPENAI, "embedding_api_key": "sk-1"}, f"FMOPS_EMBEDDING_API_KEY is a secret: .*{TASKS}"),
        ({**OPENAI, "embedding_url": "https://me:pw@models/v1"}, f"FMOPS_EMBEDDING_URL holds a password: .*{TASKS}"),
        ({**OPENSEARCH, "opensearch_auth": "basic"}, f"PASSWORD is a secret: set FMOPS_OPENSEARCH_AUTH=sigv4.*{TASKS}"),
        ({**AWS, **OPENSEARCH, "opensearch_auth": "basic"}, f"FMOPS_OPENSEARCH_PASSWORD is a secret: .*{TASKS}"),
        ({**OPENSEARCH, "opensearch_auth": "sigv4"}, f"sigv4 needs AWS credentials, which local jobs do not.*{TASKS}"),
        ({"embedder": "titan-v2"}, f"embedder titan-v2 needs AWS credentials.*FMOPS_JOB_BACKEND=sagemaker{TASKS}"),
        ({"source": "s3://b/docs"}, f"s3://b/docs needs AWS credentials.*{TASKS}"),
        ({**AWS, "source": "file:///docs"}, f"source='file:///docs' lies on this machine: copy it to s3://{TASKS}"),
        ({**AWS, "worker_image": None}, "worker_image=None is not the address.*FMOPS_WORKER_IMAGE"),
        ({**AWS, "sagemaker_role": None}, "FMOPS_SAGEMAKER_ROLE"),
        ({**AWS, "instance_type": "ml.none"}, r"resources\.instance_type='ml\.none' is not known for processing"),
        ({"job_hours": 121}, "max_runtime_s=435600"),
    ],
)
def test_what_a_job_cannot_have_is_refused_in_one_line(
    changes: dict[str, Any], words: str, roots: dict[str, str]
) -> None:
    with pytest.raises(UserError, match=words) as error:
        checked(roots, **changes)
    assert "\n" not in str(error.value)
    assert "sk-1" not in str(error.value) and "pw" not in str(error.value)


def test_the_live_version_s_store_counts_too(by_job: JobIngestion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMOPS_OPENSEARCH_URL", "http://search")
    monkeypatch.setenv("FMOPS_OPENSEARCH_AUTH", "basic")
    config = config_of(by_job.prepare("run-1"))
    live = config.versions.choose(replace(config.spec, store="opensearch"), "an earlier run")
    by_job.prepare("run-2")
    config.versions.go_live(live.number, by="an earlier run")
    with pytest.raises(UserError, match="FMOPS_OPENSEARCH_PASSWORD is a secret"):
        by_job.prepare("run-3")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        OPENAI,
        {**OPENSEARCH, "opensearch_auth": "none"},
        {**OPENSEARCH, "opensearch_auth": "basic", "store": "lancedb"},
        AWS,
        {**AWS, **OPENSEARCH, "opensearch_auth": "sigv4", "embedder": "titan-v2"},
    ],
)
def test_what_a_job_can_have_passes(changes: dict[str, Any], roots: dict[str, str]) -> None:
    checked(roots, **changes)


def test_a_run_is_refused_before_any_work(by_job: JobIngestion, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    by_job.params["embedder"] = "openai"
    for name, value in {**MODEL, "embedding_api_key": "sk-1"}.items():
        monkeypatch.setenv(f"FMOPS_{name.upper()}", str(value))
    with pytest.raises(UserError, match="FMOPS_EMBEDDING_API_KEY is a secret"):
        by_job.prepare("run-1")
    assert not location(root).exists(), "nothing was begun"
    by_job.params["embed_on"] = "tasks"
    assert by_job.prepare("run-1")["embed_on"] == "tasks"
