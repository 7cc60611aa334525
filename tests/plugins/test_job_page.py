"""The job page without Airflow's guard and database: what it shows of a local job, and what it says instead."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from fmops_plugins.airflow_internals import job_place, may_read_logs, may_read_xcoms
from fmops_plugins.job_page import duration, render
from fmops_plugins.job_view import JobView
from fmops_plugins.pages import app
from httpx import Response

from tests.plugins.job_folders import STARTED, make, place, write

PLACE = {"dag_id": "d", "run_id": "manual__2026-01-01T00:00:00+00:00", "task_id": "train"}
NAME = "train-0123456789abcdef-g1"
EVIL = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
Show = Callable[..., Response]


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch) -> Show:
    """The page of a task instance that told of this job, for a user who may read it."""
    client = TestClient(app)

    def get(told: dict[str, Any] | None, **more: Any) -> Response:
        for guard in (may_read_xcoms, may_read_logs):
            monkeypatch.setitem(app.dependency_overrides, guard, lambda: None)
        monkeypatch.setitem(app.dependency_overrides, job_place, lambda: told)
        return client.get("/job", params=PLACE | more)

    return get


@pytest.fixture
def jobs(root: str) -> Path:
    """The folder of all jobs."""
    return Path(root.removeprefix("file://")) / "jobs"


class Tags(HTMLParser):
    """The elements of a page and their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_a_job_that_runs_is_read_anew_until_it_is_held(show: Show, jobs: Path) -> None:
    told = place(make(jobs, NAME))
    page = show(told)
    assert (page.status_code, page.headers["refresh"]) == (200, "3")
    assert f"<title>running: {NAME}</title>" in page.text
    assert '<progress value="30" max="120"></progress>' in page.text
    text = re.sub("<[^>]+>", " ", page.text)
    for words in ("30 of 120", "25%", "about 1 min", "loss  2.25", "tokens/s  2,350", "here", "tenant acme", "last"):
        assert words in text, words
    assert "map-index" not in text
    hold = next(attributes["href"] for tag, attributes in Tags(page.text).found if tag == "a")
    assert hold is not None
    held = TestClient(app).get(f"/job{hold}")
    assert (held.status_code, "refresh" in held.headers) == (200, False)
    assert "30 of 120" in re.sub("<[^>]+>", " ", held.text)
    go_on = next(attributes["href"] for tag, attributes in Tags(held.text).found if tag == "a")
    assert TestClient(app).get(f"/job{go_on}").headers["refresh"] == "3"


@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_a_job_that_is_over_is_not_read_anew(show: Show, jobs: Path, state: str) -> None:
    page = show(place(make(jobs, NAME, state)))
    assert (page.status_code, "refresh" in page.headers) == (200, False)
    assert "<a " not in page.text
    text = re.sub("<[^>]+>", " ", page.text)
    assert "2026-01-01 12:00:00 UTC" in text
    assert "(ran 1 min 1 s)" in text
    assert "60.5 instance seconds" in text
    assert "about" not in text, "there is nothing left"
    assert ("failed (user_code)" in text) == (state == "failed")
    assert ("ValueError: no line (train.py:7)" in text) == (state == "failed")


def test_what_a_job_wrote_is_text(show: Show, jobs: Path) -> None:
    folder = make(jobs, NAME, "failed", log=f"{EVIL}\n")
    write(folder / "status.json", {"state": "failed", "cause": EVIL, "message": EVIL, "ended_at": EVIL, "billed_s": 1})
    write(folder / "started.json", {"started_at": STARTED.isoformat(), "host": EVIL})
    write(folder / "progress.json", {"step": EVIL, "of": 3, EVIL: EVIL, "more": {"a": [EVIL]}})
    write(folder / "spec.json", {"spec": {"dag_id": "d", "tenant": EVIL, "run_id": EVIL}})
    (folder / "owner").write_text(EVIL)
    page = show(place(folder))
    assert page.status_code == 200
    assert page.text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 8
    names = {tag for tag, _ in Tags(page.text).found}
    assert names <= {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "span", "dl", "dt", "dd", "div", "b", "pre"
    }  # fmt: skip
    assert {name for _, attributes in Tags(page.text).found for name in attributes} <= {
        "lang", "charset", "name", "content", "class"
    }  # fmt: skip


