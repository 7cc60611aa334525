"""Attempts of a task with a JobOperator, on this machine and on the AWS endpoint; what follows what: test_table.py."""

from __future__ import annotations

import json
import logging
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from fmops_plugins import jobs as triggers

from include.errors import UserError
from include.jobs import ensure as ensuring
from include.jobs.base import open_backend
from include.jobs.sagemaker import SageMakerBackend
from include.jobs.states import StoppedError
from include.storage import location
from tests.jobs.trials import trials, until
from tests.jobs.worlds import (
    Attempt,
    AwsWorld,
    LocalWorld,
    World,
    attempts,
    local_world,
    sagemaker_world,
    small_disk,
    world,
)

__all__ = ["attempts", "local_world", "sagemaker_world", "small_disk", "trials", "world"]

HOLD: dict[str, Any] = {"parameters": {"hold_at": 1}}


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks wait in their slot."""
    monkeypatch.setenv("FMOPS_JOB_INLINE_S", "60")
    monkeypatch.setattr(SageMakerBackend, "inline_poll_s", 0.1)


def usage_events(world: World) -> list[dict[str, Any]]:
    files = location(world.settings.root).rglob("usage/*/*.jsonl")
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def in_thread(attempt: Attempt) -> tuple[threading.Thread, list[BaseException]]:
    """The attempt runs beside the test; what it raises is collected."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            attempt.run()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, raised


