"""Jobs in a real Airflow: its parts are killed, tasks are cleared and marked; jobs and processes are counted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.jobs.airflow_scene import Scene, scene

pytestmark = pytest.mark.airflow
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(tmp_path_factory.mktemp("jobs")) as found:
        yield found


def test_the_triggerer_needs_only_the_plugins(stage: Scene) -> None:
    run = stage.start("probe")
    assert run.end() == "success"
    assert stage.client.xcom("probe", run.run_id, "probe") == {"include": False, "jobs": False}
    run = stage.start("deferred", seconds=8)
    assert run.end() == "success", run.log()
    assert run.result()["metrics"]["seconds"] == 8


def test_text_of_a_spec_is_not_rendered(stage: Scene) -> None:
    run = stage.start("deferred", seconds=1, note="{{ 7 * 7 }}{% include 'x' %}")
    assert run.end() == "success", run.log()
    folder = stage.jobs / run.job()
    assert "{{ 7 * 7 }}{% include 'x' %}" in (folder / "spec.json").read_text()


@slow
def test_a_triggerer_is_killed(stage: Scene) -> None:
    run = stage.start("deferred")
    run.until_triggered()
    with stage.never_two():
        stage.kill("triggerer")
        stage.restart("triggerer")
        assert run.end() == "success", run.log()
    assert run.generations() == 1
    stage.none_left()


@slow
def test_a_deferred_task_is_cleared(stage: Scene) -> None:
    """The trigger's clean-up and the next attempt are not ordered: either way one job at a time, and a good end."""
    run = stage.start("deferred")
    run.until_triggered()
    with stage.never_two():
        run.clear()
        assert run.end() == "success", run.log()
    assert run.task()["try_number"] == 2
    assert run.generations() in (1, 2)
    stage.none_left()


@pytest.mark.parametrize("state", ["failed", pytest.param("success", marks=slow)])
def test_a_deferred_task_is_marked(stage: Scene, state: str) -> None:
    run = stage.start("deferred", seconds=300)
    run.until_triggered()
    folder = run.at_step(1)
    run.mark(state)
    stage.until((folder / "status.json").exists, "the job's end")
    assert '"state": "stopped"' in (folder / "status.json").read_text()
    assert run.end() == state
    stage.none_left()


@slow
def test_what_a_dead_triggerer_could_not_stop_is_swept(stage: Scene) -> None:
    waiting = stage.start("deferred", seconds=300)
    waiting.until_triggered()
    stage.kill("triggerer")
    left = stage.start("deferred", seconds=300)
    left.until("deferred")
    folder = left.at_step(1)
    left.mark("failed")
    assert left.end() == "failed"
    looked = stage.start("janitor", dry_run=True)
    assert looked.end() == "success"
    assert stage.client.xcom("janitor", looked.run_id, "sweep_jobs") == [
        f"{folder.name}: task job of run {left.run_id} of deferred is failed"
    ]
    assert not (folder / "stop").exists(), "it only looked"
    swept = stage.start("janitor")
    assert swept.end() == "success"
    stage.until((folder / "status.json").exists, "the job's end")
    assert waiting.task()["state"] == "deferred" and not (stage.jobs / waiting.job() / "status.json").exists()
    stage.restart("triggerer")
    waiting.mark("failed")
    stage.until((stage.jobs / waiting.job() / "status.json").exists, "the other job's end, by its trigger")
    stage.none_left()


@slow
def test_a_task_that_holds_its_slot_is_marked(stage: Scene) -> None:
    run = stage.start("inline", seconds=300)
    run.until("running")
    folder = run.at_step(1)
    run.mark("failed")
    stage.until((folder / "status.json").exists, "the job's end")
    assert '"state": "stopped"' in (folder / "status.json").read_text()
    assert run.end() == "failed"
    stage.none_left()


@slow
def test_a_task_that_holds_its_slot_is_cleared(stage: Scene) -> None:
    run = stage.start("inline")
    folder = run.at_step(4)
    with stage.never_two():
        run.clear()
        assert run.end() == "success", run.log()
    assert (folder / "status.json").exists() and run.generations() in (1, 2)
    stage.none_left()


@slow
def test_the_run_times_out(stage: Scene) -> None:
    run = stage.start("run_timeout", seconds=300)
    folder = run.at_step(1)
    assert run.end() == "failed"
    stage.until((folder / "status.json").exists, "the job's end")
    assert '"state": "stopped"' in (folder / "status.json").read_text()
    assert run.generations() == 1
    stage.none_left()


@slow
def test_a_task_that_holds_its_slot_times_out(stage: Scene) -> None:
    run = stage.start("timeout_inline", seconds=300)
    assert run.end() == "failed"
    assert all('"state": "stopped"' in (f / "status.json").read_text() for f in [stage.jobs / run.job()])
    stage.none_left()


@slow
@pytest.mark.parametrize("dag_id", ["inline", "deferred"])
def test_the_scheduler_is_killed_with_its_workers(stage: Scene, dag_id: str) -> None:
    run = stage.start(dag_id, seconds=30)
    run.at_step(3)
    with stage.never_two():
        stage.kill("scheduler")
        stage.restart("scheduler")
        assert run.end() == "success", run.log()
    assert run.generations() == 1
    stage.none_left()


@slow
@pytest.mark.parametrize("dag_id", ["inline", "deferred"])
def test_the_supervisor_is_killed(stage: Scene, dag_id: str) -> None:
    run = stage.start(dag_id, seconds=12)
    run.at_step(6)
    with stage.never_two():
        next(process for process in stage.processes() if "--detach" in process.cmdline()).kill()
        assert run.end() == "success", run.log()
    assert run.generations() == 2
    assert run.result()["metrics"]["resumed_from_step"] >= 3
    stage.none_left()


@slow
def test_the_job_itself_is_killed(stage: Scene) -> None:
    run = stage.start("deferred", seconds=300)
    run.at_step(1)
    next(process for process in stage.processes() if process.cmdline()[-1].endswith("fmops_job.py")).kill()
    assert run.end() == "failed"
    assert "UserCodeError" in run.log() and "SIGKILL" in run.log()
    assert run.generations() == 1, "nobody knows whether a second try would help"
    stage.none_left()


@slow
def test_two_runs_at_once_have_a_job_each(stage: Scene) -> None:
    both = [stage.start("deferred", seconds=5), stage.start("deferred", seconds=5)]
    with stage.never_two():
        assert [run.end() for run in both] == ["success", "success"]
    assert [run.generations() for run in both] == [1, 1]
    assert both[0].job() != both[1].job()
    stage.none_left()
