"""The SageMaker backend against an endpoint whose jobs really run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from include import aws as factory
from include.config import Settings
from include.errors import UserError
from include.jobs.base import open_backend
from include.jobs.ensure import ensure, named_spec, result
from include.jobs.output import read_manifest
from include.jobs.preflight import demand, preflight, render
from include.jobs.sagemaker import SageMakerBackend, store_archive, store_files
from include.jobs.source import read_source
from include.jobs.spec import JobSpec, Named, read_spec
from include.jobs.states import BadInputError, CapacityError, JobExistsError, Status, ThrottledError
from include.storage import location
from tests.aws.endpoint import ROLE, AwsEndpoint, aws_endpoint

BUCKET = "jobs"
ROOT = f"s3://{BUCKET}/root"


@pytest.fixture(scope="module")
def aws_server() -> Iterator[AwsEndpoint]:
    with aws_endpoint() as endpoint:
        endpoint.client("s3").create_bucket(Bucket=BUCKET)
        yield endpoint


@pytest.fixture
def aws(aws_server: AwsEndpoint, monkeypatch: pytest.MonkeyPatch) -> AwsEndpoint:
    """The endpoint without other tests' jobs and faults; boto3 finds it by the environment."""
    aws_server.reset()
    for name, value in aws_server.environment.items():
        monkeypatch.setenv(name, value)
    return aws_server


@pytest.fixture
def backend(aws: AwsEndpoint) -> SageMakerBackend:
    found = open_backend("sagemaker", settings())
    assert isinstance(found, SageMakerBackend)
    return found


def settings(**changes: Any) -> Settings:
    return Settings(**{"target": "aws", "storage_root": ROOT, "sagemaker_role": ROLE} | changes)


def spec(request: pytest.FixtureRequest | None = None, **changes: Any) -> JobSpec:
    values: dict[str, Any] = {
        "name": "smoke",
        "script": "include.jobs.scripts.smoke",
        "hyperparameters": {"seconds": 1},
        "max_runtime_s": 60,
        "tenant": "acme",
        "use_case": "faq",
        "dag_id": "dag",
        "run_id": request.node.name if request else "run",
        "task_id": "smoke",
    }
    return read_spec(values | changes)


def waited(backend: SageMakerBackend, kind: str, name: str) -> Status:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        status = backend.describe(kind, name)
        assert status is not None
        if status.is_over:
            return status
        time.sleep(0.1)
    raise AssertionError(f"{name} is not over: {status}")


def running(backend: SageMakerBackend, named: Named, *, owner: str = "me") -> str:
    """The name of a job whose script runs."""
    name = named.job_name(1)
    backend.submit(named, name, owner)
    until = time.monotonic() + 60
    while (status := backend.describe(named.spec.kind, name)) and status.state != "running":
        assert time.monotonic() < until, status
        time.sleep(0.05)
    return name


@pytest.mark.parametrize("kind", ["training", "processing"])
def test_a_job_from_its_start_to_its_output(
    backend: SageMakerBackend, aws: AwsEndpoint, kind: str, request: pytest.FixtureRequest
) -> None:
    named = named_spec(spec(request, kind=kind))
    held = ensure(backend, named, root=ROOT, owner="me")
    status = waited(backend, kind, held.name)
    assert status.state == "succeeded", status
    assert status.instance_type == "ml.m5.large"
    assert status.billed_s > 0
    assert status.started_at is not None
    assert status.output_uri.startswith(f"{ROOT}/acme/jobs/running/{held.name}/")
    assert {file.path for file in read_manifest(status.output_uri).files} == {"result.json"}
    output = result(backend, named, held.name, status, root=ROOT)
    assert output.metrics["seconds"] == 1
    lines, _ = backend.log(kind, held.name)
    assert any(line.startswith("fmops-progress {") for line in lines), lines
    again = ensure(backend, named, root=ROOT, owner="other")
    assert again.output is not None, "the output is there: no second job"
    assert len(aws.jobs()) == 1


