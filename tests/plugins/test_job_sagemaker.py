"""What SageMaker and CloudWatch tell of a job, from an endpoint on which jobs really run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fmops_plugins import job_sagemaker
from fmops_plugins.answers import PageError
from fmops_plugins.job_sagemaker import read_job
from fmops_plugins.job_view import JobView

from include.config import Settings
from include.jobs.ensure import named_spec
from include.jobs.sagemaker import SageMakerBackend
from include.jobs.spec import read_spec
from tests.aws.endpoint import ROLE, AwsEndpoint, aws_endpoint

KINDS = ["training", "processing"]
DAG = "train.große"
"""A DAG's name may hold what a tag refuses."""


@pytest.fixture(scope="module")
def server() -> Iterator[AwsEndpoint]:
    with aws_endpoint() as endpoint:
        endpoint.client("s3").create_bucket(Bucket="jobs")
        yield endpoint


@pytest.fixture
def aws(server: AwsEndpoint, monkeypatch: pytest.MonkeyPatch) -> AwsEndpoint:
    """The endpoint without other tests' jobs and faults; the page's clients find it by the environment."""
    server.reset()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    job_sagemaker._client.cache_clear()
    return server


def start(kind: str, *, dag_id: str = DAG, generation: int = 1, **changes: Any) -> dict[str, Any]:
    """A job as the operator starts it and tells of it."""
    values: dict[str, Any] = {
        "name": "smoke", "script": "include.jobs.scripts.smoke", "hyperparameters": {"seconds": 2}, "kind": kind,
        "max_runtime_s": 60, "tenant": "acme", "use_case": "faq", "dag_id": dag_id, "run_id": "r #1", "task_id": "t",
    }  # fmt: skip
    named = named_spec(read_spec(values | changes))
    backend = SageMakerBackend(Settings(target="aws", storage_root="s3://jobs/root", sagemaker_role=ROLE))
    name = named.job_name(generation)
    backend.submit(named, name, "attempt-1")
    return {"backend": "sagemaker", "kind": kind, "name": name, **backend.watch(kind, name)[1]}


def until(told: dict[str, Any], met: Callable[[JobView], Any]) -> JobView:
    """What is shown of a job once it is as it should be."""
    limit = time.monotonic() + 120
    while not met(view := read_job(told, DAG)):
        assert time.monotonic() < limit, view
        time.sleep(0.1)
    return view


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_from_its_start_to_its_end(aws: AwsEndpoint, kind: str) -> None:
    told = start(kind, hyperparameters={"seconds": 4})
    view = until(told, lambda view: view.progress)
    assert (view.state, view.cause, view.ended_at) == ("running", "", None)
    assert view.steps is not None
    assert view.steps[1] == 4
    assert view.told_at is not None
    assert view.started_at is not None
    assert (view.machine, view.owner) == ("1 x ml.m5.large", "attempt-1")
    assert view.tags.items() >= {"tenant": "acme", "use-case": "faq", "dag": DAG, "run": "r #1", "task": "t"}.items()
    assert "owner" not in view.tags
    view = until(told, lambda view: view.is_over)
    assert (view.state, view.cause) == ("succeeded", "")
    assert view.ended_at is not None
    assert view.billed_s > 0
    assert view.progress.items() >= {"step": 4, "of": 4}.items()
    assert not any("fmops-progress" in line for line in view.lines)
    assert f"/running/{told['name']}/" in view.output_uri
    keys = aws.client("s3").list_objects_v2(Bucket="jobs", Prefix=view.output_uri.removeprefix("s3://jobs/"))
    assert any(one["Key"].endswith("/result.json") for one in keys["Contents"]), "the output lies there"


@pytest.mark.parametrize("kind", KINDS)
def test_why_a_job_failed_and_the_end_of_its_log(aws: AwsEndpoint, kind: str) -> None:
    view = until(start(kind, hyperparameters={"seconds": 0}), lambda view: view.is_over)
    assert view.state == "failed"
    assert "BadInput: hyper-parameter seconds=0 must be from 1 to 3600" in view.message
    assert view.lines[-1].endswith("BadInput: hyper-parameter seconds=0 must be from 1 to 3600")
    assert "Traceback (most recent call last):" in view.lines
    assert (view.cause, view.log_problem) == ("BadInput", "")


