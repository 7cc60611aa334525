"""What goes wrong around an attempt with a JobOperator: kills, races, lost answers, full disks, a log out of reach."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import pytest
from fmops_plugins import jobs as triggers

from include.jobs import operator as operating
from include.jobs import source
from include.jobs.ensure import named_spec
from include.jobs.sagemaker import SageMakerBackend
from include.jobs.spec import deployment_id, read_spec
from include.jobs.states import BadInputError, LostError, StoppedError
from tests.jobs.test_operator import HOLD, in_thread, inline
from tests.jobs.trials import trials, until
from tests.jobs.worlds import (
    AwsWorld,
    LocalWorld,
    attempts,
    local_world,
    run_async,
    sagemaker_world,
    small_disk,
    world,
)

__all__ = ["attempts", "inline", "local_world", "sagemaker_world", "small_disk", "trials", "world"]


def test_a_kill_stops_a_job_that_is_waited_for_in_the_slot(world: Any, inline: None) -> None:
    attempt = world.attempt(**HOLD)
    thread, raised = in_thread(attempt)
    until(lambda: attempt.xcoms)
    world.at_hold(attempt.job)
    attempt.operator.on_kill()
    thread.join(30)
    assert isinstance(raised[0], StoppedError)
    assert not world.active()
    until(lambda: not world.processes())


def test_a_kill_while_the_job_is_being_started_stops_it(
    world: Any, inline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = world.attempt(**HOLD)
    real = operating.ensure

    def killed(*args: Any, **kwargs: Any) -> Any:
        attempt.operator.on_kill()
        return real(*args, **kwargs)

    monkeypatch.setattr(operating, "ensure", killed)
    with pytest.raises(StoppedError):
        attempt.run()
    assert world.made() == 1 and not world.active()


def test_a_kill_of_an_older_attempt_that_comes_late_costs_one_generation(world: Any) -> None:
    """Clearing a task and its trigger's clean-up are not ordered: the stop hits the job just after it changed hands."""
    first = world.attempt(**HOLD)
    first.run()
    world.at_hold(first.job)
    second = world.again(first.operator.spec)
    assert second.run() is None and second.job == first.job
    world.backend.stop("training", first.job)  # the older attempt had asked for the owner before it changed
    world.until_state(first.job, "stopped")
    assert second.wait() is None
    assert second.job != first.job and world.made() == 2
    world.until_state(second.job, "succeeded")
    done = second.resume()
    assert done is not None and done["metrics"]["total"] == 10