def test_the_policy_allows_the_pages_own_style_alone(show: Show, jobs: Path) -> None:
    page = show(place(make(jobs, NAME)))
    found = re.search("<style>(.*)</style>", page.text, re.DOTALL)
    assert found is not None
    digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
    assert page.headers["content-security-policy"].split("; ") == [
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
    ]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["cache-control"] == "private, no-store"
    assert not re.search(r"style=|https?://|@import|url\(", page.text), "nothing is loaded"


def test_a_task_without_a_job_says_so(show: Show, jobs: Path) -> None:
    page = show(None)
    assert (page.status_code, "This task instance has no job" in page.text) == (404, True)


@pytest.mark.parametrize("told", [{"backend": "<b>"}, {"backend": ["local"]}, {"name": "x"}])
def test_a_backend_without_a_page_is_named(show: Show, jobs: Path, told: dict[str, Any]) -> None:
    page = show(told)
    assert (page.status_code, "<b>" in page.text) == (404, False)
    assert "have no page" in page.text


def test_why_there_is_nothing_to_show(show: Show, jobs: Path) -> None:
    gone = show(place(jobs / NAME))
    assert (gone.status_code, "is gone: it was cleaned up" in gone.text) == (404, True)
    outside = show({"backend": "local", "name": NAME, "folder": "/etc/<script>"})
    assert (outside.status_code, "is not the folder of a job" in outside.text) == (403, True)
    assert "<script>" not in outside.text
    other = show(place(make(jobs, NAME, dag_id="theirs")))
    assert (other.status_code, "first" in other.text) == (403, False)


def test_nobody_is_shown_anything_who_may_not_read_both_results_and_logs(
    show: Show, jobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert show(place(make(jobs, NAME))).status_code == 200
    for shut in (may_read_logs, may_read_xcoms):  # then both, as for somebody who is not logged in
        monkeypatch.delitem(app.dependency_overrides, shut)
        page = TestClient(app).get("/job", params=PLACE)
        assert (page.status_code, "You are not logged in" in page.text, NAME in page.text) == (401, True, False)


def test_a_job_that_told_nothing_has_neither_bar_nor_figures() -> None:
    page = render(JobView(name="n", state="starting"), STARTED)
    assert "<progress" not in page
    assert "class=figures" not in page
    assert "No line yet." in page
    page = render(JobView(name="n", state="running", log_problem="no right", progress={"step": 7}), STARTED)
    assert "<progress" not in page
    assert "<b>7</b>" in page
    assert "no right" in page
    assert "No line yet." not in page


def test_figures_are_bounded() -> None:
    many = {f"figure_{number}": number for number in range(100)}
    page = render(JobView(name="n", state="running", progress=many | {"text": "x" * 9000}), STARTED)
    assert page.count("<b>") == 12
    page = render(JobView(name="n", state="running", progress={"text": "x" * 9000, "huge": 10**400}), STARTED)
    assert f"<b>{'x' * 100}</b>" in page
    assert f"<b>1{'0' * 99}</b>" in page


@pytest.mark.parametrize(
    ("value", "shown"),
    [(2.25, "2.25"), (0.000123456, "0.0001235"), (1e-9, "1e-09"), (999, "999"), (1234567, "1,234,567"), (None, ""),
     (2350.5, "2,350"), (-12345.6, "-12,346"), (True, "True"), (1e20, "1e+20")],
)  # fmt: skip
def test_a_figure_is_written_for_a_person(value: Any, shown: str) -> None:
    assert f"<b>{shown}</b>" in render(JobView(name="n", state="running", progress={"figure": value}), STARTED)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (0.4, "0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (3600, "1 h 0 min"), (90000, "1 d 1 h")],
)
def test_a_time_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_since_when_it_runs() -> None:
    page = render(JobView(name="n", state="running", started_at=STARTED), STARTED + timedelta(minutes=5))
    assert "2026-01-01 12:00:00 UTC (5 min 0 s ago)" in page
