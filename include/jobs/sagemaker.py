"""Jobs on Amazon SageMaker: training and processing, described by name only."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any

from include.aws import client, region
from include.config import Settings
from include.errors import UserError
from include.jobs.images import load_images
from include.jobs.sagemaker_requests import (
    LONGEST_TAG,
    Place,
    check_limits,
    processing_request,
    processing_status,
    read_tag,
    tag_value,
    training_request,
    training_status,
)
from include.jobs.source import ENTRY, Source, read_source
from include.jobs.spec import OWNER_TAG, JobSpec, Named
from include.jobs.states import BadInputError, CapacityError, JobExistsError, Status, ThrottledError
from include.storage import location, write_bytes

KINDS = ("training", "processing")
LINES = 500
"""Of a log at once, of all hosts together."""
_OURS = re.compile(r".+-[0-9a-f]{16}-g\d+")
_UNKNOWN = re.compile(r"requested resource not found|could not find .*\bjob\b", re.IGNORECASE)
_EXISTS = re.compile(r"already exists|must be unique", re.IGNORECASE)
_DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation")
_THROTTLED = (
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "TooManyRequestsException",
    "RequestLimitExceeded",
)
_FAILED = ("InternalFailure", "InternalServerError", "ServiceUnavailable")
_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired")
"""Credentials that a role gives anew; a long call may have begun with the old ones."""


class _UnknownError(LookupError):
    """There is no job, log or stream of that name."""


class SageMakerBackend:
    """Jobs of one region and account; see include/jobs/base.py for what each call promises."""

    name = "sagemaker"
    inline_poll_s = 3.0

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.poll_s = settings.job_poll_s
        self._clients: dict[str, Any] = {}

    def check(self, named: Named) -> None:
        """UserError in one line if a setting is missing, or the service or the catalog cannot have the job."""
        self._place(named.spec)
        check_limits(named.spec)

    def submit(self, named: Named, name: str, owner: str) -> None:
        """Store the source if it is not there, then create the job. Errors by the service's code: see read_error()."""
        kind = named.spec.kind
        place = self._place(named.spec)
        try:
            self._call("sagemaker", f"create_{kind}_job", **self._request(named, name, owner, place))
        except _UnknownError as error:  # of something that the request names
            raise BadInputError(str(error)) from error

    def describe(self, kind: str, name: str) -> Status | None:
        """What the service says of it; `progress` is empty: it stands in the log."""
        found = self._describe(kind, name)
        if found is None:
            return None
        return training_status(found) if kind == "training" else processing_status(found)

    def claim(self, kind: str, name: str, owner: str) -> None:
        """Change the job's tag; LookupError if there is no such job."""
        if tag_value(owner) != owner:
            raise ValueError(f"owner {owner!r} cannot be a tag's value")
        found = self._describe(kind, name)
        if found is None:
            raise LookupError(f"{name} is not there")
        self._call("sagemaker", "add_tags", ResourceArn=_arn(kind, found), Tags=[{"Key": OWNER_TAG, "Value": owner}])

    def owner(self, kind: str, name: str) -> str | None:
        """The job's tag."""
        found = self._describe(kind, name)
        return self._tags(_arn(kind, found)).get(OWNER_TAG) if found else None

    def stop(self, kind: str, name: str) -> None:
        """Ask it to end; a job that is over, or unknown, is left as it is."""
        try:
            self._call("sagemaker", f"stop_{kind}_job", **_named(kind, name))
        except _UnknownError:
            return
        except BadInputError:  # the service refuses to stop what has ended
            status = self.describe(kind, name)
            if status is not None and not status.is_over and status.state != "stopping":
                raise

    def log(self, kind: str, name: str, after: Any = None) -> tuple[list[str], Any]:
        """New lines by time; of several hosts each line begins with its host. `after` holds a token for each stream."""
        group = f"/aws/sagemaker/{kind.title()}Jobs"
        tokens: dict[str, str] = dict(after or {})
        try:
            streams = self._streams(group, f"{name}/")
        except _UnknownError:  # no job of this kind has written a line here yet
            return [], tokens
        events: list[tuple[int, str]] = []
        for stream in streams:
            token = {"nextToken": tokens[stream]} if stream in tokens else {}
            found = self._call(
                "logs",
                "get_log_events",
                logGroupName=group,
                logStreamName=stream,
                startFromHead=True,
                limit=max(10, LINES // len(streams)),
                **token,
            )
            tokens[stream] = found["nextForwardToken"]
            host = f"{_host(stream)}: " if len(streams) > 1 else ""
            events += [(event["timestamp"], host + event["message"].rstrip()) for event in found["events"]]
        return [line for _, line in sorted(events, key=lambda event: event[0])], tokens

    def watch(self, kind: str, name: str) -> tuple[str, dict[str, Any]]:
        """The trigger and, beside the job's name, what it needs."""
        return "fmops_plugins.jobs.SageMakerTrigger", {"kind": kind, "region": region()}

    def find(self, tags: Mapping[str, str]) -> Iterator[tuple[str, str, dict[str, str]]]:
        """Those that run or stop, by ListTrainingJobs and ListProcessingJobs, and ListTags of each with a name of ours.

        A value that was cut for its length is left out of the tags.
        """
        wanted = {name: tag_value(value) for name, value in tags.items()}
        for kind in KINDS:
            for state in ("InProgress", "Stopping"):
                for summary in self._list(kind, state):
                    name = summary[f"{kind.title()}JobName"]
                    if _OURS.fullmatch(name) and wanted.items() <= (found := self._tags(_arn(kind, summary))).items():
                        whole = {tag: value for tag, value in found.items() if len(value) < LONGEST_TAG}
                        yield kind, name, {tag: read_tag(value) for tag, value in whole.items()}

    def _place(self, spec: JobSpec) -> Place:
        settings = self._settings
        if not settings.sagemaker_role:
            raise UserError("sagemaker_role is not set: set FMOPS_SAGEMAKER_ROLE to the ARN of the role jobs take on")
        if not settings.root.startswith("s3://"):
            raise UserError(
                f"storage_root={settings.root!r}: SageMaker needs s3://: set FMOPS_STORAGE_ROOT=s3://BUCKET/PREFIX"
            )
        subnets, groups = _ids(settings.sagemaker_subnets), _ids(settings.sagemaker_security_groups)
        if bool(subnets) != bool(groups):
            raise UserError(
                "sagemaker_subnets and sagemaker_security_groups belong together: set both, or none of them"
            )
        where, catalog = region(), load_images()
        instance_type = catalog.instance_type(spec)
        return Place(
            root=settings.root,
            role=settings.sagemaker_role,
            region=where,
            image_uri=catalog.uri(spec.resources.image, where, settings.worker_image),
            instance_type=instance_type,
            has_volume=instance_type not in catalog.local_storage,
            subnets=subnets,
            security_groups=groups,
            kms_key=settings.sagemaker_kms_key,
        )

    def _request(self, named: Named, name: str, owner: str, place: Place) -> dict[str, Any]:
        source = read_source(named.spec.script)
        folder = place.folder(named.spec, "source", source.digest)
        try:
            if named.spec.kind == "training":
                return training_request(named, name, owner, place, store_archive(source, folder))
            return processing_request(named, name, owner, place, store_files(source, folder))
        except (PermissionError, FileNotFoundError) as error:
            raise BadInputError(f"the source cannot be stored in {folder}: {error}") from error

    def _describe(self, kind: str, name: str) -> dict[str, Any] | None:
        try:
            return self._call("sagemaker", f"describe_{kind}_job", **_named(kind, name))
        except _UnknownError:
            return None

    def _tags(self, arn: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for page in self._pages("sagemaker", "list_tags", ResourceArn=arn):
            found |= {tag["Key"]: tag["Value"] for tag in page["Tags"]}
        return found

    def _list(self, kind: str, state: str) -> Iterator[dict[str, Any]]:
        for page in self._pages("sagemaker", f"list_{kind}_jobs", StatusEquals=state, MaxResults=100):
            yield from page[f"{kind.title()}JobSummaries"]

    def _streams(self, group: str, prefix: str) -> list[str]:
        pages = self._pages("logs", "describe_log_streams", logGroupName=group, logStreamNamePrefix=prefix)
        return [stream["logStreamName"] for page in pages for stream in page["logStreams"]]

    def _pages(self, service: str, action: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        name = "nextToken" if service == "logs" else "NextToken"
        token: dict[str, str] = {}
        while True:
            page = self._call(service, action, **arguments, **token)
            yield page
            if not page.get(name):
                return
            token = {name: page[name]}

    def _call(self, service: str, action: str, **arguments: Any) -> dict[str, Any]:
        """One call, its errors by cause: see read_error()."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            if service not in self._clients:
                self._clients[service] = client(service)
            answer: dict[str, Any] = getattr(self._clients[service], action)(**arguments)
            return answer
        except ClientError as error:
            raise read_error(error.response, error.operation_name, self._settings.sagemaker_role or "") from error
        except BotoCoreError as error:
            raise read_local_error(error, action) from error


def read_error(answer: Mapping[str, Any], action: str, role: str) -> Exception:
    """The error that a refusal stands for: by its code, and by its words where a code has several meanings."""
    code, words = str(answer["Error"].get("Code", "")), " ".join(str(answer["Error"].get("Message", "")).split())
    text = f"{action}: {code}: {words}".rstrip(".")
    if code == "ResourceInUse" or (code == "ValidationException" and _EXISTS.search(words)):
        return JobExistsError(text)
    if code.startswith("ResourceNotFound") or (code == "ValidationException" and _UNKNOWN.match(words)):
        return _UnknownError(text)
    if code == "ResourceLimitExceeded":
        return CapacityError(text)
    if code in _THROTTLED:
        return ThrottledError(text)
    if code in _DENIED:
        return BadInputError(f"{text} (needs {action}, and iam:PassRole for {role}; storage and key too)")
    if code in (*_FAILED, *_EXPIRED) or answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 400) >= 500:
        return ConnectionError(text)
    return BadInputError(text)


def read_local_error(error: Exception, action: str) -> Exception:
    """The error that no answer stands for: the call may have been carried out, or was never sent."""
    from botocore import exceptions as aws

    if isinstance(error, (aws.ReadTimeoutError, aws.ConnectTimeoutError)):
        return TimeoutError(f"{action}: {error}")
    # Those of a role come over the network too.
    of_role = (aws.CredentialRetrievalError, aws.MetadataRetrievalError)
    if isinstance(error, (aws.HTTPClientError, aws.ConnectionError, *of_role)):
        return ConnectionError(f"{action}: {error}")
    if isinstance(error, (aws.NoCredentialsError, aws.PartialCredentialsError, aws.ProfileNotFound)):
        return UserError(f"{action}: {error}: give AWS credentials as for any AWS tool")
    return BadInputError(f"{action}: {' '.join(str(error).split())}")


def store_archive(source: Source, folder: str) -> str:
    """The URI of the packed source, written if it is not there; an S3 put is whole or not at all."""
    file = location(f"{folder}/source.tar.gz")
    if not file.exists():
        write_bytes(file, source.pack())
    return str(file)


def store_files(source: Source, folder: str) -> str:
    """The URI of a folder with the source's files; the entry is written last, so its existence means all are there."""
    place = location(f"{folder}/files")
    if not (place / ENTRY).exists():
        with tarfile.open(fileobj=io.BytesIO(source.pack())) as tar:
            for member in sorted(tar, key=lambda member: member.name == ENTRY):
                packed = tar.extractfile(member)
                assert packed is not None, member.name
                write_bytes(place / member.name, packed.read())
    return f"{place}/"


def _named(kind: str, name: str) -> dict[str, str]:
    return {f"{kind.title()}JobName": name}


def _arn(kind: str, found: Mapping[str, Any]) -> str:
    return str(found[f"{kind.title()}JobArn"])


def _host(stream: str) -> str:
    """`algo-2` of `<job>/algo-2-1716840000`."""
    return re.sub(r"-\d{6,}$", "", stream.partition("/")[2])


def _ids(setting: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (setting or "").split(",") if part.strip())