def test_a_stop_that_comes_later_is_a_persons(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(operating.TAKEN_OVER_S, "active", -5.0)
    first = world.attempt(**HOLD)
    first.run()
    world.at_hold(first.job)
    second = world.again(first.operator.spec)
    second.run()
    world.backend.stop("training", first.job)
    world.until_state(first.job, "stopped")
    with pytest.raises(StoppedError, match="Clear the task"):
        second.resume()
    assert world.made() == 1


def test_a_trigger_that_moves_to_another_triggerer_stops_nothing(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def deferred(_: Any) -> str:
        return "deferred"

    attempt = world.attempt(**HOLD)
    attempt.run()
    world.at_hold(attempt.job)
    monkeypatch.setattr(triggers, "task_state", deferred)
    attempt.kill()
    assert world.state(attempt.job) == "running"


def test_a_kill_whose_task_cannot_be_asked_for_stops_the_job(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(_: Any) -> str:
        raise RuntimeError("no answer")

    attempt = world.attempt(**HOLD)
    attempt.run()
    world.at_hold(attempt.job)
    monkeypatch.setattr(triggers, "task_state", unknown)
    attempt.kill()
    assert world.until_state(attempt.job, "stopped").cause == "stopped"


def test_two_attempts_at_once_start_one_job(world: Any) -> None:
    both = [world.attempt(**HOLD) for _ in range(2)]
    threads = [in_thread(attempt) for attempt in both]
    for thread, raised in threads:
        thread.join(30)
        assert not raised
    assert both[0].job == both[1].job
    assert world.made() == 1 and len(world.active()) == 1


def test_a_job_of_other_inputs_is_stopped_before_the_next(world: Any) -> None:
    """The code or the data changed between two attempts of a task: it would have another name, and run beside it."""
    first = world.attempt(**HOLD)
    first.run()
    world.at_hold(first.job)
    second = world.attempt(parameters={"steps": 2})
    assert world.finish(second)["metrics"]["total"] == 3
    assert second.job.rpartition("-g")[0] != first.job.rpartition("-g")[0]
    world.until_state(first.job, "stopped")
    third = world.attempt(parameters={"steps": 2})
    assert third.run() is not None and world.made() == 2, "the same inputs stop nothing"


def test_a_service_that_does_not_answer_is_an_error_that_is_tried_again(
    sagemaker_world: AwsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    attempt = sagemaker_world.attempt(**HOLD)
    attempt.run()
    sagemaker_world.aws.plan("down", operation="DescribeTrainingJob", times=None)
    monkeypatch.setattr(triggers, "FAILURES", 1)
    event = attempt.fire()
    assert event["why"] == "unreachable" and event["message"]
    with pytest.raises(ConnectionError):
        attempt.resume(event)


def test_an_answer_lost_after_the_job_was_created_costs_no_second_one(sagemaker_world: AwsWorld) -> None:
    sagemaker_world.aws.plan("lost", operation="CreateTrainingJob")
    attempt = sagemaker_world.attempt(**HOLD)
    attempt.run()
    assert sagemaker_world.made() == 1 and sagemaker_world.active() == [attempt.job]


def test_the_progress_of_a_job_on_sagemaker_is_read_from_its_log(
    sagemaker_world: AwsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triggers, "PROGRESS_S", 0.0)
    attempt = sagemaker_world.attempt(parameters={"hold_at": 2})
    attempt.run()
    sagemaker_world.at_hold(attempt.job)
    looked = run_async(attempt.trigger()._look())
    assert looked[0] is False and re.fullmatch(r"step \d of 4, total \d+(, \d+ s left)?", looked[1])


def test_a_full_disk_ends_a_job_with_its_reason(local_world: LocalWorld, small_disk: Path) -> None:
    attempt = local_world.attempt("fill")
    attempt.run()
    status = local_world.until_state(attempt.job, "failed")
    assert status.cause == "user_code"
    with pytest.raises(Exception, match="No space left on device|the disk is full"):
        attempt.resume()
    until(lambda: not local_world.processes())


def test_a_job_whose_supervisor_dies_is_lost_and_the_next_one_goes_on(local_world: LocalWorld) -> None:
    first = local_world.attempt(parameters={"hold_at": 2})
    first.run()
    local_world.at_hold(first.job)
    local_world.trials.supervisor(first.job).kill()
    assert first.fire()["why"] == "over"
    with pytest.raises(LostError, match="supervisor"):
        first.resume()
    until(lambda: not local_world.processes())
    second = local_world.again(first.operator.spec)
    assert local_world.finish(second)["metrics"]["begun_at"] == 2


def test_a_log_out_of_reach_fails_nothing(
    world: Any, inline: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Denied, throttled, or at a place in it that has expired."""
    real, places = type(world.backend).log, []

    def log(self: Any, kind: str, name: str, after: Any = None) -> Any:
        places.append(after)
        if after is None and len(places) > 1:
            return real(self, kind, name, after)
        raise BadInputError("GetLogEvents: AccessDenied")

    monkeypatch.setattr(type(world.backend), "log", log)
    attempt = world.attempt()
    assert world.finish(attempt)["metrics"]["total"] == 10
    assert capsys.readouterr().out.count("cannot be read: GetLogEvents: AccessDenied") == 1


def test_a_place_in_the_log_that_has_expired_is_begun_anew(world: Any) -> None:
    attempt = world.attempt(**HOLD)
    attempt.run()
    world.at_hold(attempt.job)
    place = {"stream": "expired"} if world.backend_name == "sagemaker" else "not a place"
    assert attempt.resume(log_place=place) is None
    assert attempt.deferred is not None and attempt.deferred.kwargs["log_place"] != place


def test_a_job_is_stopped_if_looking_at_it_is_refused_for_good(
    sagemaker_world: AwsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task fails and is not tried again, so nobody would wait for the job."""
    attempt = sagemaker_world.attempt(**HOLD)
    attempt.run()
    sagemaker_world.at_hold(attempt.job)
    real = SageMakerBackend.describe
    answers = iter([True])

    def describe(self: Any, kind: str, name: str) -> Any:
        if next(answers, None):
            raise BadInputError("DescribeTrainingJob: AccessDenied")
        return real(self, kind, name)

    monkeypatch.setattr(SageMakerBackend, "describe", describe)
    with pytest.raises(BadInputError, match="AccessDenied"):
        attempt.resume()
    sagemaker_world.until_state(attempt.job, "stopped")


def test_a_stop_that_takes_its_time_is_still_the_older_attempts(world: Any) -> None:
    """What counts is when it was asked for: a service gives a script minutes to end."""
    world.stop_slowly()
    first = world.attempt("ignore")
    first.run()
    world.at_hold(first.job)
    second = world.again(first.operator.spec)
    second.run()
    world.backend.stop("training", first.job)
    world.until_state(first.job, "stopping")
    ours_from = time.time()  # as if the time in which a stop is not this attempt's were over before the job is
    world.finish_stopping(first.job)
    assert second.resume(second.fire(), ours_from=ours_from) is None
    assert second.job != first.job


def test_a_kill_while_the_service_is_asked_for_the_job_stops_it(
    world: Any, inline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Airflow ends a task whose execution_timeout is over: the error goes through, then it is killed."""
    real = type(world.backend).submit

    def submit(self: Any, *arguments: Any) -> None:
        real(self, *arguments)
        raise TimeoutError("the task's time is up")

    monkeypatch.setattr(type(world.backend), "submit", submit)
    attempt = world.attempt(**HOLD)
    with pytest.raises(TimeoutError):
        attempt.run()
    assert world.made() == 1
    attempt.operator.on_kill()
    until(lambda: not world.active() and not world.processes())


def test_the_next_generation_is_of_the_code_that_is_there(local_world: LocalWorld) -> None:
    """A release came while the task waited: its output must not count as that of the code before."""
    first = local_world.attempt(**HOLD)
    first.run()
    local_world.at_hold(first.job)
    second = local_world.again(first.operator.spec)
    second.run()
    script = source.FOLDER / "trial.py"
    script.write_text(script.read_text() + "\nRELEASE = 2\n")
    local_world.backend.stop("training", first.job)
    local_world.until_state(first.job, "stopped")
    assert second.wait() is None
    assert second.job.endswith("-g1") and second.job.rpartition("-g")[0] != first.job.rpartition("-g")[0]


def test_a_kill_asks_the_service_twice(sagemaker_world: AwsWorld) -> None:
    """Whose it is, and to stop: hundreds of tasks may be killed at once, and Airflow gives them half a minute."""
    attempt = sagemaker_world.attempt(**HOLD)
    attempt.run()
    sagemaker_world.at_hold(attempt.job)
    trigger = attempt.trigger()

    async def look_then_kill() -> int:
        await trigger._look()
        before = len(sagemaker_world.aws.calls())
        await trigger.on_kill()
        return before

    calls = sagemaker_world.aws.calls()[run_async(look_then_kill()) :]
    asked = [call["operation"] for call in sagemaker_world.aws.calls()]
    assert asked.count("StopTrainingJob") == 1 and len(calls) <= 2, calls
    sagemaker_world.until_state(attempt.job, "stopped")


@pytest.mark.slow
def test_a_hundred_tasks_are_killed_at_once(sagemaker_world: AwsWorld) -> None:
    sagemaker_world.aws.set_pace(phase_s=60)  # no script needs to run for it
    attempts = [sagemaker_world.attempt(parameters={"steps": number + 1}) for number in range(100)]
    for number, attempt in enumerate(attempts):
        attempt.run_id = f"run-{number}"
        attempt.context["ti"].run_id = attempt.run_id
        assert attempt.run() is None

    async def kill() -> None:
        # As long as Airflow waits for one.
        await asyncio.gather(*(asyncio.wait_for(attempt.trigger().on_kill(), 30) for attempt in attempts))

    run_async(kill())
    assert {job["status"] for job in sagemaker_world.aws.jobs()} <= {"Stopping", "Stopped"}


def test_two_deployments_have_jobs_of_their_own(local_world: LocalWorld, tmp_path: Path) -> None:
    spec = read_spec({**local_world.values(), "dag_id": "d", "run_id": "scheduled__2026", "task_id": "job"})
    names = {
        named_spec(spec.model_copy(update={"deployment": deployment_id(root)})).job_digest
        for root in ("s3://dev/data", "s3://prod/data", "s3://prod/data/")
    }
    assert len(names) == 2
