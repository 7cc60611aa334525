"""What SageMaker is asked, and how its answers read; no call is made here."""

from __future__ import annotations

import json
import quopri
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from include.errors import UserError
from include.jobs.images import WORKER
from include.jobs.source import ENTRY
from include.jobs.spec import OWNER_TAG, JobSpec, Named, Value
from include.jobs.states import Cause, State, Status

CHECKPOINTS = "/opt/ml/checkpoints"
PROCESSING = "/opt/ml/processing"
NAME_TAG = "fmops:name"

MOST_HYPERPARAMETERS = 96
"""The service takes 100; the others belong to the machinery."""
LONGEST_VALUE = 2500
"""Characters of a hyper-parameter as JSON, by the service's limit."""
LONGEST_VARIABLE = 256
"""Characters of an environment variable of a processing job, by the service's limit."""
MOST_VARIABLES = 90
MOST_INPUTS = {"training": 20, "processing": 9}
"""Channels, by the service's limit; one of a processing job's ten inputs is its code."""
SPOT_WAIT_S = 3600
"""What a spot job may wait for machines beside its runtime, all interruptions together; the operator gives up then."""

LONGEST_TAG = 256
_REFUSED_IN_TAGS = re.compile(r"[^\w .:/+\-@]", re.ASCII)
_STARTING = {"Starting", "Pending", "LaunchingMLInstances", "PreparingTrainingStack", "Downloading"}
_STARTING |= {"DownloadingTrainingImage", "Interrupted", "Restarting"}

_WORDS: dict[str, Cause] = {"BadInput": "bad_input", "OutOfMemory": "out_of_memory", "UserCode": "user_code"}
_SCRIPT = re.compile(r"AlgorithmError|ExecuteUserScriptError|(BadInput|OutOfMemory|UserCode):")
"""What a reason begins with that the script's end brought about: all after it may be the script's own text."""
_HARNESS = re.compile(r"(?:AlgorithmError: )?(BadInput|OutOfMemory|UserCode):")
"""The word by which the harness tells the class, where it could write it."""
_TOOLKIT, _CONTAINER = re.compile(r"ExitCode (-?\d+)"), re.compile(r"exit code:? (\d+)\W*$")
"""Elsewhere the training toolkit of the images tells the script's exit code first; the container's own, at the end, is
then 1 whatever happened."""
_EXITS: dict[int, Cause] = {137: "out_of_memory", -9: "out_of_memory", 64: "bad_input"}
_SERVICE: tuple[tuple[str, Cause], ...] = (
    (r"CapacityError|InsufficientCapacity|ResourceLimitExceeded|Unable to provision requested ML compute", "capacity"),
    (r"Max(Runtime|WaitTime)Exceeded", "timed_out"),
    (r"InternalServerError|InternalError|ServiceUnavailable", "lost"),
    (r"ClientError.*(instance type with more memory|out of memory|OutOfMemory)", "out_of_memory"),
    (r"ClientError", "bad_input"),
)
"""What the service's own reasons begin with."""
STOP_GRACE_S = 120
"""Between a request to stop and SIGKILL, by the service's documents."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where the jobs of a deployment run and keep their files."""

    root: str
    """URI of the storage root, s3://..., without a trailing slash."""
    role: str
    region: str
    image_uri: str
    instance_type: str
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    kms_key: str | None = None
    has_volume: bool = True
    """Whether a volume is attached to the instances; those with disks of their own have none."""

    def folder(self, spec: JobSpec, *parts: str) -> str:
        """A folder of the tenant's jobs."""
        return "/".join((self.root, spec.tenant, "jobs", *parts))


