"""Buckets that a sync refuses or warns of, and manifests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from include.errors import UserError
from local.sync import SyncError, sync
from tests.local.sync.deployment import ORDER, Deployment


def test_an_endpoint_without_conditional_writes(mine: Deployment, loads: None, answering: Any) -> None:
    answering(mine.client, "PutObject", 501, lambda request: "If-None-Match" in request.headers)
    mine.sync()
    assert mine.is_whole()


def test_a_manifest_whose_first_answer_was_lost_is_no_other_syncs(
    mine: Deployment, loads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = mine.client.put_object

    def twice(**more: Any) -> Any:
        if "IfNoneMatch" in more:
            put(**more)
        return put(**more)

    monkeypatch.setattr(mine.client, "put_object", twice)
    mine.sync()
    assert mine.is_whole()


@pytest.mark.parametrize(
    ("manifest", "why"),
    [(b"{", "Expecting"), (b"[]", "list"), (b"{}", "files"), (None, "schema_version is 2")],
)
def test_a_manifest_that_is_not_ours_to_read_stops_it(synced: Deployment, manifest: bytes | None, why: str) -> None:
    synced.put("fmops-release.json", manifest or json.dumps(synced.manifest() | {"schema_version": 2}).encode())
    with pytest.raises(UserError, match=rf"team/mwaa/fmops-release.json is not a manifest.*{why}"):
        synced.sync()
    assert synced.written == []


@pytest.mark.parametrize("name", ["", "s3://mine/x", "Mine", "a"])
def test_what_is_no_bucket_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")  # the bucket is asked for first
    with pytest.raises(UserError, match=f"BUCKET={name} is not the name" if name else "BUCKET is not set"):
        sync(name)


@pytest.mark.parametrize("prefix", ["/tmp", "a/../b", "a b", "s3://x"])
def test_what_is_no_prefix(prefix: str) -> None:
    with pytest.raises(UserError, match=f"PREFIX={prefix} is not a prefix"):
        sync("mine", prefix=prefix)


def test_no_prefix(mine: Deployment, loads: None) -> None:
    assert mine.sync(prefix="") == ORDER and mine.get("dags/.airflowignore") == b"include/\n"
    assert "--plugins-s3-path plugins.zip " in mine.said


def test_a_bucket_that_is_not_there(mine: Deployment) -> None:
    mine.bucket += "-not"
    with pytest.raises(UserError, match=f"BUCKET={mine.bucket}: there is no such bucket"):
        mine.sync()


def test_a_bucket_in_another_region(mine: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with pytest.raises(UserError, match="is in us-east-1, requests go to eu-west-1: set AWS_DEFAULT_REGION=us-east-1"):
        mine.sync()


@pytest.mark.parametrize("status", [None, "Suspended"])
def test_a_bucket_without_versions(mine: Deployment, status: str | None) -> None:
    if status:
        mine.versioning(status)
    else:
        mine.bucket += "-plain"
        mine.s3.create_bucket(Bucket=mine.bucket)
    with pytest.raises(UserError, match="does not keep versions, which MWAA requires: aws s3api put-bucket-versioning"):
        mine.sync()
    assert mine.lie() == {}


def test_public_access_is_warned_of(synced: Deployment) -> None:
    assert "warning: public access to bucket" in synced.said
    all_blocked = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    for blocked, warned in ((dict.fromkeys(all_blocked, True) | {"BlockPublicAcls": False}, True), ({}, False)):
        block = blocked or dict.fromkeys(all_blocked, True)
        synced.s3.put_public_access_block(Bucket=synced.bucket, PublicAccessBlockConfiguration=block)
        synced.sync()
        assert ("warning" in synced.said) is warned


@pytest.mark.parametrize(
    ("operation", "right"),
    [
        ("HeadBucket", "s3:ListBucket"),
        ("GetBucketVersioning", "s3:GetBucketVersioning"),
        ("HeadObject", "s3:GetObject"),
        ("ListObjectsV2", "s3:ListBucket"),
        ("PutObject", "s3:PutObject"),
        ("DeleteObject", "s3:DeleteObject"),
    ],
)
def test_a_missing_permission_is_named(synced: Deployment, answering: Any, operation: str, right: str) -> None:
    (synced.project / "include/catalog/prices.yaml").unlink()
    if operation == "PutObject":
        synced.edit("include/config.py", "NAME = 'ours-'\n")
    answering(synced.client, operation, 403)
    with pytest.raises(UserError, match=f"no permission: the credentials in use need {right} on") as raised:
        synced.sync()
    assert "\n" not in str(raised.value)


def test_no_credentials(mine: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    with pytest.raises(SyncError, match="Unable to locate credentials"):
        mine.sync()
