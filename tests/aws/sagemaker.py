"""SageMaker's training and processing jobs as its API shows them: what it checks, answers and remembers."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.aws.checks import ACCOUNT, Refusal, invalid, members_of

SPOT_PRICE = 0.3
"""Share of the training time that a spot job is billed for."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What differs between the two sorts of job in the names of the API."""

    word: str
    """Training or Processing."""
    arn: str
    unknown: str
    """What is said of a name that there is no job of."""

    @property
    def name(self) -> str:
        return f"{self.word}JobName"

    @property
    def status(self) -> str:
        return f"{self.word}JobStatus"


TRAINING = Kind(word="Training", arn="training-job", unknown="Requested resource not found.")
PROCESSING = Kind(word="Processing", arn="processing-job", unknown="Could not find requested job with name: {name}")
KINDS = (TRAINING, PROCESSING)
OVER = ("Completed", "Failed", "Stopped")


class Job:
    """One job; its fields change together, so that no answer shows half of a change."""

    def __init__(self, kind: Kind, region: str, request: dict[str, Any]) -> None:
        self.kind = kind
        self.request = request
        self.name: str = request[kind.name]
        self.region = region
        self.arn = f"arn:aws:sagemaker:{region}:{ACCOUNT}:{kind.arn}/{self.name}"
        self.tags = {tag["Key"]: tag["Value"] for tag in request.get("Tags", [])}
        self.stop_asked = False
        self.wake = threading.Event()
        """Set whenever whoever runs it should look at it."""
        self.created = time.time()
        self._lock = threading.RLock()
        self._shown: dict[str, Any] = {
            kind.status: "InProgress",
            "CreationTime": self.created,
            "LastModifiedTime": self.created,
        }
        if kind is TRAINING:
            self._shown |= {"SecondaryStatus": "Starting", "SecondaryStatusTransitions": []}
            self.move("Starting", "Preparing the instances for training")

    @property
    def status(self) -> str:
        return str(self._shown[self.kind.status])

    @property
    def resources(self) -> dict[str, Any]:
        """InstanceType, InstanceCount, VolumeSizeInGB."""
        if self.kind is TRAINING:
            return dict(self.request["ResourceConfig"])
        return dict(self.request["ProcessingResources"]["ClusterConfig"])

    @property
    def is_spot(self) -> bool:
        return bool(self.request.get("EnableManagedSpotTraining"))

    def move(self, secondary: str, message: str, *, status: str = "", **fields: Any) -> None:
        """Into another state, all at once; without `status` that one stays."""
        with self._lock:
            at = time.time()
            if self.kind is TRAINING:
                past = [dict(one) for one in self._shown["SecondaryStatusTransitions"]]
                if past:
                    past[-1].setdefault("EndTime", at)
                past.append({"Status": secondary, "StartTime": at, "StatusMessage": message})
                if status in OVER:
                    past[-1]["EndTime"] = at
                fields |= {"SecondaryStatus": secondary, "SecondaryStatusTransitions": past}
            self._shown |= {**fields, "LastModifiedTime": at}
            if status:
                self._shown[self.kind.status] = status

    def set(self, **fields: Any) -> None:
        """Fields of the answer of Describe."""
        with self._lock:
            self._shown |= fields

    def begin(self) -> None:
        """The script starts; of one that was interrupted the first start counts."""
        with self._lock:
            self._shown.setdefault(f"{self.kind.word}StartTime", time.time())

    def end(self, status: str, secondary: str, message: str, *, seconds: float, **fields: Any) -> None:
        """It is over after so many seconds of its script."""
        fields[f"{self.kind.word}EndTime"] = time.time()
        if self.kind is TRAINING and f"{self.kind.word}StartTime" in self._shown:
            fields["TrainingTimeInSeconds"] = math.ceil(seconds)
            fields["BillableTimeInSeconds"] = math.ceil(seconds * (SPOT_PRICE if self.is_spot else 1))
        self.move(secondary, message, status=status, **fields)

    def ask_stop(self) -> None:
        """What StopTrainingJob and StopProcessingJob do; nothing to a job that is over."""
        with self._lock:
            if self.status in OVER or self.stop_asked:
                return
            self.stop_asked = True
            self.move("Stopping", "Stopping the training job", status="Stopping")
        self.wake.set()

    def describe(self) -> dict[str, Any]:
        """The answer of Describe: the request's own fields and what became of it."""
        known = members_of(f"Describe{self.kind.word}Job")
        with self._lock:
            shown = dict(self._shown)
        return {name: value for name, value in self.request.items() if name in known} | {
            **shown,
            f"{self.kind.word}JobArn": self.arn,
        }

    def summary(self) -> dict[str, Any]:
        """The line of List."""
        word = self.kind.word
        names = ["CreationTime", "LastModifiedTime", f"{word}EndTime"]
        names += [f"{word}Job{what}" for what in ("Name", "Arn", "Status")]
        shown = self.describe()
        if self.kind is PROCESSING:
            names += ["ExitMessage", "FailureReason"]
        return {name: shown[name] for name in names if name in shown}


