"""The sweep: a job that nobody waits for is stopped, any other is left; and the DAG that runs it."""

from __future__ import annotations

from typing import Any

import pytest

from include.config import Settings
from include.jobs.spec import deployment_id
from include.jobs.sweep import WAITING, Left, TaskState, backends
from include.jobs.sweep import sweep as sweep_all
from tests.jobs.trials import trials, until
from tests.jobs.worlds import World, attempts, local_world, sagemaker_world, world

__all__ = ["attempts", "local_world", "sagemaker_world", "trials", "world"]


def sweep(world: World, task_state: TaskState, **more: Any) -> list[Left]:
    return sweep_all(world.backend, deployment_id(world.settings.root), task_state, **more)


def left_by(world: World, **changes: Any) -> str:
    """The name of a job that runs."""
    attempt = world.attempt(parameters={"hold_at": 1}, **changes)
    attempt.run()
    world.at_hold(attempt.job)
    return attempt.job


@pytest.mark.parametrize("state", ["failed", "success", "skipped", "removed", "upstream_failed", None])
def test_a_job_whose_task_is_over_or_gone_is_stopped(local_world: World, state: str | None) -> None:
    name = left_by(local_world)
    asked: list[tuple[str, str, str, int]] = []

    def task_state(*task: Any) -> str | None:
        asked.append(task)
        return state

    (left,) = sweep(local_world, task_state)
    assert asked == [("d", local_world.run_id, "job", -1)]
    assert (left.kind, left.name) == ("training", name)
    assert left.reason == f"task job of run {local_world.run_id} of d is {state or 'gone'}"
    until(lambda: not local_world.active() and not local_world.processes())
    assert sweep(local_world, task_state) == []


@pytest.mark.parametrize("state", [*sorted(WAITING), "cleared"])
def test_a_job_that_is_waited_for_is_left(local_world: World, state: str) -> None:
    name = left_by(local_world)
    assert sweep(local_world, lambda *_: state) == []
    assert local_world.state(name) == "running"


def test_on_sagemaker_it_goes_by_the_jobs_tags(sagemaker_world: Any) -> None:
    sagemaker_world.run_id = "manual__2026-01-01T00:00:00+00:00~{x}"
    name = left_by(sagemaker_world)
    runs: list[str] = []

    def task_state(dag: str, run: str, task: str, index: int) -> str | None:
        runs.append(run)
        return "failed"

    assert [left.name for left in sweep(sagemaker_world, task_state)] == [name]
    assert runs == [sagemaker_world.run_id], "as it was, though AWS takes no such letters"
    sagemaker_world.until_state(name, "stopping", "stopped")


def test_a_dry_run_only_tells(local_world: World) -> None:
    name = left_by(local_world)
    assert [left.name for left in sweep(local_world, lambda *_: None, dry_run=True)] == [name]
    assert local_world.state(name) == "running"


def test_a_job_whose_tags_do_not_tell_its_task_is_left(sagemaker_world: Any) -> None:
    sagemaker_world.run_id = "r" * 250 + "{}{}"  # quoted it has no room in a tag
    name = left_by(sagemaker_world)
    assert sweep(sagemaker_world, lambda *_: None) == []
    assert sagemaker_world.state(name) == "running"


def test_a_job_that_is_taken_over_meanwhile_is_left(local_world: World) -> None:
    name = left_by(local_world)

    def task_state(*_: Any) -> str | None:
        local_world.backend.claim("training", name, "another attempt")
        return "failed"

    assert sweep(local_world, task_state) == []
    assert local_world.state(name) == "running"


def test_another_deployments_jobs_are_left(world: Any) -> None:
    """Two installations share an account; neither knows the other's runs."""
    name = left_by(world)
    assert sweep_all(world.backend, deployment_id("s3://another/root"), lambda *_: None) == []
    assert world.state(name) == "running"


def test_every_backend_that_can_have_jobs_is_swept() -> None:
    role = "arn:aws:iam::123456789012:role/jobs"
    found = [
        [backend.name for backend in backends(settings)]
        for settings in (
            Settings(storage_root="file:///data"),
            Settings(storage_root="s3://b/c", target="aws"),
            Settings(storage_root="file:///data", job_backend="sagemaker", sagemaker_role=role),
            Settings(storage_root="s3://b/c", target="aws", job_folder="/jobs", sagemaker_role=role),
        )
    ]
    assert found == [["local"], ["sagemaker"], ["sagemaker", "local"], ["sagemaker", "local"]]
