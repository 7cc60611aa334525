"""The report page and its button in a whole Airflow: who gets them, and for which task instances."""

from __future__ import annotations

import pytest

from local.watch import follow
from tests.plugins.whole import Run, Whole

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

DAG = "reports"


@pytest.fixture(scope="module")
def ran(whole: Whole) -> Run:
    """A run that has ended."""
    run_id = whole.client.trigger(whole.client.dag(DAG), {})
    assert follow(whole.client, DAG, run_id, check_alive=whole.airflow.check_alive) == "success"
    return Run(whole, DAG, run_id)


def test_the_plugin_loads(whole: Whole) -> None:
    assert whole.client.get("/plugins/importErrors")["total_entries"] == 0
    assert "fmops" in {plugin["name"] for plugin in whole.client.get("/plugins")["plugins"]}


def test_the_button_of_a_task_leads_to_its_report(whole: Whole, ran: Run) -> None:
    assert "+" in ran.run_id  # what a link gets wrong most easily
    link = ran.links("quality.evaluate")["Report"]
    assert link is not None
    page = whole.page(link)
    assert page.status_code == 200
    assert f"<h1>Retrieval of {ran.run_id}</h1>" in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'none'; ")
    assert whole.page(ran.address("report", "quality.evaluate")).text == page.text


def test_each_mapped_task_has_its_own(whole: Whole, ran: Run) -> None:
    links = [ran.links("quality.part", map_index)["Report"] for map_index in (0, 1)]
    assert [whole.page(link).text for link in links if link] == ["part 1", "part 2"]


def test_a_task_without_a_report_has_no_button_and_its_page_says_so(whole: Whole, ran: Run) -> None:
    assert ran.links("quality.other") == {"Report": None, "Job": None}
    page = whole.page(ran.address("report", "quality.other"))
    assert (page.status_code, "This task instance has no report" in page.text) == (404, True)


def test_a_report_outside_of_the_storage_root_is_refused(whole: Whole, ran: Run) -> None:
    page = whole.page(ran.address("report", "quality.outside"))
    assert (page.status_code, "below the storage root" in page.text) == (403, True)


def test_only_who_may_read_the_dags_xcoms_is_shown_its_reports(whole: Whole, ran: Run) -> None:
    for task_id in ("quality.evaluate", "quality.other", "no-such-task"):
        anonymous, guest = (whole.page(ran.address("report", task_id), user) for user in (None, "guest"))
        assert (anonymous.status_code, "You are not logged in" in anonymous.text) == (401, True)
        assert (guest.status_code, "You may not read the results of this DAG" in guest.text) == (403, True)
