"""What all DAG tests share: one measurement of all real files in a session, one of the planted ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from guards.parse import BAD, GOOD, Parsed, dag_files, measure

Measured = tuple[dict[Path, Parsed], list[str]]


@pytest.fixture(scope="session")
def parsed() -> dict[Path, Parsed]:
    """What the parse of every DAG file did."""
    return measure(dag_files())[0]


@pytest.fixture(scope="session")
def measured_planted() -> Measured:
    """What the parse of every planted file did, and the banned modules that Airflow itself loads."""
    return measure([*BAD.glob("*.py"), *GOOD.glob("*.py")])


@pytest.fixture(scope="session")
def planted(measured_planted: Measured) -> dict[str, Parsed]:
    """What the parse of every planted file did, by the file's stem."""
    return {file.stem: result for file, result in measured_planted[0].items()}
