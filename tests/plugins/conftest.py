"""The plugins folder on the path, as Airflow has it, and one Airflow for the tests that need a whole one."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.airflow import LocalAirflow
from local.home import PROJECT
from tests.plugins.whole import Whole
from tests.real_airflow import home_with_database

sys.path.append(str(PROJECT / "plugins"))


@pytest.fixture(scope="package")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    """An Airflow with the DAGs of this folder; a guest has no role, so no right."""
    folder = tmp_path_factory.mktemp("airflow")
    (folder / "dags").mkdir()
    for file in Path(__file__).parent.glob("*_dag.py"):
        shutil.copy(file, folder / "dags")
    options = {
        "FMOPS_STORAGE_ROOT": f"file://{folder}/storage",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,viewer:viewer,guest:",
    }
    airflow = LocalAirflow(
        home=home_with_database(folder / "home"),
        dags=folder / "dags",
        plugins=PROJECT / "plugins",
        port=0,
        options=options,
    )
    with airflow, airflow.client() as client:
        yield Whole(airflow, client, folder / "storage")
