"""What SageMaker tells of a job, and the end of its log in CloudWatch; boto3 is imported when the first page asks."""

from __future__ import annotations

import quopri
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from fmops_plugins.answers import PageError
from fmops_plugins.job_view import NAME, JobView, one_line, split_log

KINDS = ("training", "processing")
STATES = {
    "InProgress": "running",
    "Completed": "succeeded",
    "Failed": "failed",
    "Stopping": "stopping",
    "Stopped": "stopped",
}
NUM_EVENTS = 1000
"""Last lines of a host's log that are asked for, those of progress among them."""
NUM_HOSTS = 4
"""Hosts whose logs are shown: each costs a call."""
OURS = "fmops:"
"""How the names of a job's tags begin."""
_CAUSES = (r"MaxRuntimeExceeded|MaxWaitTimeExceeded", r"\b(BadInput|OutOfMemory|UserCode)(?=:)", r"\b[A-Z]\w+Error\b")
"""What a reason calls the cause, the first that is there: the harness's word says more than the service's."""


def read_job(place: dict[str, Any], dag_id: str) -> JobView:
    """The job that the operator of this DAG named; `unknown`, with the reason, if AWS does not tell.

    PageError 403 for what is no job of this DAG: its tag says whose it is.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    name, kind, region = place.get("name"), place.get("kind"), place.get("region")
    if not isinstance(name, str) or not NAME.fullmatch(name) or kind not in KINDS:
        raise PageError(403, f"{kind!r}, {name!r} do not name a job of ours, so it is not shown.")
    word = str(kind).capitalize()
    try:
        sagemaker = _client("sagemaker", region)
        found = getattr(sagemaker, f"describe_{kind}_job")(**{f"{word}JobName": name})
        listed = sagemaker.list_tags(ResourceArn=found[f"{word}JobArn"])["Tags"]
    except (BotoCoreError, ClientError) as error:
        return JobView(name=name, state="unknown", message=f"SageMaker does not tell: {one_line(error)}")
    tags = {tag["Key"].removeprefix(OURS): _read_tag(tag["Value"]) for tag in listed if tag["Key"].startswith(OURS)}
    if tags.get("dag") != dag_id:
        raise PageError(403, f"{name} is not tagged as a job of DAG {dag_id}, so it is not shown.")
    try:
        events, problem = _events(_client("logs", region), f"/aws/sagemaker/{word}Jobs", name), ""
    except (BotoCoreError, ClientError) as error:
        events, problem = [], f"CloudWatch does not tell: {one_line(error)}"
    lines, index, progress = split_log(line for _, line in events)
    return JobView(
        name=name,
        **(_training(found) if kind == "training" else _processing(found)),
        owner=tags.pop("owner", ""),
        tags=tags,
        progress=progress,
        told_at=None if index is None else datetime.fromtimestamp(events[index][0] / 1000, UTC),
        lines=lines,
        log_problem=problem,
    )


def _read_tag(value: str) -> str:
    """A tag's value as it was meant; what AWS refuses in one is quoted as in a mail: see include/jobs."""
    return quopri.decodestring(value.encode()).decode("utf-8", "replace")


def _training(found: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the view from a DescribeTrainingJob answer."""
    cluster, second = found.get("ResourceConfig", {}), found.get("SecondaryStatus", "")
    transitions = found.get("SecondaryStatusTransitions") or [{}]
    told = found.get("FailureReason") or transitions[-1].get("StatusMessage", "")
    output = found.get("OutputDataConfig", {}).get("S3OutputPath", "").rstrip("/")
    return {
        **_common(found, "Training", cluster, reason=f"{second} {found.get('FailureReason', '')}"),
        "message": one_line(told),
        "output_uri": f"{output}/{found['TrainingJobName']}/output/model",
    }


def _processing(found: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the view from a DescribeProcessingJob answer."""
    cluster = found.get("ProcessingResources", {}).get("ClusterConfig", {})
    told = ": ".join(part for part in (found.get("ExitMessage"), found.get("FailureReason")) if part)
    outputs = found.get("ProcessingOutputConfig", {}).get("Outputs") or [{}]
    return {
        **_common(found, "Processing", cluster, reason=told),
        "message": one_line(told),
        "output_uri": outputs[0].get("S3Output", {}).get("S3Uri", ""),
    }


def _common(found: Mapping[str, Any], word: str, cluster: Mapping[str, Any], *, reason: str) -> dict[str, Any]:
    """State, cause, times and machines; a job that has no start yet is starting."""
    state = STATES.get(found[f"{word}JobStatus"], "unknown")
    started, ended = found.get(f"{word}StartTime"), found.get(f"{word}EndTime")
    if state == "running" and started is None:
        state = "starting"
    count = cluster.get("InstanceCount", 1)
    lasted_s = ((ended or datetime.now(UTC)) - started).total_seconds() if started else 0.0
    causes = [match for pattern in _CAUSES if (match := re.search(pattern, reason))]
    return {
        "state": state,
        "cause": causes[0][0] if causes and state in ("failed", "stopped") else "",
        "started_at": started,
        "ended_at": ended,
        "billed_s": count * found.get("BillableTimeInSeconds", lasted_s),
        "machine": f"{count} x {cluster['InstanceType']}" if cluster.get("InstanceType") else "",
    }


def _events(logs: Any, group: str, name: str) -> list[tuple[int, str]]:
    """(Unix ms, line) of the last lines of its hosts by time; of several hosts each line begins with its host."""
    try:
        found = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/", limit=50)
    except logs.exceptions.ResourceNotFoundException:  # no job of this kind has written a line here yet
        return []
    # A host that was interrupted begins a new stream; the time is in its name.
    streams = {_host(stream): stream for stream in sorted(one["logStreamName"] for one in found["logStreams"])}
    events: list[tuple[int, str]] = []
    for host in sorted(streams, key=lambda host: (len(host), host))[:NUM_HOSTS]:
        page = logs.get_log_events(
            logGroupName=group, logStreamName=streams[host], startFromHead=False, limit=NUM_EVENTS
        )
        mark = f"{host}: " if len(streams) > 1 else ""
        events += [(event["timestamp"], mark + event["message"]) for event in page["events"]]
    return sorted(events, key=lambda event: event[0])


def _host(stream: str) -> str:
    """`algo-2` of `<job>/algo-2-1716840000`."""
    return re.sub(r"-\d{6,}$", "", stream.partition("/")[2])


@lru_cache(maxsize=8)
def _client(service: str, region: str | None) -> Any:
    """One for the process: making it takes longer than a call. Somebody waits for the page: its patience is short."""
    from boto3.session import Session
    from botocore.config import Config

    config = Config(
        connect_timeout=3,
        read_timeout=10,
        retries={"mode": "standard", "total_max_attempts": 2},
        user_agent_extra="fmops-airflow",
    )
    make: Any = Session().client  # its stubs want the name of one service each
    return make(service, region_name=region, config=config)
