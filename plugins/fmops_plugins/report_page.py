"""GET /fmops/report?dag_id=..&run_id=..&task_id=..&map_index=.. shows the report that a task instance returned.

The report is shown as it lies in storage, and can neither run scripts nor load anything: it quotes documents that
others wrote.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import HTMLResponse

from fmops_plugins.airflow_internals import report_uri
from fmops_plugins.answers import HEADERS, PageError
from fmops_plugins.report_files import read_report
from fmops_plugins.settings import storage_root

router = APIRouter()


@router.get("/report")
def report(uri: Annotated[str | None, Depends(report_uri)]) -> HTMLResponse:
    """The report of a task instance."""
    if uri is None:
        raise PageError(404, "This task instance has no report: it has not finished, or it is not one that writes one.")
    return HTMLResponse(read_report(uri, storage_root()), headers=HEADERS)
