"""The deletion guard in a real Airflow: approved, refused, timed out, answered at once and after a clear."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from include.rag.deletions import KEEP
from local.airflow import LocalAirflow
from local.client import Client
from local.home import PROJECT
from tests.real_airflow import QUIET_S, answer, clear, home_with_database, question_place

pytestmark = pytest.mark.airflow

DAG = "approval_dag"
DEADLINE_S = 180
"""Until a test gives up on something that should happen."""
HOSTILE = ["{{ 7 * 7 }}.md", "{% include 'x' %}", "[click](https://evil.example)", "```", "<img src=x>"]
MANY = [[f"id-{n}", f"guide-{n}.md"] for n in range(5)]


@dataclass
class Run:
    """One run of the DAG over one listing."""

    airflow: LocalAirflow
    client: Client
    listing: Path
    run_id: str = ""
    asked_at: float = field(default=0.0)

    def list(self, rows: list[list[str]]) -> None:
        self.listing.write_text(json.dumps(rows))

    def start(self, rows: list[list[str]], hours: float = 1.0) -> Run:
        self.list(rows)
        conf = {"root": self.listing.parent.as_uri(), "listing": str(self.listing), "hours": hours}
        self.run_id = self.client.trigger(self.client.dag(DAG), conf)
        return self

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            self.airflow.check_alive()
            assert time.monotonic() < deadline, f"{what} not within {DEADLINE_S} s: {self.states()}"
            time.sleep(0.3)

    def task(self, task_id: str) -> dict[str, Any]:
        [task] = [one for one in self.client.task_instances(DAG, self.run_id) if one["task_id"] == task_id]
        return task

    def states(self) -> dict[str, str]:
        return {task["task_id"]: task["state"] for task in self.client.task_instances(DAG, self.run_id)}

    def question(self, attempt: int = 1) -> dict[str, Any]:
        """What Airflow shows, once the attempt waits."""

        def waits() -> bool:
            task = self.task("approve")
            return bool(task["state"] == "awaiting_input" and task["try_number"] >= attempt)

        self.wait(waits, f"question of attempt {attempt}")
        self.asked_at = time.monotonic()
        return dict(self.client.get(self._place()))

    def answer(self, option: str, *, at_once: bool = False) -> None:
        if not at_once:
            self.wait(lambda: time.monotonic() > self.asked_at + QUIET_S, "a quiet moment")
        answer(self.client, self._place(), option, params_input={"no such": ["field"]})

    def clear(self, *task_ids: str, downstream: bool) -> None:
        clear(self.client, DAG, self.run_id, *task_ids, downstream=downstream)

    def end(self) -> tuple[dict[str, Any], list[str]]:
        """What was decided, and what the commit deleted."""
        self.wait(lambda: self.client.run_state(DAG, self.run_id) in ("success", "failed"), "the end")
        assert self.client.run_state(DAG, self.run_id) == "success", self.states()
        return self.client.xcom(DAG, self.run_id, "settle"), self.client.xcom(DAG, self.run_id, "commit")

    def _place(self) -> str:
        return question_place(DAG, self.run_id, "approve")


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalAirflow, Client]]:
    home, dags = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("dags")
    (dags / "include").symlink_to(PROJECT / "include")
    (dags / ".airflowignore").write_text("include/\n")
    shutil.copy(Path(__file__).with_name("approval_dag.py"), dags)
    with (
        LocalAirflow(home=home_with_database(home), dags=dags, plugins=dags / "none", port=0) as airflow,
        airflow.client() as client,
    ):
        yield airflow, client


@pytest.fixture
def run(airflow: tuple[LocalAirflow, Client], tmp_path: Path) -> Run:
    return Run(*airflow, tmp_path / "listing.json")


@pytest.fixture(scope="module")
def unanswered(airflow: tuple[LocalAirflow, Client], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Started before all others, since the scheduler looks only every 15 s for questions that nobody answered."""
    return Run(*airflow, tmp_path_factory.mktemp("unanswered") / "listing.json").start(MANY, hours=2 / 3600)


@pytest.mark.usefixtures("unanswered")
def test_approved(run: Run) -> None:
    rows = [[f"id-{n}", name] for n, name in enumerate(HOSTILE)]
    question = run.start(rows).question()
    assert question["subject"].startswith("Delete 5 of 20 documents from index handbook? (list ")
    for name in HOSTILE:
        assert f"\n{name}\n" in question["body"], "a name is shown as it is, never rendered"
    assert "49" not in question["body"]
    assert question["params"] == {}
    assert run.task("commit")["state"] is None
    run.answer(question["options"][0])
    decision, deleted = run.end()
    assert decision["why"] == f"admin answered {question['options'][0]!r}"
    assert (decision["deleted"], decision["held"]) == (5, 0)
    assert deleted == [doc_id for doc_id, _ in rows]


@pytest.mark.slow
def test_few_deletions_are_not_asked_about(run: Run) -> None:
    decision, deleted = run.start(MANY[:4]).end()
    assert run.states() == {"guard": "success", "approve": "skipped", "settle": "success", "commit": "success"}
    assert (decision["deleted"], len(deleted)) == (4, 4)


@pytest.mark.slow
def test_refused_then_approved_after_a_clear(run: Run) -> None:
    question = run.start(MANY).question()
    run.answer(KEEP)
    decision, deleted = run.end()
    assert (decision["why"], decision["held"], deleted) == (f"admin answered {KEEP!r}", 5, [])

    run.clear("guard", downstream=True)
    again = run.question(attempt=2)
    assert (again["subject"], again["options"]) == (question["subject"], question["options"])
    run.answer(again["options"][0])
    decision, deleted = run.end()
    assert (decision["deleted"], len(deleted)) == (5, 5)


@pytest.mark.slow
def test_after_a_clear_another_list_is_not_asked_about_since_the_first_would_be_shown(run: Run) -> None:
    run.start(MANY).question()
    run.list([*MANY, ["id-9", "the-one-that-matters.md"]])
    run.clear("guard", downstream=True)
    decision, deleted = run.end()
    assert run.task("approve")["state"] == "skipped"
    assert "this run asked about another list before" in decision["why"]
    assert (decision["held"], deleted) == (6, [])


@pytest.mark.slow
def test_an_answer_to_a_question_about_another_list_deletes_nothing(run: Run) -> None:
    question = run.start(MANY).question()
    run.list([*MANY, ["id-9", "the-one-that-matters.md"]])
    run.clear("guard", downstream=False)
    run.wait(lambda: (run.task("guard")["try_number"], run.task("guard")["state"]) == (2, "success"), "the other list")
    run.answer(question["options"][0])
    decision, deleted = run.end()
    assert (decision["held"], decision["deleted"], deleted) == (6, 0, [])


@pytest.mark.slow
def test_an_answer_that_comes_at_once_is_taken_or_asked_for_again(run: Run) -> None:
    option = run.start(MANY).question()["options"][0]
    run.answer(option, at_once=True)
    tries = 1
    while True:
        run.wait(lambda: run.states()["commit"] == "success" or run.states()["approve"] == "awaiting_input", "an end")
        if run.states()["commit"] == "success":
            break
        tries += 1
        assert run.question(attempt=tries)["options"][0] == option
        run.answer(option)
    decision, deleted = run.end()
    assert (decision["deleted"], len(deleted)) == (5, 5)


def test_nobody_answers(unanswered: Run) -> None:
    decision, deleted = unanswered.end()
    assert decision["why"].startswith("nobody answered within 0.000")
    assert (decision["held"], deleted) == (5, [])
