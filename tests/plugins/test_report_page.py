"""The report page without Airflow's guard and database: which files it shows, and what it says where it shows none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from fastapi.testclient import TestClient
from fmops_plugins import report_files
from fmops_plugins.airflow_internals import may_read_xcoms, report_uri
from fmops_plugins.pages import app
from httpx import Response

REPORT = "<!doctype html><p>recall 0.93 – good</p>"
PLACE = {"dag_id": "d", "run_id": "manual__2026-01-01T00:00:00+00:00", "task_id": "quality.evaluate"}


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], Response]:
    """The page of a task instance that returned this URI, for a user who may read it."""
    client = TestClient(app)

    def get(uri: str | None) -> Response:
        monkeypatch.setitem(app.dependency_overrides, may_read_xcoms, lambda: None)
        monkeypatch.setitem(app.dependency_overrides, report_uri, lambda: uri)
        return client.get("/report", params=PLACE)

    return get


@pytest.fixture
def folder(root: str) -> Path:
    """The storage root's folder, with one report in it, and one beside it."""
    inside = Path(root.removeprefix("file://"))
    (inside / "runs").mkdir(parents=True)
    (inside / "runs" / "retrieval.html").write_text(REPORT)
    (inside.parent / "outside.html").write_text("not yours")
    return inside


def test_a_report_is_shown_as_it_lies_there(show: Callable[[str | None], Response], folder: Path) -> None:
    response = show(f"file://{folder}/runs/retrieval.html")
    assert (response.status_code, response.text) == (200, REPORT)
    assert response.headers["content-type"] == "text/html; charset=utf-8"


def test_every_answer_forbids_scripts_loads_and_caching(show: Callable[[str | None], Response], folder: Path) -> None:
    for uri in (f"file://{folder}/runs/retrieval.html", None):
        headers = show(uri).headers
        policy = headers["content-security-policy"].split("; ")
        assert {"default-src 'none'", "img-src data:", "frame-ancestors 'self'", "sandbox"} <= set(policy)
        assert not any(part.startswith("script-src") for part in policy)
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "private, no-store"


@pytest.mark.parametrize(
    "uri",
    [
        "file://{root}/../outside.html",
        "file://{root}/runs/../../outside.html",
        "file://{root}/runs/../runs/retrieval.html",
        "file://{root}-other/retrieval.html",
        "file:///etc/passwd",
        "file://{root}/runs/manifest.json",
        "file://{root}/runs/link.html",
        "file://{root}/runs/data.html",
        "file://{root}/gone/retrieval.html",
        "file://{root}/folder.html",
        "file://{root}/pipe.html",
        "file://{root}/runs/retrieval.html\x00.html",
        "{root}/runs/retrieval.html",
        "s3://bucket/runs/retrieval.html",
        "memory://runs/retrieval.html",
        "http://127.0.0.1/retrieval.html",
        "",
    ],
)
def test_whatever_else_a_uri_names_is_refused(show: Callable[[str | None], Response], folder: Path, uri: str) -> None:
    (folder / "runs" / "manifest.json").write_text("{}")
    (folder / "runs" / "link.html").symlink_to(folder.parent / "outside.html")
    (folder / "runs" / "data.html").symlink_to(folder / "runs" / "manifest.json")
    (folder / "gone").symlink_to(folder.parent)
    (folder / "folder.html").mkdir()
    os.mkfifo(folder / "pipe.html")
    other = folder.with_name(f"{folder.name}-other")
    other.mkdir()
    (other / "retrieval.html").write_text("not yours")
    response = show(uri.format(root=folder))
    assert response.status_code == 403
    assert "is not an HTML file below the storage root" in response.text
    assert "not yours" not in response.text


def test_links_that_stay_below_the_root_are_followed(
    show: Callable[[str | None], Response], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "latest").symlink_to(folder / "runs")
    (folder.parent / "root").symlink_to(folder)
    monkeypatch.setenv("FMOPS_STORAGE_ROOT", f"file://{folder.parent}/root/")
    assert show(f"file://{folder}/latest/retrieval.html").text == REPORT


