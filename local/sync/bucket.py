"""The bucket that an Amazon MWAA environment reads: what it must be like, what lies in it, and the release manifest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import quote

from include.aws import client as aws_client
from include.errors import UserError
from local.sync.layout import PLUGINS, REQUIREMENTS, File

MANIFEST = "fmops-release.json"
SCHEMA_VERSION = 1


class SyncError(RuntimeError):
    """A sync stopped: what it had put stays, the manifest is the last release's, and the next sync repairs."""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """One object as a sync put it."""

    path: str
    sha256: str
    bytes: int
    etag: str


@dataclass(frozen=True, kw_only=True)
class Release:
    """What the manifest says."""

    release_digest: str
    """Of all files, their paths and contents."""

    include_digest: str
    """What every DAG's first task prints."""

    created_at: str
    git_revision: str | None
    object_versions: dict[str, str]
    """Ids that an update of the environment names."""

    files: tuple[Sent, ...]
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One object as it lies in the bucket."""

    etag: str
    version_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class State:
    """What lay in the bucket when the plan was made."""

    objects: Mapping[str, Stored]
    release: Release | None = None
    release_etag: str | None = None
    recorded: Mapping[str, Sent] = field(default_factory=dict)


class Bucket:
    """A bucket, or the part of it below a prefix."""

    def __init__(self, name: str, prefix: str, client: Any = None) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", name):
            said = f"BUCKET={name} is not the name of a bucket" if name else "BUCKET is not set"
            raise UserError(f"{said}: write for example make sync BUCKET=my-mwaa-bucket")
        if not re.fullmatch(r"([\w.-]+/)*[\w.-]+", prefix or "none", re.ASCII) or ".." in prefix:
            raise UserError(f"PREFIX={prefix} is not a prefix: write for example PREFIX=team/mwaa")
        self.name, self.prefix, self._client = name, prefix, client or aws_client("s3")
        self._start = f"{prefix}/" if prefix else ""

    @property
    def region(self) -> str:
        """The region that requests are sent to."""
        return str(self._client.meta.region_name)

    def key(self, path: str) -> str:
        """The key of a place below the prefix."""
        return self._start + path

    def check(self) -> list[str]:
        """What MWAA would only warn of; UserError if the bucket is not there, not ours to use, or not fit for MWAA."""
        self._check_place()
        with self._explained("reading whether it keeps versions", "s3:GetBucketVersioning"):
            status = self._client.get_bucket_versioning(Bucket=self.name).get("Status")
        if status != "Enabled":
            raise UserError(
                f"bucket {self.name} does not keep versions, which MWAA requires: aws s3api put-bucket-versioning "
                f"--bucket {self.name} --versioning-configuration Status=Enabled"
            )
        return [] if self._is_private() else [_not_private(self.name)]

    def _check_place(self) -> None:
        from botocore.exceptions import ClientError

        with self._explained("asking for it", "s3:ListBucket"):
            try:
                region = self._client.head_bucket(Bucket=self.name).get("BucketRegion")
            except ClientError as error:
                answer = error.response["ResponseMetadata"]
                if answer["HTTPStatusCode"] == 404:
                    raise UserError(f"BUCKET={self.name}: there is no such bucket") from None
                region = answer.get("HTTPHeaders", {}).get("x-amz-bucket-region")
                if region in (None, self.region):
                    raise
        if region not in (None, self.region):  # an S3 that is not AWS's own need not say
            raise UserError(
                f"bucket {self.name} is in {region}, requests go to {self.region}: set AWS_DEFAULT_REGION={region}, "
                "where the environment must be too"
            )

    def _is_private(self) -> bool:
        from botocore.exceptions import ClientError

        try:
            answer = self._client.get_public_access_block(Bucket=self.name)
        except ClientError:  # no block, or no permission to see it
            return False
        return all(answer["PublicAccessBlockConfiguration"].values())

    def state(self) -> State:
        """What lies in the bucket now."""
        release, etag = self.read_release()
        objects = {}
        with self._explained("listing", "s3:ListBucket"):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.name, Prefix=self.key("dags/")):
                for item in page.get("Contents", []):
                    if not item["Key"].endswith("/"):  # the console's folders
                        path = item["Key"].removeprefix(self._start)
                        objects[path] = Stored(etag=item["ETag"].strip('"'))
        for path in (PLUGINS, REQUIREMENTS):
            head = self.head(path)
            if head is not None:
                objects[path] = Stored(etag=head["ETag"].strip('"'), version_id=head.get("VersionId"))
        recorded = {sent.path: sent for sent in release.files} if release else {}
        return State(objects=objects, release=release, release_etag=etag, recorded=recorded)

    def head(self, path: str) -> dict[str, Any] | None:
        """What S3 tells of an object without its content; None if it is not there."""
        from botocore.exceptions import ClientError

        with self._explained(f"reading {path}", "s3:GetObject"):
            try:
                return dict(self._client.head_object(Bucket=self.name, Key=self.key(path)))
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                    return None
                raise

    def digest_by_mark(self, path: str) -> str | None:
        """The digest that a sync wrote beside the object; None if no sync put it there.

        The mark names the key, so that a copy made elsewhere in the bucket, which inherits it, is nobody's but its
        maker's.
        """
        head = self.head(path)
        mark = head["Metadata"] if head else {}
        return mark.get("sha256") if mark.get("fmops-key") == quote(self.key(path)) else None

    def put(self, file: File) -> Stored:
        """Put one object, with its mark."""
        with self._explained(f"writing {file.path}", "s3:PutObject"):
            answer = self._client.put_object(
                Bucket=self.name,
                Key=self.key(file.path),
                Body=file.data,
                Metadata={"sha256": file.sha256, "fmops-key": quote(self.key(file.path))},
            )
        return Stored(etag=answer["ETag"].strip('"'), version_id=answer.get("VersionId"))

    def delete(self, path: str) -> None:
        """Delete one object; its versions stay."""
        with self._explained(f"deleting {path}", "s3:DeleteObject"):
            self._client.delete_object(Bucket=self.name, Key=self.key(path))

    def read_release(self) -> tuple[Release | None, str | None]:
        """The manifest and its ETag; None before the first release."""
        head = self.head(MANIFEST)
        if head is None:
            return None, None
        with self._explained(f"reading {MANIFEST}", "s3:GetObject"):
            answer = self._client.get_object(Bucket=self.name, Key=self.key(MANIFEST))
            data = answer["Body"].read()
        try:
            fields = json.loads(data)
            release = Release(**fields | {"files": tuple(Sent(**sent) for sent in fields["files"])})
            if release.schema_version != SCHEMA_VERSION:
                raise ValueError(f"schema_version is {release.schema_version}")
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"s3://{self.name}/{self.key(MANIFEST)} is not a manifest that this version reads ({error}): "
                "use the version that wrote it, or delete it"
            ) from None
        return release, str(answer["ETag"])

    def assert_unmoved(self, state: State) -> None:
        """SyncError if another sync wrote its manifest since the plan was made."""
        head = self.head(MANIFEST)
        if (head["ETag"] if head else None) != state.release_etag:
            raise SyncError("another sync ended since this one made its plan: run it again")

    def write_release(self, release: Release, state: State) -> None:
        """Write the manifest in place of the plan's; SyncError if another sync was faster."""
        from botocore.exceptions import ClientError

        self.assert_unmoved(state)  # an endpoint may take the condition below and not heed it
        target = {
            "Bucket": self.name,
            "Key": self.key(MANIFEST),
            "Body": json.dumps(asdict(release), indent=1).encode(),
            "ContentType": "application/json",
        }
        condition = {"IfMatch": state.release_etag} if state.release_etag else {"IfNoneMatch": "*"}
        with self._explained(f"writing {MANIFEST}", "s3:PutObject"):
            try:
                self._client.put_object(**target, **condition)
            except ClientError as error:
                status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                if status in (404, 409, 412):
                    if self.read_release()[0] == release:
                        return  # written at a first try whose answer was lost
                    raise SyncError("another sync ended while this one wrote: run it again") from None
                if status != 501:
                    raise
                self._client.put_object(**target)

    @contextmanager
    def _explained(self, doing: str, right: str) -> Iterator[None]:
        """Turn what boto3 raises into one line."""
        from botocore.exceptions import BotoCoreError, ClientError

        where = f"s3://{self.name}/{self.prefix}, {doing}"
        try:
            yield
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in (401, 403):
                raise UserError(
                    f"{where}: no permission: the credentials in use need {right} on a bucket of their account"
                ) from None
            raise SyncError(f"{where}: {error}") from None
        except BotoCoreError as error:  # no credentials, no answer
            raise SyncError(f"{where}: {error}") from None


def _not_private(name: str) -> str:
    return (
        f"public access to bucket {name} is not seen to be blocked, which MWAA requires: aws s3api "
        f"put-public-access-block --bucket {name} --public-access-block-configuration "
        "BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=true,RestrictPublicBuckets=true"
    )
