"""What tests of jobs share: an AWS endpoint, and the plugins folder on the path, as a triggerer has it."""

from __future__ import annotations

import sys

from local.home import PROJECT
from tests.aws.conftest import aws, aws_server

__all__ = ["aws", "aws_server"]

sys.path.append(str(PROJECT / "plugins"))
