"""The buttons on a task instance: one opens the report that it returned, the other the job that it waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from airflow.configuration import conf
from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey

PREFIX = "/fmops"
"""Where the plugin's pages lie below the API server's base URL."""


class ReportLink(BaseOperatorLink):
    """A link for all operators; the API server asks it whenever it shows a task instance."""

    name = "Report"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:
        """The page's address, or nothing, so no button, for a task instance that did not return {"report_uri": ...}."""
        from fmops_plugins.airflow_internals import report_uri

        place = _place(ti_key)
        return "" if report_uri(**place) is None else _address("report", place)


class JobLink(BaseOperatorLink):
    """As above; the XCom that tells of a job is there as soon as the job is."""

    name = "Job"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:
        """The page's address, or nothing, so no button, for a task instance that has started no job."""
        from fmops_plugins.airflow_internals import job_place

        place = _place(ti_key)
        return "" if job_place(**place) is None else _address("job", place)


def _place(key: TaskInstanceKey) -> dict[str, Any]:
    return {"dag_id": key.dag_id, "run_id": key.run_id, "task_id": key.task_id, "map_index": key.map_index}


def _address(page: str, place: dict[str, Any]) -> str:
    below = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
    return f"{below}{PREFIX}/{page}?{urlencode(place)}"