def check_limits(spec: JobSpec) -> None:
    """UserError in one line if the service would refuse the spec's inputs."""
    for name, uri in spec.channels.items():
        if not uri.startswith("s3://"):
            raise UserError(f"channel {name}={uri!r}: SageMaker reads s3:// only: copy it below FMOPS_STORAGE_ROOT")
    if len(spec.channels) > MOST_INPUTS[spec.kind]:
        raise UserError(f"{len(spec.channels)} channels: a {spec.kind} job takes {MOST_INPUTS[spec.kind]}: join some")
    if spec.kind == "training" and spec.resources.image == WORKER:
        raise UserError(
            "resources.image='worker': a training job's image needs SageMaker's training toolkit, which it lacks: take "
            "kind='processing', or one of the catalog's images"
        )
    if spec.kind == "processing" and "code" in spec.channels:
        raise UserError("channel 'code': a processing job has its source there: choose another name")
    if len(spec.hyperparameters) > MOST_HYPERPARAMETERS:
        raise UserError(
            f"{len(spec.hyperparameters)} hyper-parameters: SageMaker takes {MOST_HYPERPARAMETERS}: "
            "put them into a file of a channel"
        )
    for name, value in spec.hyperparameters.items():
        if (length := len(json.dumps(value))) > LONGEST_VALUE:
            raise UserError(
                f"hyper-parameter {name} has {length:,} characters as JSON, up to {LONGEST_VALUE:,}: "
                "put it into a file of a channel"
            )
    if spec.kind == "processing":
        _environment(spec)


def training_request(named: Named, name: str, owner: str, place: Place, source_uri: str) -> dict[str, Any]:
    """CreateTrainingJob's arguments; source_uri names the packed source."""
    spec = named.spec
    machinery = {
        "sagemaker_program": ENTRY,
        "sagemaker_submit_directory": source_uri,
        "sagemaker_region": place.region,
    }
    request: dict[str, Any] = {
        "TrainingJobName": name,
        "AlgorithmSpecification": {"TrainingImage": place.image_uri, "TrainingInputMode": "File"},
        "RoleArn": place.role,
        # As JSON, so that "3" stays a string: the toolkit and the harness decode it.
        "HyperParameters": {key: json.dumps(value) for key, value in (_given(spec) | machinery).items()},
        "OutputDataConfig": {
            "S3OutputPath": place.folder(spec, "running"),
            "CompressionType": "NONE",
            **_key("KmsKeyId", place),
        },
        "ResourceConfig": _machines(spec, place),
        "StoppingCondition": {"MaxRuntimeInSeconds": spec.max_runtime_s},
        "CheckpointConfig": {
            "S3Uri": place.folder(spec, "checkpoints", named.job_digest),
            "LocalPath": CHECKPOINTS,
        },
        "EnableNetworkIsolation": False,
        "EnableManagedSpotTraining": spec.resources.spot,
        "Environment": {"PYTHONUNBUFFERED": "1"},
        "Tags": tags(spec, owner),
    }
    if spec.channels:
        request["InputDataConfig"] = [
            {"ChannelName": channel, "InputMode": "File", "DataSource": {"S3DataSource": _s3_source(spec, channel)}}
            for channel in sorted(spec.channels)
        ]
    if spec.resources.spot:
        request["StoppingCondition"]["MaxWaitTimeInSeconds"] = longest_s(spec)
    if place.subnets:
        request["VpcConfig"] = _network(place)
    return request


def processing_request(named: Named, name: str, owner: str, place: Place, source_uri: str) -> dict[str, Any]:
    """CreateProcessingJob's arguments; source_uri names the folder of the source's files: nothing unpacks it there."""
    spec = named.spec
    code = {"S3DataType": "S3Prefix", "S3Uri": source_uri, "S3DataDistributionType": "FullyReplicated"}
    network: dict[str, Any] = {"EnableNetworkIsolation": False}
    if place.subnets:
        network["VpcConfig"] = _network(place)
    return {
        "ProcessingJobName": name,
        "AppSpecification": {
            "ImageUri": place.image_uri,
            "ContainerEntrypoint": ["python3", f"{PROCESSING}/input/code/{ENTRY}"],
        },
        "RoleArn": place.role,
        "Environment": _environment(spec),
        "ProcessingInputs": [
            _processing_input("code", code),
            *(_processing_input(channel, _s3_source(spec, channel)) for channel in sorted(spec.channels)),
        ],
        "ProcessingOutputConfig": {
            "Outputs": [
                {
                    "OutputName": "output",
                    "S3Output": {
                        "S3Uri": place.folder(spec, "running", name, "output"),
                        "LocalPath": f"{PROCESSING}/output",
                        "S3UploadMode": "EndOfJob",
                    },
                }
            ],
            **_key("KmsKeyId", place),
        },
        "ProcessingResources": {"ClusterConfig": _machines(spec, place)},
        "StoppingCondition": {"MaxRuntimeInSeconds": spec.max_runtime_s},
        "NetworkConfig": network,
        "Tags": tags(spec, owner),
    }