def test_a_short_job_ends_in_its_slot(world: Any, inline: None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    attempt = world.attempt(parameters={"steps": 3})
    done = attempt.run()
    assert done == {
        "job": attempt.job,
        "output_uri": world.status(attempt.job).output_uri,
        "bytes": 1,
        "billed_s": done["billed_s"],
        "metrics": {"total": 6, "begun_at": 0, "nothing": None},
    }
    assert done["billed_s"] > 0 and len(json.dumps(done)) < 4000
    assert json.dumps(attempt.xcoms["fmops_job"]) and attempt.xcoms["fmops_job"]["backend"] == world.backend_name


def test_a_long_one_frees_it_and_comes_back(world: Any) -> None:
    attempt = world.attempt(**HOLD)
    assert attempt.run() is None
    world.at_hold(attempt.job)
    assert attempt.resume({"why": "unreachable"}) is None, "it is not over: it is waited for again"
    world.backend.stop("training", attempt.job)
    assert attempt.fire() == {"why": "over", "message": ""}
    with pytest.raises(StoppedError):
        attempt.resume()


def test_without_deferring_it_waits_on(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SageMakerBackend, "inline_poll_s", 0.1)
    done = world.again(world.values(parameters={"steps": 2}), deferrable=False).run()
    assert done is not None and done["metrics"]["total"] == 3


def test_log_and_progress_are_shown_once(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """What was shown before the task freed its slot is not shown again after it."""
    attempt = world.attempt(parameters={"hold_at": 2})
    attempt.run()
    world.at_hold(attempt.job)
    assert attempt.resume() is None
    world.finish_stopping(attempt.job) if world.backend_name == "sagemaker" else world.lose(attempt.job)
    world.until_state(attempt.job, "failed")
    with pytest.raises(Exception, match=attempt.job):
        attempt.resume()
    shown = capsys.readouterr().out
    assert shown.count("| now at 2") == 1
    assert "step 2 of 4, total 3" in shown and "fmops-progress" not in shown


def test_usage_is_one_event_however_often_the_end_is_looked_at(world: Any) -> None:
    world.start_slowly()
    attempt = world.attempt()
    assert attempt.run() is None
    world.until_state(attempt.job, "succeeded")
    attempt.resume()
    attempt.resume()
    ids = {event["event_id"] for event in usage_events(world)}
    event = usage_events(world)[0]
    assert len(ids) == 1
    assert (event["kind"], event["status"], event["tenant"], event["task_id"]) == ("job", "ok", "t", "job")
    assert event["instance_seconds"] > 0


def test_a_job_that_failed_is_metered_too(world: Any) -> None:
    world.start_slowly()
    attempt = world.attempt("fail")
    attempt.run()
    world.until_state(attempt.job, "failed")
    with pytest.raises(Exception, match=r"failed \(user_code\)"):
        attempt.resume()
    (event,) = usage_events(world)
    assert event["status"] == "error" and "the answer is wrong" in event["error"]


def test_a_finished_output_is_not_computed_again_by_another_run(world: Any) -> None:
    done = world.finish(world.attempt())
    world.run_id = "another-run"
    second = world.attempt()
    assert second.run() == done, "another run, the same inputs"
    assert world.made() == 1 and not second.xcoms
    world.finish(world.attempt(force=True))
    assert world.made() == 2


def test_a_next_generation_goes_on_from_the_checkpoint(world: Any) -> None:
    first = world.attempt(parameters={"hold_at": 2})
    first.run()
    world.at_hold(first.job)
    if world.backend_name == "sagemaker":  # the service copies checkpoints while the script runs
        folder = location(f"{world.settings.root}/t/jobs/checkpoints")
        until(lambda: any("step-000000000002" in str(path) for path in folder.rglob("checkpoint.json")))
    first.kill()
    world.until_state(first.job, "stopped")
    second = world.again(first.operator.spec)
    done = world.finish(second)
    assert second.job != first.job
    assert done["metrics"] == {"total": 10, "begun_at": 2, "nothing": None}


def test_the_execution_timeout_ends_a_job_that_is_waited_for_without_a_slot(world: Any) -> None:
    attempt = world.again(world.values(**HOLD), execution_timeout=timedelta(minutes=1))
    begun = time.time()
    assert attempt.run() is None
    assert attempt.deferred is not None
    assert begun + 60 <= attempt.deferred.trigger.deadline <= time.time() + 60
    is_over = {"deadline": time.time()}  # as if that minute had passed
    assert (event := attempt.fire(**is_over))["why"] == "deadline"
    with pytest.raises(StoppedError, match="its time was up"):
        attempt.resume(event, **is_over)
    world.until_state(attempt.job, "stopped")


def test_a_trigger_fires_no_sooner_than_its_task_is_deferred(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world.start_slowly()
    attempt = world.attempt()
    attempt.run()
    world.until_state(attempt.job, "succeeded")
    monkeypatch.setattr(triggers, "NOT_BEFORE_S", 5.0)
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(triggers.asyncio, "sleep", sleep)
    made_at = time.time() - 1
    assert attempt.deferred is not None
    attempt.deferred.trigger.made_at = made_at
    assert attempt.fire()["why"] == "over"
    assert 3.0 < waited[-1] <= 4.0


BAD = [
    ({"script": "include.nowhere"}, r"script='include.nowhere': there is no include/nowhere.py"),
    ({"script": "os.path"}, r"script='os.path': .*; a module below include/"),
    ({"channels": {"train": "{root}/empty"}}, r"channel train='.*/empty' holds no file: write what the job reads"),
    ({"name": "My_Job"}, r"name='My_Job': .*; lower-case letters, digits and single hyphens"),
    ({"max_runtime_s": None}, r"max_runtime_s=None: .*; seconds, up to 432000"),
    ({"max_runtime_s": "DEL"}, r"max_runtime_s is missing; seconds"),
    ({"max_runtime_s": 0}, r"max_runtime_s=0: "),
    ({"kind": "transform"}, r"kind='transform': .*'training' or 'processing'"),
    ({"hyperparameters": {"act": float("nan")}}, r"hyper-parameter act=nan must be a finite number"),
    ({"sharded": ("train",)}, r"sharded channel 'train' is none of none"),
    ({"kind": "processing", "resources": {"spot": True}}, r"resources.spot=True: only training jobs"),
    ({"colour": "red"}, r"colour='red': Extra inputs are not permitted"),
    ({"tenant": "A B"}, r"tenant='A B': "),
]


@pytest.mark.parametrize(("changes", "words"), BAD, ids=[str(n) for n in range(len(BAD))])
def test_a_bad_spec_is_refused_before_anything_starts(world: Any, changes: dict[str, Any], words: str) -> None:
    values = world.values() | {
        name: {key: uri.format(root=world.settings.root) for key, uri in value.items()} if name == "channels" else value
        for name, value in changes.items()
    }
    values = {name: value for name, value in values.items() if value != "DEL"}
    with pytest.raises(UserError, match=words) as caught:
        world.again(values).run()
    assert "\n" not in str(caught.value)
    assert world.made() == 0


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"instance_type": "ml.m5.huge"}, r"instance_type='ml.m5.huge' is not known for training jobs: such as ml\.m5"),
        ({"image": "cuda"}, r"resources.image='cuda' is not known: choose among cpu"),
    ],
)
def test_what_only_sagemaker_knows_is_refused_there(
    sagemaker_world: AwsWorld, resources: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        sagemaker_world.attempt(resources=resources).run()
    assert sagemaker_world.made() == 0


def test_an_unknown_backend_is_named(attempts: None, local_world: LocalWorld) -> None:
    attempt = Attempt(local_world.values(), "run", backend="batch")
    with pytest.raises(UserError, match="job_backend='batch' is not known; choose among local, sagemaker"):
        attempt.run()


def test_after_many_generations_somebody_has_to_look(local_world: LocalWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensuring, "GENERATIONS", 2)
    for _ in range(2):
        attempt = local_world.attempt("fail")
        attempt.run()
        local_world.until_state(attempt.job, "failed")
    with pytest.raises(Exception, match=r"-g1 and 1 generations after it ended badly"):
        local_world.attempt("fail").run()


def test_backends_are_opened_by_name(world: World) -> None:
    assert open_backend(world.backend_name, world.settings).name == world.backend_name