@pytest.mark.parametrize("kind", ["training", "processing"])
def test_a_script_that_refuses_its_input_is_told_by_its_class(
    backend: SageMakerBackend, kind: str, request: pytest.FixtureRequest
) -> None:
    named = named_spec(spec(request, kind=kind, hyperparameters={"seconds": 0}))
    backend.submit(named, named.job_name(1), "me")
    status = waited(backend, kind, named.job_name(1))
    assert (status.state, status.cause) == ("failed", "bad_input")
    assert "seconds=0" in status.message


def test_a_channel_is_there_and_a_sharded_one_is_split(
    backend: SageMakerBackend, request: pytest.FixtureRequest
) -> None:
    for number in range(4):
        (location(ROOT) / "in" / f"{number}.txt").write_text("x")
    named = named_spec(
        spec(
            request,
            kind="processing",
            channels={"train": f"{ROOT}/in"},
            sharded=("train",),
            resources={"instance_count": 2},
        )
    )
    backend.check(named)
    name = named.job_name(1)
    backend.submit(named, name, "me")
    status = waited(backend, "processing", name)
    assert status.state == "succeeded", status
    lines, place = backend.log("processing", name)
    assert {line.split(":")[0] for line in lines} == {"algo-1", "algo-2"}
    assert backend.log("processing", name, place) == ([], place), "each line once"


@pytest.mark.parametrize(
    ("fault", "state", "cause"),
    [("capacity", "failed", "capacity"), ("oom", "failed", "out_of_memory"), ("stop", "stopped", "stopped")],
)
@pytest.mark.parametrize("kind", ["training", "processing"])
def test_ends_that_are_not_the_scripts(
    backend: SageMakerBackend,
    aws: AwsEndpoint,
    kind: str,
    fault: str,
    state: str,
    cause: str,
    request: pytest.FixtureRequest,
) -> None:
    aws.plan(fault)
    named = named_spec(spec(request, kind=kind, hyperparameters={"seconds": 30}))
    backend.submit(named, named.job_name(1), "me")
    status = waited(backend, kind, named.job_name(1))
    assert (status.state, status.cause) == (state, cause), status


def test_a_job_whose_time_is_up_is_stopped(backend: SageMakerBackend, request: pytest.FixtureRequest) -> None:
    named = named_spec(spec(request, hyperparameters={"seconds": 30}, max_runtime_s=1))
    backend.submit(named, named.job_name(1), "me")
    status = waited(backend, "training", named.job_name(1))
    assert (status.state, status.cause) == ("stopped", "timed_out")
    assert status.message.startswith("MaxRuntimeExceeded")


@pytest.mark.slow
def test_a_spot_job_goes_on_from_its_checkpoint(
    backend: SageMakerBackend, aws: AwsEndpoint, request: pytest.FixtureRequest
) -> None:
    aws.plan("interrupt", seconds=5)
    named = named_spec(spec(request, hyperparameters={"seconds": 8}, resources={"spot": True}))
    held = ensure(backend, named, root=ROOT, owner="me")
    status = waited(backend, "training", held.name)
    assert status.state == "succeeded", status
    metrics = result(backend, named, held.name, backend.describe("training", held.name), root=ROOT).metrics
    assert metrics["resumed_from_step"] >= 3
    assert 0 < status.billed_s < 8, "a spot job is billed for less than it ran"


@pytest.mark.parametrize("kind", ["training", "processing"])
def test_a_name_that_nobody_used_is_none(backend: SageMakerBackend, kind: str) -> None:
    assert backend.describe(kind, "never-0123456789abcdef-g1") is None
    assert backend.owner(kind, "never-0123456789abcdef-g1") is None
    assert backend.log(kind, "never-0123456789abcdef-g1") == ([], {})
    backend.stop(kind, "never-0123456789abcdef-g1")
    with pytest.raises(LookupError, match="never"):
        backend.claim(kind, "never-0123456789abcdef-g1", "me")
    with pytest.raises(BadInputError, match="validation error"):
        backend.describe(kind, "no_name")


