"""The report page and its button in a whole Airflow: who gets them, and for which task instances."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from local.airflow import LocalAirflow
from local.client import Client
from local.home import PROJECT
from local.watch import follow

pytestmark = pytest.mark.airflow

DAG = "reports"


@dataclass
class Ran:
    """A run of the DAG of this folder that has ended, in an Airflow that goes on."""

    airflow: LocalAirflow
    client: Client
    run_id: str

    def links(self, task_id: str, map_index: int = -1) -> dict[str, str | None]:
        """The buttons of a task instance."""
        place = f"/dags/{DAG}/dagRuns/{self.run_id}/taskInstances/{task_id}/links"
        return dict(self.client.get(place, map_index=map_index)["extra_links"])

    def token(self, user: str) -> str:
        """A login as this user."""
        password = json.loads(self.airflow.home.password_file.read_text())[user]
        login = {"username": user, "password": password}
        response = httpx.post(f"{self.airflow.running.url}/auth/token", json=login, trust_env=False)
        return str(response.raise_for_status().json()["access_token"])

    def page(self, path: str, user: str | None = "admin") -> httpx.Response:
        """What this user's browser gets at a path; None for one that is not logged in."""
        cookies = {"_token": self.token(user)} if user else {}
        return httpx.get(f"{self.airflow.running.url}{path}", cookies=cookies, timeout=60, trust_env=False)

    def address(self, task_id: str) -> str:
        """The page of a task instance, as the button would name it."""
        path = f"/fmops/report?dag_id={DAG}&task_id={task_id}&map_index=-1"
        return str(httpx.URL(path).copy_merge_params({"run_id": self.run_id}))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    folder = tmp_path_factory.mktemp("reports")
    (folder / "dags").mkdir()
    shutil.copy(Path(__file__).with_name("report_dag.py"), folder / "dags")
    options = {
        "FMOPS_STORAGE_ROOT": f"file://{folder}/storage",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,guest:",  # a guest has no role, so no right
    }
    airflow = LocalAirflow(
        home=folder / "airflow", dags=folder / "dags", plugins=PROJECT / "plugins", port=0, options=options
    )
    with airflow, airflow.client() as client:
        run_id = client.trigger(client.dag(DAG), {})
        assert follow(client, DAG, run_id, check_alive=airflow.check_alive) == "success"
        yield Ran(airflow, client, run_id)


def test_the_plugin_loads(ran: Ran) -> None:
    assert ran.client.get("/plugins/importErrors")["total_entries"] == 0
    assert "fmops" in {plugin["name"] for plugin in ran.client.get("/plugins")["plugins"]}


def test_the_button_of_a_task_leads_to_its_report(ran: Ran) -> None:
    assert "+" in ran.run_id  # what a link gets wrong most easily
    link = ran.links("quality.evaluate")["Report"]
    assert link is not None
    page = ran.page(link)
    assert page.status_code == 200
    assert f"<h1>Retrieval of {ran.run_id}</h1>" in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'none'; ")
    assert ran.page(ran.address("quality.evaluate")).text == page.text


def test_each_mapped_task_has_its_own(ran: Ran) -> None:
    links = [ran.links("quality.part", map_index)["Report"] for map_index in (0, 1)]
    assert [ran.page(link).text for link in links if link] == ["part 1", "part 2"]


def test_a_task_without_a_report_has_no_button_and_its_page_says_so(ran: Ran) -> None:
    assert ran.links("quality.other") == {"Report": None}
    page = ran.page(ran.address("quality.other"))
    assert (page.status_code, "This task instance has no report" in page.text) == (404, True)


def test_a_report_outside_of_the_storage_root_is_refused(ran: Ran) -> None:
    page = ran.page(ran.address("quality.outside"))
    assert (page.status_code, "below the storage root" in page.text) == (403, True)


def test_only_who_may_read_the_dags_xcoms_is_shown_its_reports(ran: Ran) -> None:
    for task_id in ("quality.evaluate", "quality.other", "no-such-task"):
        anonymous, guest = (ran.page(ran.address(task_id), user) for user in (None, "guest"))
        assert (anonymous.status_code, "You are not logged in" in anonymous.text) == (401, True)
        assert (guest.status_code, "You may not read the results of this DAG" in guest.text) == (403, True)
