"""What the project adds to Airflow: pages of reports and jobs, the buttons that lead to them, and the pool of jobs.

This file is executed by every Airflow process, each task's included; what it registers is imported when a process asks
for it: pages and buttons by the API server alone.
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
        from fmops_plugins.links import PREFIX
        from fmops_plugins.pages import app

        return [{"app": app, "url_prefix": PREFIX, "name": "FMOps"}]

    @cached_property
    def global_operator_extra_links(self) -> list[Any]:  # type: ignore[override]
        """The buttons on each task instance that returned a report's URI, or has started a job."""
        from fmops_plugins.links import JobLink, ReportLink

        return [ReportLink(), JobLink()]

    @cached_property
    def listeners(self) -> list[Any]:  # type: ignore[override]
        """What makes the pool; asked for by every process that calls listeners, a task's too."""
        from fmops_plugins import pools

        return [pools]
