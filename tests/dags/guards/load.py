"""A DAG file as an object, loaded in this process by what the DAG processor loads it with."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG

UNSET_RUNS = 977
"""What a DAG that sets no max_active_runs gets while we load it, so that unset can be told from set."""


def load_dags(file: Path) -> list[DAG]:
    """The DAGs of one file, new objects each time; AssertionError with the traceback if it does not load."""
    with patch.dict("os.environ", AIRFLOW__CORE__MAX_ACTIVE_RUNS_PER_DAG=str(UNSET_RUNS)):
        bag = DagBag(str(file), safe_mode=False)
    assert not bag.import_errors, f"{file} does not load: {bag.import_errors}"
    return list(bag.dags.values())


def load_dag(file: Path) -> DAG:
    """The one DAG of a file."""
    (dag,) = load_dags(file)
    return dag
