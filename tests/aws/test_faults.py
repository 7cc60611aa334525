"""Faults by plan at the AWS endpoint, the services beside SageMaker's jobs, and that nothing is left of it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from tests.aws.client import DEAF, IMAGE, WAIT, Jobs, refusal, wait_until
from tests.aws.endpoint import AwsEndpoint, aws_endpoint

TAG = {"Key": "a", "Value": "b"}
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": []})


def test_a_throttle_is_met_as_often_as_planned(jobs: Jobs) -> None:
    name = jobs.train("")
    jobs.aws.plan("throttle", operation="Describe*", job=name, times=2, after=1)
    describe = jobs.sagemaker.describe_training_job
    describe(TrainingJobName=name)
    for _ in range(2):
        assert refusal(describe, TrainingJobName=name) == ("ThrottlingException", "Rate exceeded")
    describe(TrainingJobName=name)
    assert jobs.aws.faults_left() == []
    assert [call["fault"] for call in jobs.aws.calls("DescribeTrainingJob", name)] == ["", "throttle", "throttle", ""]
    assert [call["status"] for call in jobs.aws.calls("DescribeTrainingJob", name)] == [200, 400, 400, 200]


def test_a_client_that_tries_again_passes_a_throttle(jobs: Jobs) -> None:
    jobs.aws.plan("throttle", operation="ListTrainingJobs")
    assert jobs.aws.client("sagemaker", attempts=2).list_training_jobs()["TrainingJobSummaries"] == []
    assert len(jobs.aws.calls("ListTrainingJobs")) == 2


@pytest.mark.parametrize(
    ("do", "code", "status"),
    [
        ("limit", "ResourceLimitExceeded", 400),
        ("error", "InternalServerError", 500),
        ("denied", "AccessDeniedException", 400),
    ],
)
def test_a_create_call_is_refused(jobs: Jobs, do: str, code: str, status: int) -> None:
    jobs.aws.plan(do, operation="Create*Job")
    request = jobs.request("")
    assert refusal(jobs.sagemaker.create_training_job, **request)[0] == code
    assert jobs.aws.jobs() == []
    jobs.sagemaker.create_training_job(**request)
    created = jobs.aws.calls("CreateTrainingJob", request["TrainingJobName"])
    assert [call["status"] for call in created] == [status, 200]


def test_an_answer_is_lost_after_the_job_was_created(jobs: Jobs) -> None:
    jobs.aws.plan("lost", operation="CreateTrainingJob")
    request = jobs.request("")
    with pytest.raises(ConnectionClosedError):
        jobs.sagemaker.create_training_job(**request)
    assert refusal(jobs.sagemaker.create_training_job, **request)[0] == "ResourceInUse"
    assert jobs.end(request["TrainingJobName"])["status"] == "Completed"


def test_an_answer_is_an_error_after_the_job_was_created(jobs: Jobs) -> None:
    jobs.aws.plan("lost_error", operation="CreateTrainingJob")
    request = jobs.request("")
    assert refusal(jobs.sagemaker.create_training_job, **request)[0] == "InternalServerError"
    assert jobs.end(request["TrainingJobName"])["status"] == "Completed"


def test_a_connection_is_closed_before_anything_is_done(jobs: Jobs) -> None:
    jobs.aws.plan("down", operation="CreateTrainingJob")
    with pytest.raises(ConnectionClosedError):
        jobs.sagemaker.create_training_job(**jobs.request(""))
    assert jobs.aws.jobs() == []


def test_a_slow_answer_comes_after_all(jobs: Jobs) -> None:
    jobs.aws.plan("slow", operation="ListTrainingJobs", seconds=0.1)
    jobs.sagemaker.list_training_jobs()
    assert [call["fault"] for call in jobs.aws.calls("ListTrainingJobs")] == ["slow"]


def test_s3_asks_to_slow_down(jobs: Jobs) -> None:
    jobs.aws.plan("throttle", operation="PUT")
    with pytest.raises(ClientError) as caught:
        jobs.put("a", "b")
    assert caught.value.response["Error"]["Code"] == "SlowDown"
    assert jobs.keys("") == []


def test_no_capacity_for_a_job(jobs: Jobs) -> None:
    jobs.aws.plan("capacity", job="job-*")
    found = jobs.end(jobs.train("print('never')"))
    assert found["status"] == "Failed"
    assert found["FailureReason"].startswith("CapacityError: Unable to provision requested ML compute capacity")
    assert "TrainingStartTime" not in found


@pytest.mark.parametrize("kind", ["training", "processing"])
def test_a_container_is_killed_for_its_memory(jobs: Jobs, kind: str) -> None:
    jobs.aws.plan("oom", line="ready")
    name = jobs.train(WAIT) if kind == "training" else jobs.process(WAIT)
    found = jobs.end(name)
    assert found["status"] == "Failed"
    reasons = {
        "training": "AlgorithmError: , exit code: 137",
        "processing": "ClientError: Please use an instance type with more memory",
    }
    assert found["FailureReason"].startswith(reasons[kind])


def test_somebody_else_stops_a_job(jobs: Jobs) -> None:
    jobs.aws.plan("stop", line="ready")
    name = jobs.train(WAIT)
    assert jobs.end(name)["status"] == "Stopped"
    assert jobs.aws.calls("StopTrainingJob") == []
    assert jobs.log(name)[-1] == "told to stop"


def test_an_unknown_fault_is_refused(aws: AwsEndpoint) -> None:
    with pytest.raises(ValueError, match="do='explode' is none of throttle"):
        aws.plan("explode")
    with pytest.raises(ValueError, match="colour"):
        aws.plan("throttle", colour="red")
    with pytest.raises(ValueError, match="'speed' is none of phase_s"):
        aws.set_pace(speed=3)
    assert aws.faults_left() == []


def test_tags_are_kept_and_find_a_job(jobs: Jobs) -> None:
    owned = jobs.train("", Tags=[{"Key": "fmops:owner", "Value": "one"}, {"Key": "x", "Value": "y"}])
    jobs.train("", Tags=[{"Key": "fmops:owner", "Value": "two"}])
    arn = jobs.describe(owned)["TrainingJobArn"]
    jobs.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "x", "Value": "z"}])
    assert {tag["Key"]: tag["Value"] for tag in jobs.sagemaker.list_tags(ResourceArn=arn)["Tags"]} == {
        "fmops:owner": "one",
        "x": "z",
    }
    filters = [{"Name": "Tags.fmops:owner", "Operator": "Equals", "Value": "one"}]
    found = jobs.sagemaker.search(Resource="TrainingJob", SearchExpression={"Filters": filters})["Results"]
    assert [one["TrainingJob"]["TrainingJobName"] for one in found] == [owned]
    tagging = jobs.aws.client("resourcegroupstaggingapi")
    asked = {"ResourceTypeFilters": ["sagemaker:training-job"], "TagFilters": [{"Key": "x", "Values": ["z"]}]}
    assert [one["ResourceARN"] for one in tagging.get_resources(**asked)["ResourceTagMappingList"]] == [arn]
    jobs.sagemaker.delete_tags(ResourceArn=arn, TagKeys=["x"])
    assert tagging.get_resources(**asked)["ResourceTagMappingList"] == []


def test_tags_of_what_is_not_a_job(jobs: Jobs) -> None:
    """Of an unknown job there are none; other resources' are where the resource is."""
    unknown = "arn:aws:sagemaker:us-east-1:123456789012:training-job/nobody"
    assert refusal(jobs.sagemaker.list_tags, ResourceArn=unknown)[0] == "ValidationException"
    image = {"Image": IMAGE}
    created = jobs.sagemaker.create_model(
        ModelName=f"m-{jobs.bucket}", PrimaryContainer=image, ExecutionRoleArn=jobs.aws.role, Tags=[TAG]
    )
    assert jobs.sagemaker.list_tags(ResourceArn=created["ModelArn"])["Tags"] == [TAG]


