"""Starts the AWS endpoint for a test, points boto3 at it, and tells it what should happen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from local.home import PROJECT
from tests.aws.checks import ACCOUNT
from tests.aws.wire import CONTROL

REGION = "us-east-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/fmops-jobs"
"""SageMaker may take it on; it is there when the endpoint is."""
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


@dataclass(frozen=True, kw_only=True)
class AwsEndpoint:
    """A running endpoint."""

    url: str
    process: subprocess.Popen[bytes]
    role: str = ROLE
    _clients: dict[tuple[str, int, str], Any] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What boto3 needs to find it, in this process or another."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def deployment(self, root: str) -> dict[str, str]:
        """The environment of an Airflow, or of a test, whose target this account is, with its data below a URI."""
        return {
            **self.environment,
            "FMOPS_TARGET": "aws",
            "FMOPS_STORAGE_ROOT": root,
            "FMOPS_SAGEMAKER_ROLE": self.role,
        }

    def client(self, service: str, *, attempts: int = 1, region: str = REGION) -> Any:
        """A boto3 client that tries each call so often; the same one for the same arguments, as making one is slow."""
        key = (service, attempts, region)
        if key not in self._clients:
            import boto3
            from botocore.config import Config

            config = Config(retries={"total_max_attempts": attempts, "mode": "standard"}, max_pool_connections=32)
            session: Any = boto3.session.Session(aws_access_key_id="test", aws_secret_access_key="test")
            self._clients[key] = session.client(service, region_name=region, endpoint_url=self.url, config=config)
        return self._clients[key]

    def plan(self, do: str, **fields: Any) -> None:
        """A fault to come: see faults.Fault."""
        self._control("faults", [{"do": do, **fields}])

    def faults_left(self) -> list[dict[str, Any]]:
        """Those not met yet, or not as often as planned."""
        return list(self._control("faults"))

    def set_pace(self, **fields: Any) -> None:
        """How fast things go: see run.Pace."""
        self._control("pace", fields)

    def set_account(self, **fields: Any) -> None:
        """Quotas and permissions: see services.Account."""
        self._control("account", fields)

    def calls(self, operation: str | None = None, job: str | None = None) -> list[dict[str, Any]]:
        """Calls so far, all or of one operation or job: service, operation, job, at (Unix s), status, fault."""
        return [
            call
            for call in self._control("calls")
            if operation in (None, call["operation"]) and job in (None, call["job"])
        ]

    def jobs(self) -> list[dict[str, str]]:
        """Every job that was created: kind, name, status."""
        return list(self._control("jobs"))

    def processes(self) -> list[dict[str, Any]]:
        """Every living process of a job: pid, job."""
        return list(self._control("processes"))

    def reset(self) -> None:
        """End and forget all jobs, faults, calls and settings; what lies in S3 stays."""
        self._control("reset", {})

    def _control(self, what: str, value: Any = None) -> Any:
        data = None if value is None else json.dumps(value).encode()
        request = urllib.request.Request(f"{self.url}{CONTROL}{what}", data)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error)) from None


@contextmanager
def aws_endpoint() -> Iterator[AwsEndpoint]:
    """A fresh endpoint; when the block ends, it is gone with all its jobs and files."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.aws.server"],
        cwd=PROJECT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        port = process.stdout.readline().strip().decode()
        if not port:
            raise RuntimeError(f"the AWS endpoint did not start, exit code {process.wait()}: see what it printed")
        endpoint = AwsEndpoint(url=f"http://127.0.0.1:{port}", process=process)
        endpoint.client("iam").create_role(RoleName="fmops-jobs", AssumeRolePolicyDocument=json.dumps(TRUST))
        yield endpoint
    finally:
        process.terminate()
        with process:
            process.stdout.read()  # ends with the keeper, which has cleaned up then
