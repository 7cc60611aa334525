"""All that the pages take from inside Airflow, whose paths may move with any version; for the API server alone."""

from __future__ import annotations

from typing import Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from airflow.models.xcom import XCOM_RETURN_KEY, XComModel
from airflow.utils.session import create_session
from sqlalchemy import select

JOB_KEY = "fmops_job"
"""Of the XCom that tells where the job of a task instance runs."""

may_read_xcoms = requires_access_dag("GET", DagAccessEntity.XCOM)
"""Dependency of a page with the query parameter dag_id: 401 for who is not logged in, 403 for who may not read."""

may_read_logs = requires_access_dag("GET", DagAccessEntity.TASK_LOGS)
"""As above, for pages that show a log."""


def report_uri(dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str | None:
    """What a task instance returned as `report_uri`; None if it returned none, or nothing yet."""
    uri = _xcom(XCOM_RETURN_KEY, dag_id, run_id, task_id, map_index).get("report_uri")
    return uri if isinstance(uri, str) else None


def job_place(dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict[str, Any] | None:
    """Where the job of a task instance runs, as its operator told; None if it has started none."""
    return _xcom(JOB_KEY, dag_id, run_id, task_id, map_index) or None


def _xcom(key: str, dag_id: str, run_id: str, task_id: str, map_index: int) -> dict[str, Any]:
    """A task instance's XCom; empty if there is none, or if it is no object.

    The value is taken as the JSON that lies in the database: nothing in it is instantiated.
    """
    query = select(XComModel.value).where(
        XComModel.dag_id == dag_id,
        XComModel.run_id == run_id,
        XComModel.task_id == task_id,
        XComModel.map_index == map_index,
        XComModel.key == key,
    )
    with create_session(scoped=False) as session:
        value = session.scalar(query)
    return value if isinstance(value, dict) else {}
