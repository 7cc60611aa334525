"""The addresses that the buttons lead to."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from airflow.sdk.types import TaskInstanceKey
from fmops_plugins import airflow_internals
from fmops_plugins.links import JobLink, ReportLink

from include.jobs.operator import XCOM_KEY

RUN = "manual__2026-01-01T00:00:00+00:00 & #1"
KEY = TaskInstanceKey(dag_id="d", task_id="quality.évaluate", run_id=RUN, try_number=1, map_index=2)
PLACE = {"dag_id": "d", "run_id": RUN, "task_id": "quality.évaluate", "map_index": 2}
LINKS = [(ReportLink, "report_uri", "file:///r.html"), (JobLink, "job_place", {"backend": "local"})]


@pytest.mark.parametrize(("link", "asks", "found"), LINKS)
@pytest.mark.parametrize(
    ("base_url", "below"),
    [("http://localhost:8080", "/fmops"), ("https://example.org/airflow/", "/airflow/fmops"), ("/", "/fmops")],
)
def test_it_names_the_task_instance_below_airflows_own_address(
    monkeypatch: pytest.MonkeyPatch, base_url: str, below: str, link: Any, asks: str, found: Any
) -> None:
    asked = []
    monkeypatch.setattr(airflow_internals, asks, lambda **place: asked.append(place) or found)
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base_url)
    address = urlsplit(link().get_link(None, ti_key=KEY))
    assert (address.scheme, address.netloc, address.path) == ("", "", f"{below}/{link.name.lower()}")
    assert dict(parse_qsl(address.query)) == {name: str(value) for name, value in PLACE.items()}
    assert asked == [PLACE]


@pytest.mark.parametrize(("link", "asks", "found"), LINKS)
def test_there_is_no_address_where_there_is_nothing_to_show(
    monkeypatch: pytest.MonkeyPatch, link: Any, asks: str, found: Any
) -> None:
    monkeypatch.setattr(airflow_internals, asks, lambda **place: None)
    assert link().get_link(None, ti_key=KEY) == ""


def test_the_page_looks_for_the_xcom_that_the_operator_writes() -> None:
    assert airflow_internals.JOB_KEY == XCOM_KEY
