"""All that the pages take from inside Airflow, whose paths may move with any version; for the API server alone."""

from __future__ import annotations

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from airflow.models.xcom import XCOM_RETURN_KEY, XComModel
from airflow.utils.session import create_session
from sqlalchemy import select

may_read_xcoms = requires_access_dag("GET", DagAccessEntity.XCOM)
"""Dependency of a page with the query parameter dag_id: 401 for who is not logged in, 403 for who may not read."""


def report_uri(dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str | None:
    """What a task instance returned as `report_uri`; None if it returned none, or nothing yet.

    The value is taken as the JSON that lies in the database: nothing in it is instantiated.
    """
    query = select(XComModel.value).where(
        XComModel.dag_id == dag_id,
        XComModel.run_id == run_id,
        XComModel.task_id == task_id,
        XComModel.map_index == map_index,
        XComModel.key == XCOM_RETURN_KEY,
    )
    with create_session(scoped=False) as session:
        value = session.scalar(query)
    uri = value.get("report_uri") if isinstance(value, dict) else None
    return uri if isinstance(uri, str) else None
