"""A small project and a bucket to sync it to."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import EndpointConnectionError

from include.aws import client as aws_client
from local.sync import sync
from local.sync.layout import collect

DAG = "from include.config import NAME\nfrom airflow.sdk import DAG\ndag = DAG(NAME + '{}', schedule=None)\n"
FILES = {
    "dags/.airflowignore": "include/\n",
    "dags/consumer/one.py": DAG.format("one"),
    "include/__init__.py": "",
    "include/config.py": "NAME = 'mine-'\n",
    "include/catalog/prices.yaml": "{}\n",
    "plugins/.airflowignore": "mine/*\n",
    "plugins/mine/__init__.py": "",
    "plugins/mine/page.py": "import mine\n",
    "requirements.txt": "boto3==1.43.56\n",
}
ORDER = [
    "dags/.airflowignore",
    "dags/include/__init__.py",
    "dags/include/catalog/prices.yaml",
    "dags/include/config.py",
    "dags/consumer/one.py",
    "plugins.zip",
    "requirements.txt",
    "fmops-release.json",
]


@lru_cache(maxsize=1)
def _plain_client(endpoint: str) -> Any:
    return boto3.client("s3", endpoint_url=endpoint)


class Deployment:
    """A small project, its bucket, and what its last sync wrote there, in order, and said."""

    def __init__(self, project: Path) -> None:
        self.project, self.prefix = project, "team/mwaa"
        self.s3 = _plain_client(os.environ["AWS_ENDPOINT_URL"])
        self.bucket = f"mwaa-{uuid.uuid4().hex[:12]}"
        self.s3.create_bucket(Bucket=self.bucket)
        self.versioning("Enabled")
        for path, text in FILES.items():
            self.edit(path, text)
        (project / "dags" / "include").symlink_to("../include")

    def versioning(self, status: str) -> None:
        self.s3.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": status})

    def edit(self, path: str, text: str) -> None:
        file = self.project / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    @cached_property
    def client(self) -> Any:
        """A client whose writes are counted, each after `before` was asked."""

        def count(params: dict[str, Any], **_: object) -> None:
            path = params["Key"].removeprefix(f"{self.prefix}/")
            self.before(path)
            self.written.append(path)

        client = aws_client("s3")
        for call in ("PutObject", "DeleteObject"):
            client.meta.events.register(f"provide-client-params.s3.{call}", count)
        return client

    def sync(self, before: Callable[[str], None] = lambda path: None, **more: Any) -> list[str]:
        """What this sync wrote."""
        self.written, self.before = [], before
        lines: list[str] = []
        arguments = {"prefix": self.prefix, "project": self.project, "say": lines.append} | more
        try:
            assert sync(self.bucket, client=self.client, **arguments) == 0
        finally:
            self.said = "\n".join(lines)
        return self.written

    def lie(self) -> dict[str, bytes]:
        """What lies in the bucket below the prefix."""
        found = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=f"{self.prefix}/").get("Contents", [])
        return {item["Key"].removeprefix(f"{self.prefix}/"): self.get(item["Key"]) for item in found}

    def get(self, key: str) -> bytes:
        return self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def put(self, path: str, data: bytes, **more: Any) -> None:
        self.s3.put_object(Bucket=self.bucket, Key=f"{self.prefix}/{path}", Body=data, **more)

    def manifest(self) -> dict[str, Any]:
        return json.loads(self.get(f"{self.prefix}/fmops-release.json"))

    def version(self, path: str) -> str:
        return self.s3.head_object(Bucket=self.bucket, Key=f"{self.prefix}/{path}")["VersionId"]

    def is_whole(self) -> bool:
        """Whether the bucket holds this project, and a manifest that says so."""
        held, files = self.lie(), {file.path: file.data for file in collect(self.project)}
        recorded = {sent["path"]: sent["sha256"] for sent in self.manifest()["files"]}
        return all(held.get(path) == data for path, data in files.items()) and recorded == {
            path: hashlib.sha256(data).hexdigest() for path, data in files.items()
        }


def fail_at(place: str) -> Callable[[str], None]:
    def before(path: str) -> None:
        if path == place:
            raise EndpointConnectionError(endpoint_url="https://s3")

    return before