@pytest.mark.parametrize("kind", ["training", "processing"])
def test_whose_a_job_is_and_how_it_ends(
    backend: SageMakerBackend, aws: AwsEndpoint, kind: str, request: pytest.FixtureRequest
) -> None:
    named = named_spec(spec(request, kind=kind, hyperparameters={"seconds": 30}))
    name = running(backend, named, owner="first")
    assert backend.owner(kind, name) == "first"
    backend.claim(kind, name, "second")
    assert backend.owner(kind, name) == "second"
    with pytest.raises(ValueError, match="owner"):
        backend.claim(kind, name, "#")
    run = {"fmops:run": named.spec.run_id}
    assert [(a, b, tags["fmops:owner"]) for a, b, tags in backend.find(run)] == [(kind, name, "second")]
    assert list(backend.find({"fmops:run": "another"})) == []
    backend.stop(kind, name)
    assert waited(backend, kind, name).cause == "stopped"
    backend.stop(kind, name)
    assert list(backend.find(run)) == [], "it has ended"
    assert aws.processes() == []


def test_find_knows_ours_by_their_names(
    backend: SageMakerBackend, aws: AwsEndpoint, request: pytest.FixtureRequest
) -> None:
    named = named_spec(spec(request, hyperparameters={"seconds": 30}))
    backend.submit(named, "somebody-elses", "me")
    assert list(backend.find({})) == []
    assert aws.calls("ListTags") == [], "no call is spent on others"
    names = {f"{named.job_name(number)}" for number in (1, 2, 3)}
    for name in names:
        backend.submit(named, name, "me")
    assert {name for _, name, _ in backend.find(named.spec.tags)} == names


def test_a_second_submit_of_a_name_is_refused(backend: SageMakerBackend, request: pytest.FixtureRequest) -> None:
    named = named_spec(spec(request))
    backend.submit(named, named.job_name(1), "me")
    with pytest.raises(JobExistsError, match="already exists"):
        backend.submit(named, named.job_name(1), "me")


@pytest.mark.parametrize("fault", ["lost", "lost_error"])
def test_an_answer_lost_after_creation_costs_no_second_job(
    backend: SageMakerBackend, aws: AwsEndpoint, fault: str, request: pytest.FixtureRequest
) -> None:
    aws.plan(fault, operation="Create*Job")
    named = named_spec(spec(request, force=True))
    held = ensure(backend, named, root=ROOT, owner="me")
    assert held.name == named.job_name(1)
    assert [job["name"] for job in aws.jobs()] == [held.name]
    assert waited(backend, "training", held.name).state == "succeeded"


