"""GET /fmops/report?dag_id=..&run_id=..&task_id=..&map_index=.. shows the report that a task instance returned.

For users who may read the XComs of the DAG. The report is shown as it lies in storage, and can neither run scripts nor
load anything: it quotes documents that others wrote.
"""

from __future__ import annotations

from html import escape
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from fmops_plugins.airflow_internals import may_read_xcoms, report_uri
from fmops_plugins.report_files import ReportError, read_report, storage_root

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-store",
}
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Report</title>
<body style="font-family: sans-serif; max-width: 40em; margin: 4em auto; padding: 0 1em">
<h1>No report to show</h1><p style="overflow-wrap: anywhere">{reason}</p></body></html>"""

app = FastAPI(dependencies=[Depends(may_read_xcoms)], docs_url=None, redoc_url=None, openapi_url=None)


@app.get("/report")
def report(uri: Annotated[str | None, Depends(report_uri)]) -> HTMLResponse:
    """The report of a task instance."""
    if uri is None:
        raise ReportError(
            404, "This task instance has no report: it has not finished, or it is not one that writes one."
        )
    return HTMLResponse(read_report(uri, storage_root()), headers=HEADERS)


@app.exception_handler(ReportError)
def no_report(request: Request, error: ReportError) -> HTMLResponse:
    """Why there is nothing to show."""
    return _page(error.status, str(error))


@app.exception_handler(HTTPException)
def refused(request: Request, error: HTTPException) -> HTMLResponse:
    """What the guard says, as a page."""
    reasons = {
        401: "You are not logged in. Log in to Airflow, then open this page again.",
        403: "You may not read the results of this DAG.",
    }
    return _page(error.status_code, reasons.get(error.status_code, error.detail))


@app.exception_handler(RequestValidationError)
def incomplete(request: Request, error: RequestValidationError) -> HTMLResponse:
    """Which parameters are wrong."""
    wrong = "; ".join(f"{detail['loc'][-1]}: {detail['msg']}" for detail in error.errors())
    return _page(422, f"The address is not that of a task instance: {wrong}.")


def _page(status: int, reason: str) -> HTMLResponse:
    return HTMLResponse(PAGE.format(reason=escape(reason)), status_code=status, headers=HEADERS)