def test_causes_are_the_services_words(aws: AwsEndpoint) -> None:
    aws.plan("capacity")
    view = until(start("training"), lambda view: view.is_over)
    assert (view.state, view.cause, view.lines, view.log_problem) == ("failed", "CapacityError", [], "")
    late = until(start("training", max_runtime_s=1, hyperparameters={"seconds": 30}), lambda view: view.is_over)
    assert (late.state, late.cause) == ("stopped", "MaxRuntimeExceeded")


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_that_is_stopped(aws: AwsEndpoint, kind: str) -> None:
    told = start(kind, hyperparameters={"seconds": 30})
    until(told, lambda view: view.progress)
    getattr(aws.client("sagemaker"), f"stop_{kind}_job")(**{f"{kind.title()}JobName": told["name"]})
    view = until(told, lambda view: view.is_over)
    assert (view.state, view.cause) == ("stopped", "")


def test_of_several_hosts_each_line_tells_whose_it_is(aws: AwsEndpoint) -> None:
    told = start("processing", hyperparameters={"seconds": 0}, resources={"instance_count": 2})
    view = until(told, lambda view: view.is_over)
    assert view.machine == "2 x ml.m5.large"
    told_by = {line.partition(": ")[0] for line in view.lines}
    assert told_by and told_by <= {"algo-1", "algo-2"}, "the first to fail may end the other before it wrote"


def test_a_job_of_another_dag_is_refused(aws: AwsEndpoint) -> None:
    told = start("training", dag_id="theirs")
    with pytest.raises(PageError, match="is not tagged as a job of DAG mine") as caught:
        read_job(told, "mine")
    assert caught.value.status == 403
    assert read_job(told, "theirs").name == told["name"]


@pytest.mark.parametrize(
    "changes", [{"kind": "transform"}, {"kind": ["training"]}, {"name": "../x-g1"}, {"name": None}, {"name": "theirs"}]
)
def test_what_names_no_job_of_ours_is_never_asked_for(aws: AwsEndpoint, changes: dict[str, Any]) -> None:
    told = {"kind": "training", "name": "smoke-0123456789abcdef-g1", "region": "us-east-1"} | changes
    with pytest.raises(PageError, match="do not name a job of ours") as caught:
        read_job(told, DAG)
    assert caught.value.status == 403
    assert aws.calls() == []


def test_what_aws_refuses_is_one_line(aws: AwsEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"kind": "training", "name": "never-0123456789abcdef-g1", "region": "us-east-1"}
    unknown = read_job(told, DAG)
    assert (unknown.state, unknown.is_over) == ("unknown", False)
    assert unknown.message.startswith("SageMaker does not tell: An error occurred (ValidationException)")
    assert "\n" not in unknown.message
    region = read_job(told | {"region": "evil.example/#"}, DAG)
    assert (region.state, "evil.example" in region.message) == ("unknown", True)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    job_sagemaker._client.cache_clear()
    down = read_job(told, DAG)
    assert (down.state, "Could not connect" in down.message) == ("unknown", True)


@pytest.mark.parametrize(("operation", "asked"), [("DescribeTrainingJob", 2), ("ListTags", 2)])
def test_a_throttle_that_passes_is_not_seen_and_one_that_lasts_is(aws: AwsEndpoint, operation: str, asked: int) -> None:
    told = start("training")
    aws.plan("throttle", operation=operation)
    assert read_job(told, DAG).state != "unknown"
    before = len(aws.calls(operation))
    aws.plan("throttle", operation=operation, times=None)
    view = read_job(told, DAG)
    assert (view.state, "Rate exceeded" in view.message, view.tags) == ("unknown", True, {})
    assert len(aws.calls(operation)) - before == asked, "somebody waits for the page"


def test_a_log_that_may_not_be_read_leaves_the_rest(aws: AwsEndpoint) -> None:
    told = start("training")
    until(told, lambda view: view.is_over)
    aws.plan("denied", operation="DescribeLogStreams")
    view = read_job(told, DAG)
    assert (view.state, view.lines) == ("succeeded", [])
    assert view.log_problem.startswith("CloudWatch does not tell: An error occurred (AccessDenied")
    assert read_job(told, DAG).log_problem == ""
