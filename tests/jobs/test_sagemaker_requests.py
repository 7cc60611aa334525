"""What SageMaker is asked, held against the service's own model, and how its answers and refusals read."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.session import get_session
from botocore.validate import ParamValidator
from hypothesis import given
from hypothesis import strategies as st

from include.errors import UserError
from include.jobs.harness import Job
from include.jobs.images import load_images
from include.jobs.sagemaker_requests import (
    LONGEST_VARIABLE,
    Place,
    check_limits,
    longest_s,
    processing_request,
    read_tag,
    tag_value,
    tags,
    training_request,
)
from include.jobs.spec import JobSpec, Named

PLACE = Place(
    root="s3://bucket/root",
    role="arn:aws:iam::123456789012:role/jobs",
    region="eu-central-1",
    image_uri="123456789012.dkr.ecr.eu-central-1.amazonaws.com/mine:1",
    instance_type="ml.m5.large",
)
SAFE = Place(
    root=PLACE.root,
    role=PLACE.role,
    region=PLACE.region,
    image_uri=PLACE.image_uri,
    instance_type="ml.m5.large",
    subnets=("subnet-1", "subnet-2"),
    security_groups=("sg-1",),
    kms_key="arn:aws:kms:eu-central-1:123456789012:key/k",
)


def named(**changes: Any) -> Named:
    values: dict[str, Any] = {
        "name": "tune",
        "script": "include.jobs.scripts.smoke",
        "channels": {"train": "s3://bucket/data/train", "words": "s3://bucket/words/"},
        "hyperparameters": {"lr": 0.1, "steps": 3, "three": "3", "deep": True},
        "max_runtime_s": 600,
        "tenant": "acme",
        "use_case": "faq",
        "dag_id": "dag",
        "run_id": "manual__2026-01-01T00:00:00+00:00",
        "task_id": "tune",
    }
    return Named(spec=JobSpec.model_validate(values | changes), inputs_digest="i" * 32, job_digest="0123456789abcdef")


def fits(operation: str, request: dict[str, Any]) -> None:
    """Every field is one of the service's, and of its type."""
    shape = get_session().get_service_model("sagemaker").operation_model(operation).input_shape
    report = ParamValidator().validate(request, shape)
    assert not report.has_errors(), report.generate_report()


def test_a_training_job() -> None:
    request = training_request(named(), "tune-x-g1", "me", PLACE, "s3://bucket/code/source.tar.gz")
    fits("CreateTrainingJob", request)
    given = {name: json.loads(value) for name, value in request["HyperParameters"].items()}
    assert given == {
        "lr": 0.1,
        "steps": 3,
        "three": "3",
        "deep": True,
        "fmops_script": "include.jobs.scripts.smoke",
        "sagemaker_program": "fmops_job.py",
        "sagemaker_submit_directory": "s3://bucket/code/source.tar.gz",
        "sagemaker_region": "eu-central-1",
    }
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 600}
    assert request["EnableManagedSpotTraining"] is request["EnableNetworkIsolation"] is False
    assert request["OutputDataConfig"] == {
        "S3OutputPath": "s3://bucket/root/acme/jobs/running",
        "CompressionType": "NONE",
    }
    assert request["CheckpointConfig"]["S3Uri"] == "s3://bucket/root/acme/jobs/checkpoints/0123456789abcdef"
    sources = {one["ChannelName"]: one["DataSource"]["S3DataSource"] for one in request["InputDataConfig"]}
    assert sources["train"]["S3Uri"] == "s3://bucket/data/train/", "or its neighbour train2 would come too"
    assert sources["words"]["S3Uri"] == "s3://bucket/words/"
    assert "VpcConfig" not in request
    assert "KmsKeyId" not in str(request)


def test_a_training_job_without_channels_names_none() -> None:
    request = training_request(named(channels={}), "n", "me", PLACE, "s3://b/c")
    fits("CreateTrainingJob", request)
    assert "InputDataConfig" not in request, "the service refuses an empty list"


def test_a_spot_job_may_wait() -> None:
    job = named(resources={"spot": True})
    request = training_request(job, "n", "me", PLACE, "s3://b/c")
    assert request["EnableManagedSpotTraining"] is True
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 4200}
    assert longest_s(job.spec) == 4200
    assert longest_s(named().spec) == 600


