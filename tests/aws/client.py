"""What the endpoint's tests share: a client that creates jobs of small scripts and waits for them."""

from __future__ import annotations

import io
import json
import tarfile
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.aws.endpoint import AwsEndpoint

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.6-cpu-py312"
DEADLINE_S = 60.0


class Jobs:
    """Creates training and processing jobs on a bucket of its own, and waits for what becomes of them."""

    def __init__(self, aws: AwsEndpoint) -> None:
        self.aws = aws
        self.sagemaker = aws.client("sagemaker")
        self.s3 = aws.client("s3")
        self.bucket = f"b-{uuid.uuid4().hex[:12]}"
        self.s3.create_bucket(Bucket=self.bucket)

    def put(self, key: str, data: str | bytes) -> str:
        """The object's URI."""
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=data)
        return f"s3://{self.bucket}/{key}"

    def keys(self, prefix: str) -> list[str]:
        found = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix).get("Contents", [])
        return [one["Key"].removeprefix(prefix) for one in found]

    def text(self, key: str) -> str:
        return str(self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read().decode())

    def request(self, script: str, **fields: Any) -> dict[str, Any]:
        """A CreateTrainingJob request for a script."""
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w:gz") as tar:
            entry = tarfile.TarInfo("run.py")
            entry.size = len(script.encode())
            tar.addfile(entry, io.BytesIO(script.encode()))
        source = self.put(f"source/{uuid.uuid4().hex}.tar.gz", raw.getvalue())
        own = {"sagemaker_program": "run.py", "sagemaker_submit_directory": source, "sagemaker_region": "us-east-1"}
        given = own | fields.pop("hyperparameters", {})
        return {
            "TrainingJobName": f"job-{uuid.uuid4().hex[:12]}",
            "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
            "RoleArn": self.aws.role,
            "HyperParameters": {name: json.dumps(value) for name, value in given.items()},
            "OutputDataConfig": {"S3OutputPath": f"s3://{self.bucket}/out", "CompressionType": "NONE"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
            **fields,
        }

    def train(self, script: str, **fields: Any) -> str:
        """Create a training job; its name."""
        request = self.request(script, **fields)
        self.sagemaker.create_training_job(**request)
        return str(request["TrainingJobName"])

    def process(self, script: str, *arguments: str, instances: int = 1, **fields: Any) -> str:
        """Create a processing job; its name."""
        name = f"job-{uuid.uuid4().hex[:12]}"
        inputs = fields.pop("inputs", {}) | {"code": (self.put(f"{name}/code/run.py", script), "FullyReplicated")}
        self.sagemaker.create_processing_job(
            ProcessingJobName=name,
            RoleArn=self.aws.role,
            AppSpecification={
                "ImageUri": IMAGE,
                "ContainerEntrypoint": ["python3", "/opt/ml/processing/input/code/run.py"],
                **({"ContainerArguments": list(arguments)} if arguments else {}),
            },
            ProcessingInputs=[
                {
                    "InputName": key,
                    "S3Input": {
                        "S3Uri": uri,
                        "LocalPath": f"/opt/ml/processing/input/{key}",
                        "S3DataType": "S3Prefix",
                        "S3InputMode": "File",
                        "S3DataDistributionType": distribution,
                    },
                }
                for key, (uri, distribution) in inputs.items()
            ],
            ProcessingOutputConfig={
                "Outputs": [
                    {
                        "OutputName": mode,
                        "S3Output": {
                            "S3Uri": f"s3://{self.bucket}/{name}/{mode}",
                            "LocalPath": f"/opt/ml/processing/{mode}",
                            "S3UploadMode": mode,
                        },
                    }
                    for mode in ("EndOfJob", "Continuous")
                ]
            },
            ProcessingResources={
                "ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": instances, "VolumeSizeInGB": 10}
            },
            **({"StoppingCondition": {"MaxRuntimeInSeconds": 60}} | fields),
        )
        return name

    def describe(self, name: str) -> dict[str, Any]:
        """Of either kind, with its status as `status`."""
        kind = next(job["kind"] for job in self.aws.jobs() if job["name"] == name)
        word = kind.title()
        found: dict[str, Any] = getattr(self.sagemaker, f"describe_{kind}_job")(**{f"{word}JobName": name})
        return {**found, "status": found[f"{word}JobStatus"]}

    def until(self, name: str, *states: str) -> dict[str, Any]:
        """The description once the status, or the secondary one, is among these."""
        until = time.monotonic() + DEADLINE_S
        while time.monotonic() < until:
            found = self.describe(name)
            if {found["status"], found.get("SecondaryStatus")} & set(states):
                return found
            time.sleep(0.02)
        raise AssertionError(f"{name} is not {' or '.join(states)} but {found}")

    def end(self, name: str) -> dict[str, Any]:
        return self.until(name, "Completed", "Failed", "Stopped")

    def log(self, name: str, kind: str = "Training") -> list[str]:
        logs, group = self.aws.client("logs"), f"/aws/sagemaker/{kind}Jobs"
        try:
            streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")["logStreams"]
        except logs.exceptions.ResourceNotFoundException:
            return []  # no job of that kind has started yet
        return [
            event["message"]
            for stream in streams
            for event in logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"])["events"]
        ]

    def wait_for_log(self, name: str, line: str, kind: str = "Training") -> None:
        self.until(name, "Training", "InProgress")
        until = time.monotonic() + DEADLINE_S
        while line not in self.log(name, kind):
            assert time.monotonic() < until, f"{name} never said {line!r}"
            time.sleep(0.02)


def refusal(call: Any, **fields: Any) -> tuple[str, str]:
    """Code and message of the error that a call answers."""
    with pytest.raises(ClientError) as caught:
        call(**fields)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def channel(name: str, uri: str, distribution: str = "FullyReplicated") -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": distribution}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


WAIT = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("told to stop"), sys.exit(0)))
print("ready")
time.sleep(100)
"""
DEAF = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"], start_new_session=True)
print("ready")
time.sleep(100)
"""


def wait_until(met: Callable[[], bool]) -> None:
    """AssertionError if it is never so."""
    until = time.monotonic() + DEADLINE_S
    while not met():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)
