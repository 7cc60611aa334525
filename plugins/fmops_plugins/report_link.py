"""The button on a task instance that opens its report, wherever a task returned {"report_uri": ...}."""

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
        """The page's address, or nothing, so no button, for a task instance without a report."""
        from fmops_plugins.airflow_internals import report_uri

        if report_uri(ti_key.dag_id, ti_key.run_id, ti_key.task_id, ti_key.map_index) is None:
            return ""
        place = {
            "dag_id": ti_key.dag_id,
            "run_id": ti_key.run_id,
            "task_id": ti_key.task_id,
            "map_index": ti_key.map_index,
        }
        below = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
        return f"{below}{PREFIX}/report?{urlencode(place)}"