@pytest.mark.parametrize("fault", ["down", "lost", "error"])
def test_a_call_without_an_answer_may_be_made_again(
    aws: AwsEndpoint, fault: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    backend = SageMakerBackend(settings())
    named = named_spec(spec(request))
    aws.plan(fault, operation="CreateTrainingJob")
    with pytest.raises(ConnectionError, match=r"(?i)create_?training_?job"):
        backend.submit(named, named.job_name(1), "me")
    assert (backend.describe("training", named.job_name(1)) is not None) == (fault == "lost")


def test_a_throttle_that_passes_is_not_seen_and_one_that_lasts_is(
    backend: SageMakerBackend, aws: AwsEndpoint, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = named_spec(spec(request))
    aws.plan("throttle", operation="CreateTrainingJob")
    backend.submit(named, named.job_name(1), "me")
    assert [call["status"] for call in aws.calls("CreateTrainingJob")] == [400, 200]
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    aws.plan("throttle", operation="DescribeTrainingJob", times=None)
    with pytest.raises(ThrottledError, match="Rate exceeded"):
        SageMakerBackend(settings()).describe("training", named.job_name(1))


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [("limit", CapacityError, "service limit"), ("denied", BadInputError, rf"CreateTrainingJob.*PassRole for {ROLE}")],
)
def test_refusals_by_cause(
    backend: SageMakerBackend,
    aws: AwsEndpoint,
    fault: str,
    error: type[Exception],
    words: str,
    request: pytest.FixtureRequest,
) -> None:
    aws.plan(fault, operation="CreateTrainingJob")
    named = named_spec(spec(request))
    with pytest.raises(error, match=words):
        backend.submit(named, named.job_name(1), "me")
    assert aws.jobs() == []


@pytest.mark.parametrize(
    ("changes", "given", "words"),
    [
        ({"sagemaker_role": None}, {}, "FMOPS_SAGEMAKER_ROLE"),
        ({"storage_root": "file:///tmp/x"}, {}, r"storage_root='file:///tmp/x'.*FMOPS_STORAGE_ROOT=s3://"),
        ({"sagemaker_subnets": "subnet-1"}, {}, "set both"),
        ({"sagemaker_security_groups": "sg-1"}, {}, "set both"),
        ({}, {"resources": {"image": "none"}}, "choose among cpu"),
        ({}, {"resources": {"image": "worker"}}, "FMOPS_WORKER_IMAGE"),
        ({}, {"resources": {"instance_type": "ml.none"}}, "ml.none"),
        ({}, {"channels": {"train": "file:///x"}}, "channel train"),
    ],
)
def test_check_names_the_fix(changes: dict[str, Any], given: dict[str, Any], words: str) -> None:
    named = Named(spec=spec(**given), inputs_digest="i" * 32, job_digest="j" * 16)
    with pytest.raises(UserError, match=words) as error:
        SageMakerBackend(settings(**changes)).check(named)
    assert "\n" not in str(error.value)


def test_check_lets_a_good_job_pass() -> None:
    both = {"sagemaker_subnets": "subnet-1, subnet-2", "sagemaker_security_groups": "sg-1"}
    named = Named(spec=spec(), inputs_digest="i" * 32, job_digest="j" * 16)
    SageMakerBackend(settings(**both)).check(named)
    assert SageMakerBackend(settings(**both))._place(named.spec).subnets == ("subnet-1", "subnet-2")
    mine = "123456789012.dkr.ecr.us-east-1.amazonaws.com/fmops:worker"
    place = SageMakerBackend(settings(worker_image=mine))._place(spec(resources={"image": "worker"}))
    assert place.image_uri == mine


def test_a_source_is_stored_once(aws: AwsEndpoint) -> None:
    source = read_source("include.jobs.scripts.smoke")
    folder = f"{ROOT}/once/{source.digest}"
    archive, files = store_archive(source, folder), store_files(source, folder)
    assert archive == f"{folder}/source.tar.gz"
    assert files == f"{folder}/files/"
    names = {str(file.relative_to(location(files))) for file in location(files).rglob("*") if file.is_file()}
    assert names == {"fmops_job.py", *(path for path, _ in source.files)}
    puts = len(aws.calls("PUT"))
    assert puts == len(names) + 1
    assert (store_archive(source, folder), store_files(source, folder)) == (archive, files)
    assert len(aws.calls("PUT")) == puts


def test_a_bucket_that_is_not_there_is_bad_input(aws: AwsEndpoint, request: pytest.FixtureRequest) -> None:
    backend = SageMakerBackend(settings(storage_root="s3://no-such-bucket/root"))
    named = named_spec(spec(request))
    with pytest.raises(BadInputError, match=r"s3://no-such-bucket/root/acme/jobs/source"):
        backend.submit(named, named.job_name(1), "me")


def test_who_watches(backend: SageMakerBackend) -> None:
    place = {"kind": "training", "region": "us-east-1"}
    assert backend.watch("training", "x") == ("fmops_plugins.jobs.SageMakerTrigger", place)


def test_the_preflight_of_an_account(aws: AwsEndpoint) -> None:
    findings = preflight(settings(), spec())
    assert [one.level for one in findings].count("problem") == 0, render(findings)
    demand(findings)
    missing = preflight(settings(sagemaker_role=f"{ROLE}-none", storage_root="s3://none/x"), spec())
    assert [one.what.split()[0] for one in missing if one.level == "problem"] == ["role", "s3://none/x:"]
    with pytest.raises(UserError, match="preflight: role"):
        demand(missing)


def test_a_client_needs_a_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    found = factory.client("sagemaker", timeout_s=5)
    assert found.meta.region_name == "eu-west-1"
    assert found.meta.config.read_timeout == 5
    assert found.meta.config.retries == {"mode": "adaptive", "total_max_attempts": factory.RETRIES}
    assert found.meta.config.user_agent_extra.startswith("fmops-airflow")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert factory.client("sagemaker").meta.config.retries["total_max_attempts"] == 1
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/none")
    with pytest.raises(UserError, match="AWS_DEFAULT_REGION"):
        factory.client("sagemaker")
