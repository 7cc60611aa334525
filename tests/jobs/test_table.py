"""Every cell of the table state x event, on this machine and on the AWS endpoint; the docs hold the same table."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from include.dag_defaults import RETRY_CANNOT_HELP
from include.jobs.states import JobError
from local.home import PROJECT
from tests.jobs.table import EVENTS, NOTHING, TABLE
from tests.jobs.trials import trials, until
from tests.jobs.worlds import (
    Attempt,
    World,
    attempts,
    delete_manifest,
    local_world,
    run_async,
    sagemaker_world,
)

__all__ = ["attempts", "local_world", "sagemaker_world", "trials"]

ACTIVE = ("starting", "running", "stopping")
HOLD: dict[str, Any] = {"parameters": {"hold_at": 1}}
ACTS = {"user_code": "fail", "bad_input": "refuse", "out_of_memory": "exhaust"}


@pytest.fixture(params=["local", pytest.param("sagemaker", marks=pytest.mark.slow)])
def world(request: pytest.FixtureRequest, attempts: None) -> World:
    """Each place in turn; CI has this machine's cells, and the operator's other tests on both."""
    found: World = request.getfixturevalue(f"{request.param}_world")
    return found


def reach(world: Any, state: str) -> Attempt:
    """An attempt that waits for its job without a slot, and the job is in that state."""
    _, _, cause = state.partition(": ")
    attempt: Attempt
    world.start_slowly()
    if state == "starting":
        world.hold_back()
        attempt = world.attempt()
    elif state in ("running", "stopped", "not there") or (cause == "lost" and world.backend_name == "local"):
        attempt = world.attempt(**HOLD)
    elif state == "stopping":
        world.stop_slowly()
        attempt = world.attempt("ignore")
    elif cause == "timed_out":
        attempt = world.attempt(max_runtime_s=1, **HOLD)
    elif cause in ("capacity", "lost"):
        world.fault(cause)
        attempt = world.attempt()
    else:
        attempt = world.attempt(ACTS.get(cause, "count"))
    assert attempt.run() is None, "it freed its slot"
    _bring_about(world, state, attempt.job)
    return attempt


def _bring_about(world: Any, state: str, job: str) -> None:
    """What becomes of the job while its task waits."""
    if state == "starting":
        assert world.state(job) == "starting"
        return
    if state in ("running", "stopping", "stopped", "not there"):
        world.at_hold(job)
    if state in ("stopping", "stopped"):
        world.backend.stop("training", job)
    if state == "failed: lost" and world.backend_name == "local":
        world.at_hold(job)
        world.lose(job)
    if state == "not there":
        world.forget(job)
    elif state in ACTIVE:
        world.until_state(job, state)
    else:
        status = world.until_state(job, state.partition(":")[0].partition(",")[0])
        assert state.partition(": ")[2] in ("", status.cause)
        if state == "succeeded, output not whole":
            delete_manifest(status)


def begins(world: Any, before: Attempt, state: str) -> str:
    """What another attempt of the same task does."""
    after = world.again(before.operator.spec)
    num_jobs = world.made()
    done = after.run()
    if done is not None:
        assert world.made() == num_jobs and done["output_uri"]
        return "takes it"
    assert len(world.active()) == 1, "never two of one spec"
    assert world.backend.owner("training", after.job) == after.id
    if after.job != before.job:
        assert after.job == before.job.replace("-g1", "-g2")
        return "starts the next"
    if state == "not there":
        return "starts it"
    assert world.made() == num_jobs
    if state != "stopping":
        return "attaches"
    world.finish_stopping(after.job)
    assert after.wait() is None
    assert after.job == before.job.replace("-g1", "-g2") and world.active() == [after.job]
    return "attaches, then starts the next"


def told(call: Callable[[], Any]) -> str:
    """What a step of an attempt comes to."""
    try:
        return "waits on" if call() is None else "takes it"
    except JobError as error:
        assert "\n" not in str(error)
        retried = "not retried" if isinstance(error, RETRY_CANNOT_HELP) else "retried"
        return f"{type(error).__name__}, {retried}"


def is_stopping(world: World, job: str) -> bool:
    return world.state(job) in ("stopping", "stopped")


def killed(world: World, attempt: Attempt, **changes: Any) -> str:
    was = world.state(attempt.job)
    attempt.kill(**changes)
    if world.state(attempt.job) != was:
        assert is_stopping(world, attempt.job)
        return "stops it"
    return NOTHING


def killed_before(world: World, attempt: Attempt, state: str) -> str:
    """The kill reaches the job after another attempt has taken it over."""
    if state == "not there":
        return killed(world, attempt, owner="older")
    stops: list[str] = []
    trigger = attempt.trigger(owner="older")

    async def stop() -> None:
        stops.append(attempt.job)

    trigger._stop = stop
    run_async(trigger.on_kill())
    assert not stops
    return "left alone"


def time_is_up(world: World, attempt: Attempt) -> str:
    was = world.state(attempt.job)
    outcome = told(lambda: attempt.resume({"why": "deadline"}, deadline=time.time() - 1))
    if was in ACTIVE:
        assert is_stopping(world, attempt.job)
    return outcome if was in ("stopping", world.state(attempt.job)) else f"stops it, {outcome}"


def cell(world: Any, attempt: Attempt, state: str, event: str) -> str:
    if event == EVENTS[0]:
        return begins(world, attempt, state)
    if event == EVENTS[1]:
        return told(attempt.resume)
    if event == EVENTS[2]:
        return killed(world, attempt)
    if event == EVENTS[3]:
        return killed_before(world, attempt, state)
    return time_is_up(world, attempt)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("state", ACTIVE)
def test_an_active_job(world: Any, state: str, event: str) -> None:
    attempt = reach(world, state)
    assert cell(world, attempt, state, event) == TABLE[state][EVENTS.index(event)]


@pytest.mark.parametrize("state", [state for state in TABLE if state not in ACTIVE])
def test_a_job_that_is_over_or_not_there(world: Any, state: str) -> None:
    attempt = reach(world, state)
    found = {event: cell(world, attempt, state, event) for event in (*EVENTS[1:], EVENTS[0])}
    assert found == dict(zip(EVENTS, TABLE[state], strict=True))


def test_the_docs_hold_the_table() -> None:
    lines = (PROJECT / "docs" / "jobs.md").read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if EVENTS[0] in line)
    rows = [[part.strip() for part in line.strip("|").split("|")] for line in lines[start:] if line.startswith("|")]
    assert tuple(rows[0][1:]) == EVENTS
    assert {row[0]: tuple(row[1:]) for row in rows[2 : 2 + len(TABLE)]} == TABLE


def test_nothing_is_left_of_a_job_that_was_stopped(world: Any) -> None:
    attempt = reach(world, "running")
    attempt.kill()
    until(lambda: not world.active() and not world.processes())
    assert world.state(attempt.job) == "stopped"
