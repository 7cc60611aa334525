"""What the project adds to Airflow's UI: the page of a task's report, and the button that leads to it.

This file is executed by every Airflow process, each task's included; only the API server asks for what it registers,
so that is imported when asked for.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin


class FmopsPlugin(AirflowPlugin):
    """The project's plugin."""

    name = "fmops"

    @cached_property
    def fastapi_apps(self) -> list[Any]:  # type: ignore[override]
        """The pages, below /fmops."""
        from fmops_plugins.report_link import PREFIX
        from fmops_plugins.report_page import app

        return [{"app": app, "url_prefix": PREFIX, "name": "FMOps"}]

    @cached_property
    def global_operator_extra_links(self) -> list[Any]:  # type: ignore[override]
        """The button on each task instance that returned a report's URI."""
        from fmops_plugins.report_link import ReportLink

        return [ReportLink()]
