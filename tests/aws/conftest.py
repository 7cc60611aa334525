"""One AWS endpoint for a module's tests; each test finds it fresh, but for what lies in S3."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.aws.client import Jobs
from tests.aws.endpoint import AwsEndpoint, aws_endpoint


@pytest.fixture(scope="module")
def aws_server() -> Iterator[AwsEndpoint]:
    """The module's server."""
    with aws_endpoint() as endpoint:
        yield endpoint


@pytest.fixture
def aws(aws_server: AwsEndpoint) -> AwsEndpoint:
    """The server without jobs, faults and calls of other tests."""
    aws_server.reset()
    return aws_server


@pytest.fixture
def jobs(aws: AwsEndpoint) -> Jobs:
    """A bucket of the test's own."""
    return Jobs(aws)