def test_jobs_are_listed_page_by_page(jobs: Jobs) -> None:
    names = [jobs.train("") for _ in range(3)]
    for name in names:
        jobs.end(name)
    pages = jobs.sagemaker.get_paginator("list_training_jobs").paginate(
        StatusEquals="Completed", PaginationConfig={"PageSize": 2}
    )
    assert [one["TrainingJobName"] for page in pages for one in page["TrainingJobSummaries"]] == names[::-1]
    assert len(jobs.aws.calls("ListTrainingJobs")) == 2
    assert jobs.sagemaker.list_training_jobs(StatusEquals="InProgress")["TrainingJobSummaries"] == []
    shown = jobs.sagemaker.list_training_jobs(NameContains=names[0][-6:])["TrainingJobSummaries"]
    assert [one["TrainingJobName"] for one in shown] == names[:1]
    assert jobs.sagemaker.list_processing_jobs()["ProcessingJobSummaries"] == []


def test_quotas_are_told_and_hold(jobs: Jobs) -> None:
    name = "ml.m5.large for training job usage"
    jobs.aws.set_account(quotas={name: 1})
    quotas = jobs.aws.client("service-quotas")
    pages = quotas.get_paginator("list_service_quotas").paginate(ServiceCode="sagemaker")
    found = {one["QuotaName"]: one for page in pages for one in page["Quotas"]}
    assert (found[name]["Value"], found["ml.m5.xlarge for processing job usage"]["Value"]) == (1, 1000)
    code = found[name]["QuotaCode"]
    assert quotas.get_service_quota(ServiceCode="sagemaker", QuotaCode=code)["Quota"]["QuotaName"] == name
    unknown = {"ServiceCode": "sagemaker", "QuotaCode": "L-0"}
    assert refusal(quotas.get_service_quota, **unknown)[0] == "NoSuchResourceException"
    first = jobs.train(WAIT)
    code, said = refusal(jobs.sagemaker.create_training_job, **jobs.request(""))
    assert code == "ResourceLimitExceeded"
    assert f"'{name}' is 1 Instances, with current utilization of 1" in said
    jobs.sagemaker.stop_training_job(TrainingJobName=first)
    jobs.end(first)
    jobs.train("")


