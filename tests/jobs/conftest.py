"""What tests of jobs share: an AWS endpoint, and the plugins folder on the path, as a triggerer has it."""

from __future__ import annotations

import sys

import pytest

from local.home import PROJECT
from tests.aws.conftest import aws, aws_server

__all__ = ["aws", "aws_server"]

sys.path.append(str(PROJECT / "plugins"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The table's cells on the AWS endpoint are slow: CI has this machine's, and the operator's tests on both."""
    for item in items:
        if item.path.name == "test_table.py" and "[sagemaker" in item.name:
            item.add_marker(pytest.mark.slow)
