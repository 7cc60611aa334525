"""The plugin's pages, below /fmops, for users who may read the XComs of the DAG that a page is about."""

from __future__ import annotations

from html import escape

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from fmops_plugins.airflow_internals import may_read_xcoms
from fmops_plugins.answers import HEADERS, PageError
from fmops_plugins.job_page import router as job_router
from fmops_plugins.report_page import router as report_router

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>FMOps</title>
<body style="font-family: sans-serif; max-width: 40em; margin: 4em auto; padding: 0 1em">
<h1>Nothing to show</h1><p style="overflow-wrap: anywhere">{reason}</p></body></html>"""

app = FastAPI(dependencies=[Depends(may_read_xcoms)], docs_url=None, redoc_url=None, openapi_url=None)
app.include_router(report_router)
app.include_router(job_router)


@app.exception_handler(PageError)
def nothing(request: Request, error: PageError) -> HTMLResponse:
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