def test_what_a_preflight_asks(aws: AwsEndpoint) -> None:
    aws.set_account(denied=["iam:PassRole"], missing_images=["pytorch-training:9.*"])
    simulate = aws.client("iam").simulate_principal_policy
    asked: dict[str, Any] = {"PolicySourceArn": aws.role, "ResourceArns": [aws.role]}
    decisions = simulate(ActionNames=["iam:PassRole", "s3:GetObject"], **asked)["EvaluationResults"]
    assert [one["EvalDecision"] for one in decisions] == ["implicitDeny", "allowed"]
    assert decisions[0]["EvalResourceName"] == aws.role
    assert aws.client("iam").get_role(RoleName="fmops-jobs")["Role"]["Arn"] == aws.role
    assert aws.client("sts").get_caller_identity()["Account"] == "123456789012"
    images = aws.client("ecr").describe_images
    there = {"registryId": "763104351884", "repositoryName": "pytorch-training"}
    found = images(**there, imageIds=[{"imageTag": IMAGE.partition(":")[2]}])["imageDetails"]
    assert found[0]["imageTags"] == [IMAGE.partition(":")[2]]
    assert refusal(images, **there, imageIds=[{"imageTag": "9.0"}])[0] == "ImageNotFoundException"
    own: dict[str, Any] = {"repositoryName": "own", "imageIds": [{"imageTag": "1"}]}
    assert refusal(images, **own)[0] == "RepositoryNotFoundException"
    aws.client("ecr").create_repository(repositoryName="own")
    aws.client("ecr").put_image(repositoryName="own", imageTag="1", imageManifest=MANIFEST)
    assert images(**own)["imageDetails"][0]["imageTags"] == ["1"]


def test_a_reset_leaves_nothing(jobs: Jobs) -> None:
    name = jobs.train(DEAF)
    jobs.wait_for_log(name, "ready")
    jobs.aws.plan("throttle")
    jobs.aws.reset()
    assert (jobs.aws.jobs(), jobs.aws.processes(), jobs.aws.faults_left()) == ([], [], [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_server(number: int) -> None:
    """Neither its jobs' processes, those included that left their group, nor their folders."""
    with aws_endpoint() as aws:
        jobs = Jobs(aws)
        name = jobs.train(DEAF)
        jobs.wait_for_log(name, "ready")
        left = [psutil.Process(one["pid"]) for one in aws.processes()]
        folder = Path(left[0].environ()["FMOPS_ML_ROOT"].partition("/training-job/")[0])
        assert folder.is_dir()
        assert len(left) == 2
        os.kill(aws.process.pid, number)
        wait_until(lambda: not any(process.is_running() for process in left) and not folder.exists())


def test_a_server_ends_with_whoever_started_it() -> None:
    with aws_endpoint() as aws:
        assert aws.process.stdin is not None
        aws.process.stdin.close()
        assert aws.process.wait(timeout=60) == 0


def test_regions_are_apart(jobs: Jobs) -> None:
    request = jobs.request("")
    jobs.sagemaker.create_training_job(**request)
    other = jobs.aws.client("sagemaker", region="eu-west-1")
    name = {"TrainingJobName": request["TrainingJobName"]}
    assert refusal(other.describe_training_job, **name)[0] == "ValidationException"
    other.create_training_job(**request)
    assert ":eu-west-1:" in other.describe_training_job(**name)["TrainingJobArn"]
    assert len(jobs.aws.calls("CreateTrainingJob", request["TrainingJobName"])) == 2
