"""How SageMaker's answers and refusals read: states, times, causes, errors."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore import exceptions as botocore

from include.errors import UserError
from include.jobs.sagemaker import read_error, read_local_error
from include.jobs.sagemaker_requests import cause_of, processing_status, training_status
from include.jobs.states import BadInputError, CapacityError, JobExistsError, ThrottledError

ROLE = "arn:aws:iam::123456789012:role/jobs"
START = datetime(2026, 1, 1, tzinfo=UTC)
END = datetime(2026, 1, 1, 0, 1, 40, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def training(**changes: Any) -> dict[str, Any]:
    return {
        "TrainingJobName": "tune-x-g1",
        "TrainingJobStatus": "InProgress",
        "SecondaryStatus": "Training",
        "SecondaryStatusTransitions": [{"Status": "Training", "StatusMessage": "Training image download completed."}],
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/root/acme/jobs/running"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 30},
        "TrainingStartTime": START,
    } | changes


@pytest.mark.parametrize(
    ("status", "second", "state"),
    [
        ("InProgress", "Starting", "starting"),
        ("InProgress", "Pending", "starting"),
        ("InProgress", "Downloading", "starting"),
        ("InProgress", "Interrupted", "starting"),
        ("InProgress", "Training", "running"),
        ("InProgress", "Uploading", "running"),
        ("Stopping", "Stopping", "stopping"),
        ("Stopping", "MaxRuntimeExceeded", "stopping"),
        ("Failed", "MaxRuntimeExceeded", "stopped"),
        ("Stopped", "Stopped", "stopped"),
        ("Stopped", "MaxRuntimeExceeded", "stopped"),
        ("Completed", "Completed", "succeeded"),
        ("Failed", "Failed", "failed"),
    ],
)
def test_states_of_training(status: str, second: str, state: str) -> None:
    found = training_status(training(TrainingJobStatus=status, SecondaryStatus=second))
    assert found.state == state
    assert (found.cause is None) == (state not in ("failed", "stopped"))


def test_a_training_job_that_ran() -> None:
    found = training_status(training(TrainingJobStatus="Completed", TrainingEndTime=END, BillableTimeInSeconds=30))
    assert (found.state, found.started_at, found.ended_at) == ("succeeded", START, END)
    assert found.billed_s == 60, "of a spot job less than it ran; for each of two instances"
    assert found.output_uri == "s3://bucket/root/acme/jobs/running/tune-x-g1/output/model"
    assert found.instance_type == "ml.m5.large"
    assert training_status(training(TrainingEndTime=END)).billed_s == 200
    assert training_status(training()).billed_s == 0


def test_when_a_stop_was_asked_for_is_not_when_it_ended() -> None:
    moves = [{"Status": "Training", "StartTime": START}, {"Status": "Stopping", "StartTime": START + MINUTE}]
    answer = training(TrainingJobStatus="Stopped", TrainingEndTime=END, SecondaryStatusTransitions=moves)
    assert training_status(answer).stop_asked_at == START + MINUTE
    assert training_status(training(TrainingJobStatus="Completed", TrainingEndTime=END)).stop_asked_at is None
    stopped = processing_status(processing(ProcessingJobStatus="Stopped", ProcessingEndTime=END))
    assert stopped.stop_asked_at == END - 2 * MINUTE, "as early as it may have been"


def test_a_training_job_whose_time_was_up_says_so() -> None:
    answer = training(TrainingJobStatus="Stopped", SecondaryStatus="MaxWaitTimeExceeded")
    found = training_status(answer)
    assert (found.state, found.cause) == ("stopped", "timed_out")
    assert found.message.startswith("MaxWaitTimeExceeded")


def processing(**changes: Any) -> dict[str, Any]:
    return {
        "ProcessingJobName": "tune-x-g1",
        "ProcessingJobStatus": "InProgress",
        "ProcessingResources": {"ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 3}},
        "ProcessingOutputConfig": {"Outputs": [{"S3Output": {"S3Uri": "s3://bucket/out"}}]},
        "ProcessingStartTime": START,
    } | changes


def test_states_of_processing() -> None:
    assert processing_status(processing(ProcessingStartTime=None)).state == "starting"
    assert processing_status(processing()).state == "running"
    assert processing_status(processing(ProcessingJobStatus="Stopping")).state == "stopping"
    done = processing_status(processing(ProcessingJobStatus="Completed", ProcessingEndTime=END))
    assert (done.state, done.billed_s, done.output_uri) == ("succeeded", 300, "s3://bucket/out")
    stopped = processing_status(processing(ProcessingJobStatus="Stopped", ProcessingEndTime=END))
    assert (stopped.state, stopped.cause) == ("stopped", "stopped")


def test_a_processing_job_tells_the_harness_word_by_its_exit_message() -> None:
    found = processing_status(
        processing(
            ProcessingJobStatus="Failed",
            ExitMessage="BadInput: channel 'train' is missing",
            FailureReason="AlgorithmError: See job logs for more information",
        )
    )
    assert (found.state, found.cause) == ("failed", "bad_input")
    assert found.message.startswith("BadInput: channel 'train' is missing: AlgorithmError")


TOOLKIT = 'AlgorithmError: ExecuteUserScriptError:\nExitCode {}\nErrorMessage "{}"\nCommand "python x.py", exit code: 1'


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("CapacityError: Unable to provision requested ML compute capacity. Please retry", "capacity"),
        ("ResourceLimitExceeded: The account-level service limit", "capacity"),
        ("MaxRuntimeExceeded", "timed_out"),
        ("AlgorithmError: BadInput: channel 'x' is missing, exit code: 64", "bad_input"),
        ("AlgorithmError: OutOfMemory: CUDA out of memory, exit code: 137", "out_of_memory"),
        ("AlgorithmError: UserCode: ValueError: BadInput: no such thing, exit code: 1", "user_code"),
        ("AlgorithmError: UserCode: RuntimeError: out of memory in my own cache, exit code: 1", "user_code"),
        (TOOLKIT.format(64, ""), "bad_input"),
        (TOOLKIT.format(137, ""), "out_of_memory"),
        (TOOLKIT.format(-9, ""), "out_of_memory"),
        (TOOLKIT.format(1, "ValueError: exit code 137 of a child"), "user_code"),
        (TOOLKIT.format(1, "ValueError: ExitCode 64, MaxRuntimeExceeded"), "user_code"),
        ("AlgorithmError: UserCode: ClientError: ResourceLimitExceeded (train.py:7), exit code: 1", "user_code"),
        ("AlgorithmError: ExecuteUserScriptError: (InternalError) CapacityError, exit code: 1", "user_code"),
        ("UserCode: RuntimeError: MaxRuntimeExceeded: AlgorithmError: See job logs", "user_code"),
        (TOOLKIT.format(1, "KeyError: 'x'"), "user_code"),
        ("AlgorithmError: , exit code: 137", "out_of_memory"),
        ("AlgorithmError: exit code: 1375", "user_code"),
        ("ClientError: Please use an instance type with more memory, or reduce the size of your data", "out_of_memory"),
        ("ClientError: Data download failed: no S3 objects found under", "bad_input"),
        ("InternalServerError: We encountered an internal error. Please try again.", "lost"),
        ("AlgorithmError: See job logs for more information", "user_code"),
        ("something else", "user_code"),
        ("", "user_code"),
    ],
)
def test_causes(reason: str, cause: str) -> None:
    assert cause_of(reason) == cause
    assert training_status(training(TrainingJobStatus="Failed", FailureReason=reason)).cause == cause


def test_a_message_is_one_line() -> None:
    reason = "AlgorithmError: a\n  b" + "c" * 3000
    message = training_status(training(TrainingJobStatus="Failed", FailureReason=reason)).message
    assert "\n" not in message
    assert len(message) == 1000


def answer(code: str, message: str = "words", status: int = 400) -> dict[str, Any]:
    return {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}


@pytest.mark.parametrize(
    ("found", "error"),
    [
        (answer("ResourceInUse"), JobExistsError),
        (answer("ValidationException", "Job name must be unique within an AWS account"), JobExistsError),
        (answer("ValidationException", "Requested resource not found."), LookupError),
        (answer("ValidationException", "Could not find requested job with name: x"), LookupError),
        (answer("ValidationException", "1 validation error: Value 'not found' at 'x'"), BadInputError),
        (answer("ValidationException", "Could not find model data at s3://b/k."), BadInputError),
        (answer("ResourceNotFoundException"), LookupError),
        (answer("ResourceLimitExceeded"), CapacityError),
        (answer("ThrottlingException"), ThrottledError),
        (answer("TooManyRequestsException"), ThrottledError),
        (answer("AccessDeniedException"), BadInputError),
        (answer("InternalFailure", status=500), ConnectionError),
        (answer("ExpiredTokenException"), ConnectionError),
        (answer("RequestExpired"), ConnectionError),
        (answer("Whatever", status=503), ConnectionError),
        (answer("Whatever"), BadInputError),
    ],
)
def test_what_a_refusal_stands_for(found: dict[str, Any], error: type[Exception]) -> None:
    assert isinstance(read_error(found, "CreateTrainingJob", ROLE), error)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (botocore.ReadTimeoutError(endpoint_url="u"), TimeoutError),
        (botocore.ConnectTimeoutError(endpoint_url="u"), TimeoutError),
        (botocore.EndpointConnectionError(endpoint_url="u"), ConnectionError),
        (botocore.ConnectionClosedError(endpoint_url="u"), ConnectionError),
        (botocore.CredentialRetrievalError(provider="p", error_msg="e"), ConnectionError),
        (botocore.MetadataRetrievalError(error_msg="e"), ConnectionError),
        (botocore.NoCredentialsError(), UserError),
        (botocore.ParamValidationError(report="x"), BadInputError),
    ],
)
def test_what_no_answer_stands_for(given: Exception, error: type[Exception]) -> None:
    assert isinstance(read_local_error(given, "create_training_job"), error)
