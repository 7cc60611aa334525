"""What the launcher reads from Airflow of a run that it prints, and the list of those that it prints."""

from __future__ import annotations

import pytest

from include.callbacks import failure_line
from local.home import PROJECT
from local.workflows import WORKFLOWS, Outcome, Workflow
from tests.local.fake_api import FakeApi, task


class Instance:
    """What a failed task's callback sees."""

    dag_id, run_id, task_id, try_number, map_index = "d", "r", "release.gate", 1, -1
    log_url = "http://airflow/dags/d/runs/r/tasks/release.gate"


def outcome(api: FakeApi, *tasks: str) -> Outcome:
    with api.client() as client:
        workflow = Workflow(tasks=tasks, show=lambda _outcome: None)
        return workflow.outcome(client, "d", "r", succeeded=False, seconds=3.0)


def test_results_of_tasks_that_succeeded_are_read_and_no_others() -> None:
    tasks = [task("a", "success"), task("b", "skipped"), task("c", "success")]
    api = FakeApi(tasks=tasks, xcoms={"a": {"uri": "u"}, "b": 1, "c": 2})
    assert outcome(api, "a", "b").results == {"a": {"uri": "u"}}


def test_a_failed_task_has_the_reason_that_its_last_line_gives() -> None:
    line = failure_line({"ti": Instance(), "exception": ValueError("refused: 1.7 is not\nbelow 1.6; see x")})
    logs = [{"event": "FAILED to guess"}, {"event": line}]
    tasks = [task("shard", "failed", map_index=0), task("shard", "failed", map_index=1), task("end", "upstream_failed")]
    found = outcome(FakeApi(tasks=tasks, logs=logs))
    assert found.failures == {"shard": "ValueError: refused: 1.7 is not below 1.6; see x"}
    assert not found.succeeded and found.seconds == 3.0


@pytest.mark.parametrize("logs", [[], [{"event": "Killed"}]])
def test_a_task_that_died_without_a_word_points_to_its_log(logs: list[dict[str, str]]) -> None:
    found = outcome(FakeApi(tasks=[task("t", "failed")], logs=logs))
    assert found.failures == {"t": "its log, whose end stands above, tells why"}


@pytest.mark.parametrize(
    ("dag_id", "task_id"), [(dag_id, one) for dag_id in WORKFLOWS for one in WORKFLOWS[dag_id].tasks]
)
def test_what_is_printed_comes_from_tasks_that_the_dag_has(dag_id: str, task_id: str) -> None:
    (file,) = (PROJECT / "dags").glob(f"*/{dag_id}.py")
    group, name = task_id.split(".")
    text = file.read_text()
    assert f'group_id="{group}"' in text
    assert f"def {name}(" in text or f'task_id="{name}"' in text