def longest_s(spec: JobSpec) -> int:
    """When the service ends the job at the latest, in seconds; of a spot job from its creation, waits included."""
    return spec.max_runtime_s + (SPOT_WAIT_S if spec.resources.spot else 0)


def tags(spec: JobSpec, owner: str) -> list[dict[str, str]]:
    """The job's tags; the owner's is kept as it is, so that it compares."""
    if tag_value(owner) != owner:
        raise ValueError(f"owner {owner!r} cannot be a tag's value")
    values = {name: tag_value(value) for name, value in (spec.tags | {NAME_TAG: spec.name}).items()}
    return [{"Key": name, "Value": value} for name, value in (values | {OWNER_TAG: owner}).items()]


def tag_value(value: str) -> str:
    """A value that AWS takes, up to 256 characters: each byte that it may refuse becomes =XX, and so does = itself."""
    quoted = _REFUSED_IN_TAGS.sub(lambda match: "".join(f"={byte:02X}" for byte in match[0].encode()), value)
    return quoted[:LONGEST_TAG].strip()


def read_tag(value: str) -> str:
    """What tag_value() was given, if it was not cut."""
    return quopri.decodestring(value).decode(errors="replace")


def training_status(answer: Mapping[str, Any]) -> Status:
    """A DescribeTrainingJob answer."""
    name, second = answer["TrainingJobName"], answer.get("SecondaryStatus", "")
    transitions = answer.get("SecondaryStatusTransitions") or [{}]
    told = answer.get("FailureReason") or transitions[-1].get("StatusMessage", "")
    timed_out = second if second in ("MaxRuntimeExceeded", "MaxWaitTimeExceeded") else ""
    count = answer.get("ResourceConfig", {}).get("InstanceCount", 1)
    started, ended = answer.get("TrainingStartTime"), answer.get("TrainingEndTime")
    state, cause = _state(answer["TrainingJobStatus"], timed_out or answer.get("FailureReason", ""))
    stopping = [one["StartTime"] for one in transitions if one.get("Status") == "Stopping"]
    output = answer["OutputDataConfig"]["S3OutputPath"].rstrip("/")
    return Status(
        name=name,
        state="starting" if state == "running" and second in _STARTING else state,
        cause=cause,
        message=_line(f"{timed_out}: {told}" if timed_out else told),
        started_at=started,
        ended_at=ended if state in ("succeeded", "failed", "stopped") else None,
        stop_asked_at=stopping[0] if stopping else None,
        billed_s=count * _seconds(answer.get("BillableTimeInSeconds"), started, ended),
        instance_type=answer.get("ResourceConfig", {}).get("InstanceType", ""),
        output_uri=f"{output}/{name}/output/model",
    )


def processing_status(answer: Mapping[str, Any]) -> Status:
    """A DescribeProcessingJob answer."""
    told = ": ".join(part for part in (answer.get("ExitMessage"), answer.get("FailureReason")) if part)
    cluster = answer["ProcessingResources"]["ClusterConfig"]
    started, ended = answer.get("ProcessingStartTime"), answer.get("ProcessingEndTime")
    state, cause = _state(answer["ProcessingJobStatus"], told)
    outputs = answer.get("ProcessingOutputConfig", {}).get("Outputs") or [{}]
    return Status(
        name=answer["ProcessingJobName"],
        state="starting" if state == "running" and started is None else state,
        cause=cause,
        message=_line(told),
        started_at=started,
        ended_at=ended if state in ("succeeded", "failed", "stopped") else None,
        # The service does not tell: as early as it may have been.
        stop_asked_at=ended - timedelta(seconds=STOP_GRACE_S) if ended and state == "stopped" else None,
        billed_s=cluster["InstanceCount"] * _seconds(None, started, ended),
        instance_type=cluster["InstanceType"],
        output_uri=outputs[0].get("S3Output", {}).get("S3Uri", ""),
    )


