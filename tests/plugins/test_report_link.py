"""The address that the button leads to."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest
from airflow.sdk.types import TaskInstanceKey
from fmops_plugins import airflow_internals
from fmops_plugins.report_link import ReportLink

RUN = "manual__2026-01-01T00:00:00+00:00 & #1"
KEY = TaskInstanceKey(dag_id="d", task_id="quality.évaluate", run_id=RUN, try_number=1, map_index=2)


@pytest.mark.parametrize(
    ("base_url", "path"),
    [
        ("http://localhost:8080", "/fmops/report"),
        ("https://example.org/airflow/", "/airflow/fmops/report"),
        ("/", "/fmops/report"),
    ],
)
def test_it_names_the_task_instance_below_airflows_own_address(
    monkeypatch: pytest.MonkeyPatch, base_url: str, path: str
) -> None:
    asked = []
    monkeypatch.setattr(airflow_internals, "report_uri", lambda *place: asked.append(place) or "file:///r.html")
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base_url)
    link = urlsplit(ReportLink().get_link(None, ti_key=KEY))
    assert (link.scheme, link.netloc, link.path) == ("", "", path)
    assert dict(parse_qsl(link.query)) == {
        "dag_id": "d",
        "run_id": RUN,
        "task_id": "quality.évaluate",
        "map_index": "2",
    }
    assert asked == [("d", RUN, "quality.évaluate", 2)]


def test_there_is_no_address_without_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(airflow_internals, "report_uri", lambda *place: None)
    assert ReportLink().get_link(None, ti_key=KEY) == ""
