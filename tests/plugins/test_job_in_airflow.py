"""The job page, its button and the pool in a whole Airflow."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from local.watch import follow
from tests.plugins.job_folders import make
from tests.plugins.whole import Run, Whole

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

DAG = "jobs"
STATES = {"running": "running", "deferred": "running", "done": "succeeded", "failed": "failed"}
"""Of the jobs, by the task that tells of it."""


def until(met: Callable[[], bool]) -> None:
    """Wait; AssertionError if it is never so."""
    limit = time.monotonic() + 180
    while not met():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def begun(whole: Whole) -> Run:
    """A run of which one task runs and one is deferred, while others have ended."""
    for task_id, state in STATES.items():
        make(whole.storage / "jobs", f"{task_id}-g1", state, dag_id=DAG)
    run = Run(whole, DAG, whole.client.trigger(whole.client.dag(DAG), {}))
    wanted = {"running": "running", "deferred": "deferred", "done": "success", "failed": "failed", "none": "success"}
    until(lambda: {task_id: run.state(task_id) for task_id in wanted} == wanted)
    return run


def test_the_pool_of_jobs_is_there_and_counts_deferred_tasks(whole: Whole) -> None:
    pool = whole.client.get("/pools/jobs")
    assert (pool["slots"], pool["include_deferred"]) == (2, True), "as airflow.env has it"


def test_whatever_state_a_task_is_in_its_button_leads_to_its_job(whole: Whole, begun: Run) -> None:
    until(lambda: begun.links("running")["Job"] is not None)  # the task tells of it after it has begun
    for task_id, state in STATES.items():
        link = begun.links(task_id)["Job"]
        assert link is not None, task_id
        page = whole.page(link)
        assert page.status_code == 200, task_id
        assert f"<title>{state}: {task_id}-g1</title>" in page.text
        assert ("refresh" in page.headers) == (state == "running"), task_id


def test_a_task_that_tells_of_no_job_has_no_button_and_its_page_says_so(whole: Whole, begun: Run) -> None:
    assert begun.links("none") == {"Report": None, "Job": None}
    page = whole.page(begun.address("job", "none"))
    assert (page.status_code, "This task instance has no job" in page.text) == (404, True)


def test_only_who_may_read_the_dag_is_shown_its_jobs(whole: Whole, begun: Run) -> None:
    found = {user: whole.page(begun.address("job", "done"), user) for user in ("admin", "viewer", "guest", None)}
    codes = {user: page.status_code for user, page in found.items()}
    assert codes == {"admin": 200, "viewer": 200, "guest": 403, None: 401}
    assert "done-g1" not in found["guest"].text + found[None].text


def test_the_buttons_stay_when_the_run_has_ended(whole: Whole, begun: Run) -> None:
    (whole.storage / "go").touch()
    assert follow(whole.client, DAG, begun.run_id, check_alive=whole.airflow.check_alive) == "failed"
    assert {task_id: begun.state(task_id) for task_id in ("running", "deferred")} == {
        "running": "success",
        "deferred": "success",
    }
    assert None not in [begun.links(task_id)["Job"] for task_id in STATES]
