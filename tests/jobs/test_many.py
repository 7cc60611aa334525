"""Many mapped jobs at once: all green, none too many calls, the triggerer's memory bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.jobs import RATE, busiest, watch_many
from tests.aws.endpoint import aws_endpoint


@pytest.mark.airflow
@pytest.mark.slow
def test_two_hundred_jobs_are_waited_for_at_once(tmp_path: Path) -> None:
    with aws_endpoint() as aws:
        found = watch_many(tmp_path, aws, 200)
        assert (found.state, found.num_succeeded, len(aws.jobs())) == ("success", 200, 200)
    assert found.busiest_second <= RATE
    first, last = found.triggerer_mb
    assert last < 1.1 * first


def test_the_busiest_second() -> None:
    assert busiest([]) == 0
    assert busiest([1.0, 1.5, 2.0, 2.6, 9.0]) == 3