def test_a_report_that_is_gone_is_404_and_one_that_cannot_be_read_502(
    show: Callable[[str | None], Response], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = show(f"file://{folder}/runs/gone.html")
    assert (gone.status_code, "There is no report at" in gone.text) == (404, True)
    unreadable = show(f"file://{folder}/{'x' * 300}.html")  # longer than a file system takes
    assert (unreadable.status_code, "File name too long" in unreadable.text) == (502, True)
    monkeypatch.setattr(report_files, "MAX_BYTES", len(REPORT.encode()))
    assert show(f"file://{folder}/runs/retrieval.html").status_code == 200
    monkeypatch.setattr(report_files, "MAX_BYTES", len(REPORT.encode()) - 1)
    large = show(f"file://{folder}/runs/retrieval.html")
    assert (large.status_code, "larger than" in large.text) == (502, True)


def test_a_task_without_a_report_says_so(show: Callable[[str | None], Response], folder: Path) -> None:
    response = show(None)
    assert (response.status_code, "This task instance has no report" in response.text) == (404, True)


def test_what_a_uri_holds_is_shown_as_text(show: Callable[[str | None], Response], folder: Path) -> None:
    response = show("file:///<script>alert(1)</script>.html")
    assert response.status_code == 403
    assert "<script>" not in response.text
    assert "&lt;script&gt;" in response.text


def test_the_root_is_the_projects_variable_then_airflows_option(
    show: Callable[[str | None], Response], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"file://{folder}/runs/retrieval.html"
    monkeypatch.setenv("AIRFLOW__FMOPS__STORAGE_ROOT", f"file://{folder}/elsewhere")
    assert show(uri).status_code == 200
    monkeypatch.delenv("FMOPS_STORAGE_ROOT")
    assert show(uri).status_code == 403
    monkeypatch.setenv("AIRFLOW__FMOPS__STORAGE_ROOT", f"file://{folder}/")
    assert show(uri).status_code == 200
    monkeypatch.delenv("AIRFLOW__FMOPS__STORAGE_ROOT")
    unknown = show(uri)
    assert (unknown.status_code, "set FMOPS_STORAGE_ROOT" in unknown.text) == (503, True)


def test_an_address_that_lacks_something_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(app.dependency_overrides, may_read_xcoms, lambda: None)
    response = TestClient(app).get("/report", params={"dag_id": "d", "task_id": "t", "map_index": "first"})
    assert response.status_code == 422
    assert "run_id: Field required" in response.text
    assert "map_index: Input should be a valid integer" in response.text


def test_nobody_is_shown_anything_without_logging_in() -> None:
    response = TestClient(app).get("/report", params=PLACE)
    assert (response.status_code, "You are not logged in" in response.text) == (401, True)
    assert [TestClient(app).get(path).status_code for path in ("/docs", "/redoc", "/openapi.json")] == [404, 404, 404]


def test_reports_in_s3(
    show: Callable[[str | None], Response], s3_root: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FMOPS_STORAGE_ROOT", s3_root)
    bucket = fsspec.filesystem("s3", endpoint_url=s3_endpoint)
    bucket.pipe(f"{s3_root}/runs/a b#?&ü/retrieval.html", REPORT.encode())
    bucket.pipe(f"{s3_root}-other/retrieval.html", b"not yours")
    bucket.pipe(f"{s3_root}/runs/manifest.json", b"not a report")
    assert show(f"{s3_root}/runs/a b#?&ü/retrieval.html").text == REPORT
    assert show(f"{s3_root}/runs/gone.html").status_code == 404
    others = [f"{s3_root}-other/retrieval.html", f"{s3_root}/../retrieval.html", f"{s3_root}/runs/manifest.json"]
    for uri in [*others, "file:///etc/x.html"]:
        assert show(uri).status_code == 403
    monkeypatch.setenv("FMOPS_STORAGE_ROOT", "s3://no-such-bucket")
    assert show("s3://no-such-bucket/x.html").status_code == 404


def test_s3_that_cannot_be_reached_is_502(
    show: Callable[[str | None], Response], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FMOPS_STORAGE_ROOT", "s3://bucket")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    response = show("s3://bucket/x.html")
    assert (response.status_code, "cannot be read" in response.text) == (502, True)
