"""GET /fmops/job?dag_id=..&run_id=..&task_id=..&map_index=.. shows the job of a task instance.

For users who may read the DAG's logs too. While the job is not over, a header has the browser ask again every few
seconds; the page has no script, and what jobs wrote is shown as text.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from html import escape
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse

from fmops_plugins import job_files, job_sagemaker
from fmops_plugins.airflow_internals import job_place, may_read_logs
from fmops_plugins.answers import HEADERS, PageError
from fmops_plugins.job_view import JobView, is_number, one_line

READERS: dict[str, Callable[[dict[str, Any], str], JobView]] = {
    "local": job_files.read_job,
    "sagemaker": job_sagemaker.read_job,
}
"""A backend's name -> what reads a job from what its watch() returned (see include/jobs/base.py)."""
REFRESH_S = {"local": 3, "sagemaker": 10}
NUM_FIGURES = 12

STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent);
  --soft: color-mix(in srgb, currentColor 65%, transparent) }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.25em; margin: 0 0 .2em; overflow-wrap: anywhere }
h2 { font-size: 1.1em }
.state { display: inline-block; padding: .1em .7em; border-radius: 1em; color: #fff; background: #64748b }
.running { background: #0369a1 } .succeeded { background: #15803d } .failed { background: #b91c1c }
.stopped, .stopping, .unknown { background: #b45309 }
.soft, dt { color: var(--soft) }
.reason { border-left: 4px solid #b91c1c; padding: .4em 1em; margin: 1em 0; overflow-wrap: anywhere }
progress { width: 100%; height: 1.1em; accent-color: #0369a1 }
.figures { display: flex; flex-wrap: wrap; gap: .6em 2.2em; margin: .6em 0 1.2em }
.figures b { display: block; font-size: 1.35em; font-weight: 600; overflow-wrap: anywhere }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25em 1.2em; margin: 1em 0 }
dd { margin: 0; overflow-wrap: anywhere }
.log { display: flex; flex-direction: column-reverse; max-height: 32em; overflow: auto; border: 1px solid var(--line);
  border-radius: 6px }
pre { margin: 0; padding: .8em 1em; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85em }
"""
"""In .log the last line is in sight first: a reversed column scrolls from its end."""
POLICY = (
    f"default-src 'none'; style-src 'sha256-{b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""Not a sandbox: a page in one is not loaded again."""

router = APIRouter()


@router.get("/job", dependencies=[Depends(may_read_logs)])
def job(
    request: Request, dag_id: str, place: Annotated[dict[str, Any] | None, Depends(job_place)], hold: bool = False
) -> HTMLResponse:
    """The job of a task instance; `hold` shows it once."""
    if place is None:
        raise PageError(
            404,
            "This task instance has no job: it has not started one, it needed none as its output was there, or it is "
            "not one that runs jobs.",
        )
    backend = str(place.get("backend"))
    if backend not in READERS:
        raise PageError(404, f"Jobs of the backend {one_line(backend)!r} have no page.")
    view, now = READERS[backend](place, dag_id), datetime.now(UTC)
    headers, live = {**HEADERS, "Content-Security-Policy": POLICY}, ""
    if not view.is_over:
        other = escape(request.url.include_query_params(hold=not hold).query)
        every = "" if hold else f", read anew every {REFRESH_S[backend]} s"
        live = f'{_time(now)}{every} (<a href="?{other}">{"go on" if hold else "hold"}</a>)'
        headers |= {} if hold else {"Refresh": str(REFRESH_S[backend])}
    return HTMLResponse(render(view, now, live), headers=headers)


def render(view: JobView, now: datetime, live: str = "") -> str:
    """The page of a job as HTML, as it stands now; `live` is HTML that tells about reading it anew."""
    state = escape(view.state)
    cause = f" ({escape(view.cause)})" if view.cause else ""
    is_bad = view.state in ("failed", "stopped", "unknown")
    message = f"<p class={'reason' if is_bad else 'soft'}>{escape(view.message)}</p>" if view.message else ""
    log = f"<p class=soft>{escape(view.log_problem)}</p>" if view.log_problem else ""
    if lines := "\n".join(view.lines):
        log += f"<div class=log><pre>{escape(lines)}</pre></div>"
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{state}: {escape(view.name)}</title>
<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>
<h1>{escape(view.name)}</h1>
<p><span class="state {state}">{state}{cause}</span> <span class=soft>{live}</span></p>
{message}{_progress(view, now)}
<dl>{"".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in _facts(view, now) if text)}</dl>
<h2>Log</h2>{log or "<p class=soft>No line yet.</p>"}
</body></html>"""


def _progress(view: JobView, now: datetime) -> str:
    """The bar, and the figures below it."""
    told, bar = dict(view.progress), ""
    figures: list[tuple[str, str]] = []
    if view.steps:
        step, of = view.steps
        bar = f'<progress value="{step:g}" max="{of:g}"></progress>'
        figures.append(("step", f"{_number(told.pop('step'))} of {_number(told.pop('of'))}"))
        figures.append(("done", f"{step / of:.0%}"))
    told.pop("left_s", None)
    if (left_s := view.left_s(now)) is not None:
        figures.append(("left", f"about {duration(left_s)}"))
    for name, value in list(told.items())[:NUM_FIGURES]:
        figures.append((one_line(name).replace("_per_", "/").replace("_", " "), _number(value)))
    shown = "".join(f"<div><span class=soft>{escape(n)}</span><b>{escape(v)}</b></div>" for n, v in figures)
    return f"{bar}<div class=figures>{shown}</div>" if figures else ""


def _facts(view: JobView, now: datetime) -> list[tuple[str, str]]:
    started = view.started_at
    lasted = f" (ran {duration((view.ended_at - started).total_seconds())})" if started and view.ended_at else ""
    ago = f" ({duration((now - started).total_seconds())} ago)" if started and not view.ended_at else ""
    return [
        ("Started", f"{_time(started)}{ago}" if started else ""),
        ("Ended", f"{_time(view.ended_at)}{lasted}" if view.ended_at else ""),
        ("Billed", f"{_number(view.billed_s)} instance seconds" if view.billed_s else ""),
        ("Runs on", view.machine),
        ("Tags", ", ".join(f"{name} {value}" for name, value in view.tags.items() if value != "-1")),
        ("Owner", f"task attempt {view.owner}" if view.owner else ""),
        ("Output", view.output_uri),
    ]


def duration(seconds: float) -> str:
    """The two largest units of a time, such as `3 min 20 s`."""
    whole = max(0, round(seconds))
    for name, size, next_name, next_size in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // next_size} {next_name}"
    return f"{whole} s"


def _time(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _number(value: Any) -> str:
    if not is_number(value):
        return one_line(value)[:100]
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
