"""SageMaker's jobs at the AWS endpoint do what the service's do: boto3 is the client, and scripts really run."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import pytest

from tests.aws.client import DEAF, IMAGE, WAIT, Jobs, channel, refusal, wait_until

ECHO = """
import json, os, pathlib, sys
print("hello")
told = {"argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd()}
data = pathlib.Path(os.environ["SM_CHANNEL_DATA"])
told["data"] = {p.relative_to(data).as_posix(): p.read_text() for p in data.rglob("*") if p.is_file()}
host = os.environ["SM_CURRENT_HOST"]
pathlib.Path(os.environ["SM_MODEL_DIR"], "sub").mkdir()
pathlib.Path(os.environ["SM_MODEL_DIR"], "sub", host + ".json").write_text(json.dumps(told))
pathlib.Path(os.environ["SM_OUTPUT_DATA_DIR"], "plot.txt").write_text("x")
pathlib.Path(os.environ["FMOPS_ML_ROOT"], "model", "root.txt").write_text("y")
"""


def test_a_training_job_runs_its_script(jobs: Jobs) -> None:
    jobs.put("data/a.txt", "1")
    jobs.put("data/deep/b.txt", "2")
    given = {"lr": 0.5, "name": "x y", "flag": True}
    name = jobs.train(ECHO, hyperparameters=given, InputDataConfig=[channel("data", f"s3://{jobs.bucket}/data/")])
    found = jobs.end(name)
    assert (found["status"], found["SecondaryStatus"]) == ("Completed", "Completed")
    assert found["ModelArtifacts"]["S3ModelArtifacts"] == f"s3://{jobs.bucket}/out/{name}/output/model/"
    assert jobs.keys(f"out/{name}/output/") == ["data/plot.txt", "model/root.txt", "model/sub/algo-1.json"]
    told = json.loads(jobs.text(f"out/{name}/output/model/sub/algo-1.json"))
    assert told["data"] == {"a.txt": "1", "deep/b.txt": "2"}
    assert told["argv"] == ["--flag", "True", "--lr", "0.5", "--name", "x y"]
    environment = told["env"]
    assert json.loads(environment["SM_HPS"]) == given
    assert json.loads(environment["SM_HOSTS"]) == ["algo-1"]
    assert environment["SM_NUM_GPUS"] == "0"
    assert environment["TRAINING_JOB_NAME"] == name
    assert jobs.log(name) == ["hello"]


def test_states_and_times_are_those_of_the_service(jobs: Jobs) -> None:
    found = jobs.end(jobs.train("print(1)"))
    assert [one["Status"] for one in found["SecondaryStatusTransitions"]] == [
        "Starting",
        "Downloading",
        "Training",
        "Uploading",
        "Completed",
    ]
    assert all(one["EndTime"] >= one["StartTime"] for one in found["SecondaryStatusTransitions"])
    assert found["CreationTime"] <= found["TrainingStartTime"] <= found["TrainingEndTime"]
    assert found["TrainingTimeInSeconds"] == found["BillableTimeInSeconds"] >= 1


def test_a_script_has_the_roles_credentials_and_no_others(jobs: Jobs) -> None:
    """A call of the script to S3 passes, as the role."""
    script = "import boto3\nprint(boto3.client('sts').get_caller_identity()['Arn'])"
    name = jobs.train(script)
    assert jobs.end(name)["status"] == "Completed"
    assert jobs.log(name) == ["arn:aws:sts::123456789012:assumed-role/fmops-jobs/SageMaker"]


def test_a_model_is_packed_by_default(jobs: Jobs) -> None:
    jobs.put("data/a.txt", "1")
    output = {"S3OutputPath": f"s3://{jobs.bucket}/out/"}
    name = jobs.train(
        ECHO, OutputDataConfig=output, InputDataConfig=[channel("data", f"s3://{jobs.bucket}/data/a.txt")]
    )
    found = jobs.end(name)
    assert found["ModelArtifacts"]["S3ModelArtifacts"] == f"s3://{jobs.bucket}/out/{name}/output/model.tar.gz"
    assert jobs.keys(f"out/{name}/output/") == ["model.tar.gz", "output.tar.gz"]
    packed = jobs.s3.get_object(Bucket=jobs.bucket, Key=f"out/{name}/output/model.tar.gz")["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        assert sorted(tar.getnames()) == ["root.txt", "sub/algo-1.json"]


def test_channels_are_sharded_over_instances(jobs: Jobs) -> None:
    for number in range(5):
        jobs.put(f"data/{number}.txt", "")
    machines = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 10}
    sharded = [channel("data", f"s3://{jobs.bucket}/data/", "ShardedByS3Key")]
    name = jobs.train(ECHO, ResourceConfig=machines, InputDataConfig=sharded)
    assert jobs.end(name)["status"] == "Completed"
    parts = [json.loads(jobs.text(f"out/{name}/output/model/sub/algo-{n}.json")) for n in (1, 2)]
    assert [sorted(part["data"]) for part in parts] == [["0.txt", "2.txt", "4.txt"], ["1.txt", "3.txt"]]
    assert json.loads(parts[1]["env"]["SM_HOSTS"]) == ["algo-1", "algo-2"]


FAIL = "import pathlib, os, sys\n{}\nsys.exit(64)"
TELL = "pathlib.Path(os.environ['SM_OUTPUT_DIR'], 'failure').write_text('BadInput: no text')"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (FAIL.format(TELL), "AlgorithmError: BadInput: no text, exit code: 1"),
        (FAIL.format("print('so')"), 'AlgorithmError: ExecuteUserScriptError:\nExitCode 64\nErrorMessage "so"\n'),
        ("import os; os.kill(os.getpid(), 9)", "AlgorithmError: ExecuteUserScriptError:\nExitCode -9\n"),
    ],
)
def test_a_failure_is_told_as_the_toolkit_tells_it(jobs: Jobs, script: str, reason: str) -> None:
    found = jobs.end(jobs.train(script))
    assert (found["status"], found["SecondaryStatus"]) == ("Failed", "Failed")
    assert found["FailureReason"].startswith(reason)
    assert "ModelArtifacts" not in found


def test_a_container_of_its_own_keeps_its_exit_code(jobs: Jobs) -> None:
    script = jobs.put("code/run.py", "import sys; sys.exit(64)")
    algorithm = {
        "TrainingImage": IMAGE,
        "TrainingInputMode": "File",
        "ContainerEntrypoint": ["python3", "/opt/ml/input/data/code/run.py"],
    }
    name = jobs.train("", AlgorithmSpecification=algorithm, InputDataConfig=[channel("code", script)])
    assert jobs.end(name)["FailureReason"] == "AlgorithmError: , exit code: 64"


def test_missing_input_fails_the_job(jobs: Jobs) -> None:
    name = jobs.train(ECHO, InputDataConfig=[channel("data", f"s3://{jobs.bucket}/nothing/")])
    found = jobs.end(name)
    assert found["FailureReason"].startswith("ClientError: No S3 objects found under S3 URL")
    assert "TrainingStartTime" not in found


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"TrainingJobName": "under_score"}, "Value 'under_score' at 'trainingJobName' failed to satisfy"),
        ({"TrainingJobName": "x" * 64}, "at 'trainingJobName'"),
        ({"RoleArn": "role/x-long-enough-to-be-sent"}, "at 'roleArn'"),
        ({"RoleArn": "arn:aws:iam::123456789012:role/nobody"}, "Could not assume role"),
        ({"ResourceConfig": {"InstanceType": "ml.x9.huge", "InstanceCount": 1, "VolumeSizeInGB": 1}}, "instanceType"),
        ({"StoppingCondition": None}, "at 'stoppingCondition'"),
        ({"ResourceConfig": None}, "at 'resourceConfig'"),
        ({"EnableManagedSpotTraining": True}, "MaxWaitTimeInSeconds"),
        ({"HyperParameters": {"x": "y" * 2501}}, "at 'hyperParameters.value'"),
        ({"Tags": [{"Key": "a!", "Value": ""}]}, "at 'tags.member.key'"),
    ],
)
def test_a_bad_training_request_is_refused(jobs: Jobs, fields: dict[str, Any], said: str) -> None:
    request = {name: value for name, value in jobs.request("", **fields).items() if value is not None}
    code, message = refusal(jobs.sagemaker.create_training_job, **request)
    assert code == "ValidationException"
    assert said in message
    assert jobs.aws.jobs() == []


def test_a_name_can_be_used_once(jobs: Jobs) -> None:
    request = jobs.request("")
    jobs.sagemaker.create_training_job(**request)
    jobs.end(request["TrainingJobName"])
    code, message = refusal(jobs.sagemaker.create_training_job, **request)
    assert (code, "must be unique" in message) == ("ResourceInUse", True)


def test_an_unknown_job(jobs: Jobs) -> None:
    unknown = ("ValidationException", "Requested resource not found.")
    assert refusal(jobs.sagemaker.describe_training_job, TrainingJobName="nobody") == unknown
    assert refusal(jobs.sagemaker.stop_training_job, TrainingJobName="nobody") == unknown
    code, message = refusal(jobs.sagemaker.describe_processing_job, ProcessingJobName="nobody")
    assert (code, message) == ("ValidationException", "Could not find requested job with name: nobody")


def test_stop_asks_first(jobs: Jobs) -> None:
    name = jobs.train(WAIT)
    jobs.wait_for_log(name, "ready")
    jobs.sagemaker.stop_training_job(TrainingJobName=name)
    found = jobs.end(name)
    assert (found["status"], found["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert "Stopping" in [one["Status"] for one in found["SecondaryStatusTransitions"]]
    assert jobs.log(name) == ["ready", "told to stop"]
    code, message = refusal(jobs.sagemaker.stop_training_job, TrainingJobName=name)
    assert (code, "is in status Stopped" in message) == ("ValidationException", True)


def test_stop_ends_all_that_the_script_started(jobs: Jobs) -> None:
    jobs.aws.set_pace(stop_grace_s=0.1)
    name = jobs.train(DEAF)
    jobs.wait_for_log(name, "ready")
    assert len(jobs.aws.processes()) == 2
    jobs.sagemaker.stop_training_job(TrainingJobName=name)
    assert jobs.end(name)["status"] == "Stopped"
    assert jobs.aws.processes() == []


def test_a_job_that_waits_for_its_turn_can_be_stopped(jobs: Jobs) -> None:
    jobs.aws.set_pace(slots=1, phase_s=0.0)
    first = jobs.train(WAIT)
    jobs.wait_for_log(first, "ready")
    second = jobs.train(WAIT)
    jobs.sagemaker.stop_training_job(TrainingJobName=second)
    assert "TrainingStartTime" not in jobs.end(second)
    assert jobs.describe(first)["status"] == "InProgress"


def test_the_maximum_runtime_ends_a_job(jobs: Jobs) -> None:
    found = jobs.end(jobs.train(WAIT, StoppingCondition={"MaxRuntimeInSeconds": 1}))
    assert (found["status"], found["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert found["TrainingTimeInSeconds"] >= 1


RESUME = """
import pathlib, os, time
folder = pathlib.Path(os.environ["FMOPS_ML_ROOT"], "checkpoints")
state = folder / "state"
if state.exists():
    pathlib.Path(os.environ["SM_MODEL_DIR"], "resumed").write_text(state.read_text())
else:
    state.write_text("step 7")
    print("saved")
    time.sleep(100)
"""
SPOT = {
    "EnableManagedSpotTraining": True,
    "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60},
}


def test_a_spot_job_goes_on_from_its_checkpoints(jobs: Jobs) -> None:
    jobs.aws.plan("interrupt", line="saved")
    name = jobs.train(RESUME, CheckpointConfig={"S3Uri": f"s3://{jobs.bucket}/checkpoints"}, **SPOT)
    found = jobs.end(name)
    assert found["status"] == "Completed"
    states = [one["Status"] for one in found["SecondaryStatusTransitions"]]
    assert states[2:6] == ["Training", "Interrupted", "Starting", "Downloading"]
    assert jobs.text(f"out/{name}/output/model/resumed") == "step 7"
    assert found["BillableTimeInSeconds"] <= found["TrainingTimeInSeconds"]


def test_checkpoints_are_copied_while_the_script_runs(jobs: Jobs) -> None:
    jobs.aws.set_pace(sync_s=0.02)
    name = jobs.train(RESUME, CheckpointConfig={"S3Uri": f"s3://{jobs.bucket}/checkpoints"})
    jobs.wait_for_log(name, "saved")
    wait_until(lambda: "state" in jobs.keys("checkpoints/"))
    assert jobs.describe(name)["SecondaryStatus"] == "Training"


PROCESS = """
import json, os, pathlib, sys
root = pathlib.Path(os.environ["FMOPS_ML_ROOT"])
config = json.loads((root / "config/resourceconfig.json").read_text())
data = sorted(p.name for p in (root / "processing/input/data").iterdir())
told = {"argv": sys.argv[1:], "data": data, "colour": os.environ["COLOUR"], "hosts": config["hosts"]}
told["sm"] = [name for name in os.environ if name.startswith("SM_")]
(root / "processing/EndOfJob" / (config["current_host"] + ".json")).write_text(json.dumps(told))
(root / "output/message").write_text("all well ")
print("processed")
"""


def test_a_processing_job_runs_its_script(jobs: Jobs) -> None:
    for number in range(3):
        jobs.put(f"data/{number}.txt", "")
    inputs = {"data": (f"s3://{jobs.bucket}/data/", "ShardedByS3Key")}
    name = jobs.process(PROCESS, "--k", "v", instances=2, inputs=inputs, Environment={"COLOUR": "red"})
    found = jobs.end(name)
    assert found["status"] == "Completed"
    assert found["ExitMessage"] == "all well all well "
    assert found["CreationTime"] <= found["ProcessingStartTime"] <= found["ProcessingEndTime"]
    parts = [json.loads(jobs.text(f"{name}/EndOfJob/algo-{number}.json")) for number in (1, 2)]
    assert [part["data"] for part in parts] == [["0.txt", "2.txt"], ["1.txt"]]
    assert parts[0] == {
        "argv": ["--k", "v"],
        "data": ["0.txt", "2.txt"],
        "colour": "red",
        "hosts": ["algo-1", "algo-2"],
        "sm": [],
    }
    assert jobs.log(name, "Processing") == ["processed", "processed"]


def test_a_processing_job_fails(jobs: Jobs) -> None:
    script = "import os, sys\nopen(os.environ['FMOPS_ML_ROOT'] + '/output/message', 'w').write('why')\nsys.exit(3)"
    found = jobs.end(jobs.process(script))
    assert found["status"] == "Failed"
    assert found["FailureReason"] == "AlgorithmError: See job logs for more information"
    assert found["ExitMessage"] == "why"


def test_a_continuous_output_is_there_before_the_end(jobs: Jobs) -> None:
    script = (
        "import os, time\nroot = os.environ['FMOPS_ML_ROOT'] + '/processing/'\n"
        "for mode in ('Continuous', 'EndOfJob'):\n    open(root + mode + '/part', 'w').write('x')\n"
        "time.sleep(100)"
    )
    jobs.aws.set_pace(sync_s=0.02)
    name = jobs.process(script)
    wait_until(lambda: "part" in jobs.keys(f"{name}/Continuous/"))
    assert jobs.keys(f"{name}/EndOfJob/") == []
    jobs.sagemaker.stop_processing_job(ProcessingJobName=name)
    assert jobs.end(name)["status"] == "Stopped"
    assert jobs.keys(f"{name}/EndOfJob/") == ["part"]


def test_a_bad_processing_request_is_refused(jobs: Jobs) -> None:
    said = refusal(
        jobs.sagemaker.create_processing_job,
        ProcessingJobName="p",
        RoleArn=jobs.aws.role,
        AppSpecification={"ImageUri": IMAGE, "ContainerEntrypoint": ["python3"]},
        ProcessingResources={
            "ClusterConfig": {"InstanceType": "ml.x9.huge", "InstanceCount": 101, "VolumeSizeInGB": 1}
        },
    )
    assert said[0] == "ValidationException"
    assert said[1].startswith("2 validation errors detected: ")
    assert "instanceType" in said[1]
    assert "instanceCount" in said[1]


def test_a_program_that_is_not_there(jobs: Jobs) -> None:
    name = jobs.train("", hyperparameters={"sagemaker_program": "other.py"})
    assert jobs.end(name)["FailureReason"].startswith("AlgorithmError: ExecuteUserScriptError:\nExitCode 2\n")
    request = jobs.request("")
    del request["HyperParameters"]["sagemaker_program"]
    jobs.sagemaker.create_training_job(**request)
    found = jobs.end(request["TrainingJobName"])
    assert found["FailureReason"].startswith("AlgorithmError: Framework Error: \nhyper-parameter sagemaker_program")


def test_a_command_that_is_not_there(jobs: Jobs) -> None:
    algorithm = {"TrainingImage": IMAGE, "TrainingInputMode": "File", "ContainerEntrypoint": ["/no/such/program"]}
    reason = jobs.end(jobs.train("", AlgorithmSpecification=algorithm))["FailureReason"]
    assert "/no/such/program" in reason
    assert reason.endswith("exit code: 127")


def test_a_spot_job_waits_for_so_long(jobs: Jobs) -> None:
    """Its time counts from its creation, with the waits."""
    limits = {"MaxRuntimeInSeconds": 1, "MaxWaitTimeInSeconds": 1}
    jobs.aws.set_pace(phase_s=0.2)
    found = jobs.end(jobs.train(WAIT, EnableManagedSpotTraining=True, StoppingCondition=limits))
    assert (found["status"], found["SecondaryStatus"]) == ("Stopped", "MaxWaitTimeExceeded")


def test_a_long_log_is_whole(jobs: Jobs) -> None:
    name = jobs.train("for number in range(12_000): print(number)\nprint('x' * 500_000)\nprint('end', end='')")
    assert jobs.end(name)["status"] == "Completed"
    logs = jobs.aws.client("logs")
    lines: list[str] = []
    token: dict[str, str] = {}
    group = "/aws/sagemaker/TrainingJobs"
    stream = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")["logStreams"][0]
    where = {"logGroupName": group, "logStreamName": stream["logStreamName"], "startFromHead": True}
    while events := (answer := logs.get_log_events(**where, **token))["events"]:
        lines += [event["message"] for event in events]
        token = {"nextToken": answer["nextForwardToken"]}
    assert lines[:12_000] == [str(number) for number in range(12_000)]
    assert "".join(lines[12_000:]) == "x" * 500_000 + "end"