class Jobs:
    """All jobs of the account, and the API's calls on them."""

    def __init__(self, check: Callable[[Kind, str, dict[str, Any]], None], run: Callable[[Job], None]) -> None:
        self._check = check
        self._run = run
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        self.calls: dict[str, Callable[[str, dict[str, Any]], dict[str, Any]]] = {"Search": self.search}
        for kind in KINDS:
            self.calls |= {
                f"Create{kind.word}Job": _bound(self.create, kind),
                f"Describe{kind.word}Job": _bound(self.describe, kind),
                f"Stop{kind.word}Job": _bound(self.stop, kind),
                f"List{kind.word}Jobs": _bound(self.list, kind),
            }

    def all(self) -> list[Job]:
        with self._lock:
            return list(self._jobs.values())

    def find(self, arn: str) -> Job | None:
        return self._jobs.get(arn)

    def forget(self) -> None:
        """Their names can be used again, which the service never allows."""
        with self._lock:
            self._jobs.clear()

    def create(self, kind: Kind, region: str, request: dict[str, Any]) -> dict[str, Any]:
        job = Job(kind, region, request)
        with self._lock:
            if job.arn in self._jobs:
                raise Refusal(
                    "ResourceInUse",
                    f"{kind.word} job names must be unique within an AWS account and region, "
                    f"and a {kind.word.lower()} job with this name already exists ({job.arn})",
                )
        self._check(kind, region, request)
        with self._lock:
            if self._jobs.setdefault(job.arn, job) is not job:
                raise Refusal("ResourceInUse", f"{kind.word} job {job.arn} is being created by another call")
        threading.Thread(target=self._run, args=(job,), daemon=True, name=job.name).start()
        return {f"{kind.word}JobArn": job.arn}

    def describe(self, kind: Kind, region: str, request: dict[str, Any]) -> dict[str, Any]:
        return self._named(kind, region, request).describe()

    def stop(self, kind: Kind, region: str, request: dict[str, Any]) -> dict[str, Any]:
        job = self._named(kind, region, request)
        if job.status in OVER:
            word = kind.word.lower()
            raise invalid(f"The request was rejected because the {word} job is in status {job.status}.")
        job.ask_stop()
        return {}

    def list(self, kind: Kind, region: str, request: dict[str, Any]) -> dict[str, Any]:
        """Newest first; ten to a page if the request does not say how many."""
        jobs = [job for job in self.all() if job.kind is kind and job.region == region and _is_listed(job, request)]
        keys: dict[str, Callable[[Job], Any]] = {
            "Name": lambda job: job.name,
            "Status": lambda job: job.status,
            "CreationTime": lambda job: job.created,
        }
        order = request.get("SortOrder", "Descending")
        jobs.sort(key=keys[request.get("SortBy", "CreationTime")], reverse=order == "Descending")
        found, more = page(jobs, request, 10)
        return {f"{kind.word}JobSummaries": [job.summary() for job in found], **more}

    def search(self, region: str, request: dict[str, Any]) -> dict[str, Any]:
        """Training jobs by fields and tags; of the expressions only a list of filters."""
        if request["Resource"] != "TrainingJob":
            raise invalid(f"Resource={request['Resource']!r}: this endpoint searches TrainingJob alone")
        filters = request.get("SearchExpression", {}).get("Filters", [])
        jobs = [job for job in self.all() if job.kind is TRAINING and job.region == region]
        jobs = [job for job in jobs if all(_meets(job, one) for one in filters)]
        found, more = page(jobs, request, 100)
        return {"Results": [{"TrainingJob": {**job.describe(), "Tags": tag_list(job.tags)}} for job in found], **more}

    def _named(self, kind: Kind, region: str, request: dict[str, Any]) -> Job:
        name = request[kind.name]
        job = self._jobs.get(f"arn:aws:sagemaker:{region}:{ACCOUNT}:{kind.arn}/{name}")
        if job is None:
            raise invalid(kind.unknown.format(name=name))
        return job


def _bound(call: Callable[..., dict[str, Any]], kind: Kind) -> Callable[[str, dict[str, Any]], dict[str, Any]]:
    return lambda region, request: call(kind, region, request)


def page(
    items: list[Any], request: dict[str, Any], size: int, token: str = "NextToken"
) -> tuple[list[Any], dict[str, str]]:
    """The part of a list that a request asks for, and the token of the next part if there is one."""
    try:
        start = int(request.get(token) or 0)
    except ValueError:
        raise invalid(f"Invalid pagination token {request[token]!r}") from None
    end = start + int(request.get("MaxResults") or size)
    return items[start:end], {token: str(end)} if end < len(items) else {}


def tag_list(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _is_listed(job: Job, request: dict[str, Any]) -> bool:
    modified = job.describe()["LastModifiedTime"]
    return (
        request.get("StatusEquals", job.status) == job.status
        and request.get("NameContains", "") in job.name
        and request.get("CreationTimeAfter", -math.inf) <= job.created <= request.get("CreationTimeBefore", math.inf)
        and request.get("LastModifiedTimeAfter", -math.inf) <= modified
        and modified <= request.get("LastModifiedTimeBefore", math.inf)
    )


def _meets(job: Job, one: dict[str, Any]) -> bool:
    name, operator, wanted = one["Name"], one.get("Operator", "Equals"), one.get("Value", "")
    found = job.tags.get(name.removeprefix("Tags.")) if name.startswith("Tags.") else job.describe().get(name)
    tests: dict[str, Callable[[], bool]] = {
        "Equals": lambda: found == wanted,
        "NotEquals": lambda: found != wanted,
        "Contains": lambda: found is not None and wanted in found,
        "Exists": lambda: found is not None,
        "NotExists": lambda: found is None,
        "In": lambda: found in wanted.split(","),
    }
    if operator not in tests:
        raise invalid(f"Operator={operator!r}: this endpoint knows {', '.join(tests)}")
    return tests[operator]()