def cause_of(reason: str) -> Cause:
    """Why a job failed, by the service's words; what nothing matches counts as the script's fault: see its log."""
    if _SCRIPT.match(reason):
        if word := _HARNESS.match(reason):
            return _WORDS[word[1]]
        code = _TOOLKIT.search(reason) or _CONTAINER.search(reason)
        return _EXITS.get(int(code[1]), "user_code") if code else "user_code"
    return next((cause for pattern, cause in _SERVICE if re.match(pattern, reason)), "user_code")


def _state(status: str, reason: str) -> tuple[State, Cause | None]:
    if status == "Completed":
        return "succeeded", None
    if status == "Failed":
        cause = cause_of(reason)
        return ("stopped" if cause == "timed_out" else "failed"), cause
    if status in ("Stopped", "Deleting"):
        return "stopped", "timed_out" if cause_of(reason) == "timed_out" else "stopped"
    return ("stopping" if status == "Stopping" else "running"), None


def _seconds(billable: int | None, started: datetime | None, ended: datetime | None) -> float:
    if billable is not None:
        return float(billable)
    return (ended - started).total_seconds() if started and ended else 0.0


def _line(text: str) -> str:
    return " ".join(text.split())[:1000]


def _environment(spec: JobSpec) -> dict[str, str]:
    """A processing job's variables: its hyper-parameters as JSON, in as many pieces as the service's limit makes."""
    # The harness decodes each text once more, as training's values need it.
    given = {name: json.dumps(value) if isinstance(value, str) else value for name, value in _given(spec).items()}
    text = json.dumps(given)
    pieces = [text[start : start + LONGEST_VARIABLE] for start in range(0, len(text), LONGEST_VARIABLE)]
    if len(pieces) > MOST_VARIABLES:
        raise UserError(
            f"hyper-parameters have {len(text):,} characters as JSON, up to {MOST_VARIABLES * LONGEST_VARIABLE:,} in a "
            "processing job: put them into a file of a channel"
        )
    numbered = {f"FMOPS_HYPERPARAMETERS_{n}": piece for n, piece in enumerate(pieces[1:], start=2)}
    return {"FMOPS_HYPERPARAMETERS": pieces[0], **numbered, "PYTHONUNBUFFERED": "1"}


def _given(spec: JobSpec) -> dict[str, Value]:
    return {**spec.hyperparameters, "fmops_script": spec.script}


def _s3_source(spec: JobSpec, channel: str) -> dict[str, str]:
    return {
        "S3DataType": "S3Prefix",
        "S3Uri": spec.channels[channel].rstrip("/") + "/",  # else its neighbours of the same beginning come too
        "S3DataDistributionType": "ShardedByS3Key" if channel in spec.sharded else "FullyReplicated",
    }


def _processing_input(name: str, source: dict[str, str]) -> dict[str, Any]:
    return {
        "InputName": name,
        "S3Input": {**source, "LocalPath": f"{PROCESSING}/input/{name}", "S3InputMode": "File"},
    }


def _machines(spec: JobSpec, place: Place) -> dict[str, Any]:
    return {
        "InstanceType": place.instance_type,
        "InstanceCount": spec.resources.instance_count,
        "VolumeSizeInGB": spec.resources.volume_gb,
        **(_key("VolumeKmsKeyId", place) if place.has_volume else {}),
    }


def _network(place: Place) -> dict[str, list[str]]:
    return {"Subnets": list(place.subnets), "SecurityGroupIds": list(place.security_groups)}


def _key(name: str, place: Place) -> dict[str, str]:
    return {name: place.kms_key} if place.kms_key else {}