def test_a_network_and_a_key_are_those_of_the_settings() -> None:
    training = training_request(named(), "n", "me", SAFE, "s3://b/c")
    fits("CreateTrainingJob", training)
    network = {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
    assert training["VpcConfig"] == network
    assert training["OutputDataConfig"]["KmsKeyId"] == training["ResourceConfig"]["VolumeKmsKeyId"] == SAFE.kms_key
    processing = processing_request(named(kind="processing"), "n", "me", SAFE, "s3://b/c/")
    fits("CreateProcessingJob", processing)
    assert processing["NetworkConfig"] == {"EnableNetworkIsolation": False, "VpcConfig": network}
    assert processing["ProcessingOutputConfig"]["KmsKeyId"] == SAFE.kms_key
    assert processing["ProcessingResources"]["ClusterConfig"]["VolumeKmsKeyId"] == SAFE.kms_key


def test_a_machine_with_disks_of_its_own_gets_no_volumes_key() -> None:
    place = replace(PLACE, kms_key="key", has_volume=False, instance_type="ml.g5.xlarge")
    training = training_request(named(), "n", "me", place, "s3://b/s.tar.gz")
    processing = processing_request(named(kind="processing"), "n", "me", place, "s3://b/c")
    assert "VolumeKmsKeyId" not in training["ResourceConfig"]
    assert "VolumeKmsKeyId" not in processing["ProcessingResources"]["ClusterConfig"]
    assert training["OutputDataConfig"]["KmsKeyId"] == processing["ProcessingOutputConfig"]["KmsKeyId"] == "key"
    known = load_images().local_storage
    assert "ml.g5.xlarge" in known and "ml.m5.large" not in known


def test_a_processing_job() -> None:
    job = named(kind="processing", sharded=("train",), resources={"instance_count": 3, "volume_gb": 50})
    request = processing_request(job, "tune-x-g1", "me", PLACE, "s3://bucket/code/files/")
    fits("CreateProcessingJob", request)
    inputs = {one["InputName"]: one["S3Input"] for one in request["ProcessingInputs"]}
    assert {name: one["LocalPath"] for name, one in inputs.items()} == {
        "code": "/opt/ml/processing/input/code",
        "train": "/opt/ml/processing/input/train",
        "words": "/opt/ml/processing/input/words",
    }
    assert inputs["train"]["S3DataDistributionType"] == "ShardedByS3Key"
    assert inputs["words"]["S3DataDistributionType"] == inputs["code"]["S3DataDistributionType"] == "FullyReplicated"
    assert request["AppSpecification"]["ContainerEntrypoint"] == [
        "python3",
        "/opt/ml/processing/input/code/fmops_job.py",
    ]
    (output,) = request["ProcessingOutputConfig"]["Outputs"]
    assert output["S3Output"]["S3Uri"] == "s3://bucket/root/acme/jobs/running/tune-x-g1/output"
    assert request["ProcessingResources"]["ClusterConfig"] == {
        "InstanceType": "ml.m5.large",
        "InstanceCount": 3,
        "VolumeSizeInGB": 50,
    }
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 600}


@pytest.mark.parametrize("length", [1, 100, 1000])
def test_a_processing_jobs_hyperparameters_come_in_pieces_that_the_service_takes(tmp_path: Path, length: int) -> None:
    job = named(kind="processing", hyperparameters={"text": "x" * length, "three": "3", "steps": 3})
    environment = processing_request(job, "n", "me", PLACE, "s3://b/c")["Environment"]
    assert all(len(value) <= LONGEST_VARIABLE for value in environment.values())
    names = [name for name in environment if name.startswith("FMOPS_HYPERPARAMETERS")]
    assert names == ["FMOPS_HYPERPARAMETERS"] + [f"FMOPS_HYPERPARAMETERS_{n}" for n in range(2, len(names) + 1)]
    in_job = Job({"FMOPS_ML_ROOT": str(tmp_path), **environment})
    assert in_job.hyperparameters == {"text": "x" * length, "three": "3", "steps": 3}, "a text stays one"
    assert in_job.script == "include.jobs.scripts.smoke"


def test_tags_hold_what_aws_takes() -> None:
    spec = named(run_id="manual__2026 {x}~" + "y" * 300, map_index=3).spec
    found = {tag["Key"]: tag["Value"] for tag in tags(spec, "0192-abc")}
    assert found["fmops:owner"] == "0192-abc"
    assert found["fmops:name"] == "tune"
    assert found["fmops:tenant"] == "acme"
    assert (found["fmops:task"], found["fmops:map-index"]) == ("tune", "3")
    assert found["fmops:run"].startswith("manual__2026 =7Bx=7D=7Eyyy")
    assert len(found["fmops:run"]) == 256
    assert tag_value("a.b:c/d=e+f-g@h_i\n#") == "a.b:c/d=3De+f-g@h_i=0A=23"


@given(st.text(max_size=20).map(str.strip))
def test_a_tag_can_be_read_again(value: str) -> None:
    told = tag_value(value)
    assert re.fullmatch(r"[A-Za-z0-9_ .:/=+\-@]*", told)
    assert read_tag(told) == value


def test_an_owner_that_a_tag_would_change_is_refused() -> None:
    with pytest.raises(ValueError, match="owner"):
        tags(named().spec, "me#1")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"channels": {"train": "file:///data"}}, r"channel train='file:///data'.*s3://"),
        ({"channels": {f"c{n}": "s3://b/c" for n in range(21)}}, r"21 channels: a training job takes 20"),
        ({"kind": "processing", "channels": {f"c{n}": "s3://b/c" for n in range(10)}}, r"10 channels.*takes 9"),
        ({"kind": "processing", "channels": {"code": "s3://b/c"}}, r"channel 'code'.*another name"),
        ({"resources": {"image": "worker"}}, r"image='worker'.*training toolkit.*take kind='processing'"),
        ({"hyperparameters": {f"h{n}": n for n in range(97)}}, r"97 hyper-parameters: SageMaker takes 96"),
        ({"hyperparameters": {"text": "\u00e4" * 2000}}, r"text has 12,002 characters as JSON, up to 2,500"),
        (
            {"kind": "processing", "hyperparameters": {f"h{n}": "x" * 2400 for n in range(10)}},
            r"have 24,\d+ characters as JSON, up to 23,040",
        ),
    ],
)
def test_what_the_service_would_refuse_is_one_line_before(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        check_limits(named(**changes).spec)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"kind": "processing"},
        {"channels": {f"c{n}": "s3://b/c" for n in range(20)}},
        {"hyperparameters": {f"h{n}": n for n in range(96)}},
        {"channels": {"code": "s3://b/c"}},
    ],
)
def test_what_the_service_takes_passes(changes: dict[str, Any]) -> None:
    check_limits(named(**changes).spec)
