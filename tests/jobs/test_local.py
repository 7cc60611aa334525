"""Local jobs as their users see them: real processes, ended in every way."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from include.errors import UserError
from include.jobs import local
from include.jobs.local import LocalBackend
from include.jobs.output import read_manifest
from include.jobs.states import JobExistsError, LostError
from tests.jobs.trials import Trials, inject, trials, until

__all__ = ["trials"]


def test_a_job_that_ends_well_leaves_its_manifest_and_its_figures(trials: Trials) -> None:
    name = trials.start(parameters={"steps": 3})
    status = trials.end(name)
    assert (status.state, status.cause, status.message) == ("succeeded", None, "")
    assert status.progress == {"step": 3, "of": 3, "total": 6}
    assert status.started_at and status.ended_at and status.started_at <= status.ended_at and status.billed_s > 0
    manifest = read_manifest(status.output_uri)
    assert manifest.metrics == {"total": 6, "begun_at": 0, "nothing": None}
    assert [file.path for file in manifest.files] == ["total.txt"]
    assert trials.status(name) == status
    trials.none_left(name)


def test_a_script_is_given_its_channel_and_parameters_and_no_credentials(trials: Trials) -> None:
    given = {"text": "123", "rate": 0.5, "flag": True, "steps": 7}
    status = trials.end(trials.start("read", parameters=given))
    assert read_manifest(status.output_uri).metrics == {
        "files": ["a.txt"], "secrets": [], "hosts": ["algo-1"], "parameters": {"act": "read", **given},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("act", "cause", "message"),
    [
        ("fail", "user_code", "ValueError: the answer is wrong (trial.py:"),
        ("refuse", "bad_input", "channel texts has no line"),
        ("exhaust", "out_of_memory", "no memory was left"),
        ("crash", "user_code", "it was ended by SIGSEGV"),
        ("leave", "user_code", "it ended without an error and without a manifest"),
        ("unknown", "user_code", "KeyError: 'unknown' (trial.py:"),
    ],
)
def test_how_a_script_failed_is_told_by_cause(trials: Trials, act: str, cause: str, message: str) -> None:
    name = trials.start(act)
    status = trials.end(name)
    assert (status.state, status.cause) == ("failed", cause)
    assert status.message.startswith(message) and "\n" not in status.message
    assert act != "fail" or 'raise ValueError("the answer' in (trials.folder / name / "log").read_text()
    trials.none_left(name)


def test_more_memory_than_it_may_take_ends_a_job(trials: Trials) -> None:
    name = trials.start("grow", resources={"memory_mb": 128})
    status = trials.end(name)
    assert (status.state, status.cause) == ("failed", "out_of_memory")
    assert "more than resources.memory_mb=128" in status.message
    trials.none_left(name)


def test_as_much_memory_as_it_may_take_does_not(trials: Trials) -> None:
    assert trials.end(trials.start(resources={"memory_mb": 512})).state == "succeeded"


def test_the_next_generation_goes_on_from_the_checkpoint_of_one_that_was_killed(trials: Trials) -> None:
    parameters = {"hold_at": 2}
    name = trials.start(parameters=parameters)
    trials.at_step(name, 2)
    trials.script(name).kill()
    status = trials.end(name)
    assert (status.state, status.cause, status.message) == ("failed", "user_code", "it was ended by SIGKILL")
    again = trials.end(trials.start(parameters=parameters, generation=2))
    assert read_manifest(again.output_uri).metrics == {"total": 10, "begun_at": 2, "nothing": None}


@pytest.mark.parametrize("act", ["count", "scatter"])
def test_a_job_dies_with_its_supervisor_and_is_lost(trials: Trials, act: str) -> None:
    name = trials.start(act, parameters={"hold_at": 1} if act == "count" else {"stay": True})
    trials.at_step(name)
    assert len(trials.processes(name)) == {"count": 3, "scatter": 4}[act]  # supervisor, script, guard; one left behind
    if act == "count":
        trials.script(name).suspend()  # as one that native code keeps busy: it cannot look after itself
    trials.supervisor(name).kill()
    trials.none_left(name)
    status = trials.end(name)
    assert (status.state, status.cause) == ("failed", "lost")
    assert status.ended_at is not None and status.billed_s >= 0
    if act == "count":
        assert trials.end(trials.start(parameters={"hold_at": 1}, generation=2)).state == "succeeded"


def test_a_supervisor_that_was_held_up_and_declared_lost_is_ended_with_its_job(trials: Trials) -> None:
    name = trials.start(parameters={"hold_at": 1})
    trials.at_step(name)
    trials.supervisor(name).suspend()
    status = trials.end(name)
    assert (status.state, status.cause) == ("failed", "lost")
    trials.none_left(name)
    assert trials.status(name) == status


@pytest.mark.parametrize("by", ["guard", "supervisor"])
def test_one_that_was_declared_lost_elsewhere_ends_its_job_and_says_nothing(
    trials: Trials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """Where the one who looks cannot end its processes: they are on another machine."""
    monkeypatch.setattr(local, "_kill", lambda folder: None)
    if by == "supervisor":  # its guard is not looking
        guard = tmp_path / "project" / "include" / "jobs" / "guard.py"
        guard.write_text(guard.read_text().replace("LOOK_S = 0.2", "LOOK_S = 999.0"))
    name = trials.start("scatter", parameters={"stay": True})
    trials.at_step(name)
    supervisor = trials.supervisor(name)
    supervisor.suspend()
    status = trials.end(name)
    if by == "supervisor":
        assert len(trials.processes(name)) == 4
        supervisor.resume()
    trials.none_left(name)
    assert trials.status(name) == status


def test_one_that_was_held_up_and_not_declared_lost_goes_on(trials: Trials) -> None:
    name = trials.start("chat")
    trials.at_step(name)
    supervisor = trials.supervisor(name)
    supervisor.suspend()
    beat = (trials.folder / name / "heartbeat").stat().st_mtime
    until(lambda: time.time() - beat > 2.5)
    supervisor.resume()
    (trials.texts / "go").touch()
    assert trials.end(name).state == "succeeded"


def test_the_stop_file_stops_a_job(trials: Trials) -> None:
    name = trials.start(parameters={"hold_at": 1})
    trials.at_step(name)
    trials.backend.stop("training", name)
    assert trials.status(name).state in ("stopping", "stopped")
    status = trials.end(name)
    assert (status.state, status.cause, status.message) == ("stopped", "stopped", "it was asked to stop")
    trials.none_left(name)
    trials.backend.stop("training", name)
    assert trials.status(name) == status
    assert trials.end(trials.start(parameters={"hold_at": 1}, generation=2)).state == "succeeded"


def test_one_that_was_asked_to_stop_before_it_began_never_begins(
    trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = LocalBackend._start

    def stopped_first(backend: LocalBackend, folder: Path, *rest: Any) -> None:
        backend.stop("training", folder.name)
        assert trials.status(folder.name).state == "stopping"
        start(backend, folder, *rest)

    monkeypatch.setattr(LocalBackend, "_start", stopped_first)
    name = trials.start()
    assert trials.end(name).state == "stopped"
    assert not (trials.folder / name / "log").exists()


def test_the_maximum_runtime_stops_a_job(trials: Trials) -> None:
    name = trials.start(parameters={"hold_at": 1}, max_runtime_s=1)
    status = trials.end(name)
    assert (status.state, status.cause) == ("stopped", "timed_out")
    assert status.message == "it took longer than max_runtime_s=1"
    trials.none_left(name)


def test_sigterm_to_the_supervisor_stops_a_job(trials: Trials) -> None:
    name = trials.start(parameters={"hold_at": 1})
    trials.at_step(name)
    trials.supervisor(name).terminate()
    assert trials.end(name).message == "its supervisor got SIGTERM"
    trials.none_left(name)


def test_a_script_that_ignores_sigterm_is_killed(trials: Trials) -> None:
    name = trials.start("ignore")
    trials.at_step(name)
    trials.backend.stop("training", name)
    assert trials.end(name).state == "stopped"
    trials.none_left(name)


@pytest.mark.parametrize("stay", [False, True])
def test_what_a_script_leaves_behind_in_another_session_is_ended(trials: Trials, stay: bool) -> None:
    name = trials.start("scatter", parameters={"stay": stay})
    trials.at_step(name)
    if stay:
        assert len(trials.processes(name)) == 4
        trials.backend.stop("training", name)
    assert trials.end(name).state == ("stopped" if stay else "succeeded")
    assert len(trials.processes(name)) <= 1  # before it said so; it is its supervisor that ends
    trials.none_left(name)


def test_a_name_is_used_once(trials: Trials) -> None:
    name = trials.start()
    with pytest.raises(JobExistsError):
        trials.start()
    trials.end(name)
    with pytest.raises(JobExistsError):
        trials.start()
    assert sorted(path.name for path in trials.folder.iterdir()) == ["checkpoints", name]


def test_the_submitter_keeps_no_child(trials: Trials) -> None:
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    name = trials.start(parameters={"hold_at": 1})
    trials.at_step(name)
    assert {process.pid for process in psutil.Process().children(recursive=True)} == before
    supervisor = trials.supervisor(name)
    assert supervisor.terminal() is None and os.getsid(supervisor.pid) != os.getsid(0)
    trials.script(name).kill()
    trials.end(name)
    assert {process.pid for process in psutil.Process().children(recursive=True)} == before


def test_a_supervisor_that_does_not_start_is_one_line_and_the_name_is_spent(
    trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "SUPERVISOR", ("-c", "raise ModuleNotFoundError('psutil')"))
    with pytest.raises(LostError, match="-g1: its supervisor did not start: ModuleNotFoundError: psutil"):
        trials.start()
    status = trials.end(trials.named().job_name(1))
    assert (status.state, status.cause) == ("failed", "lost")
    inject(monkeypatch)
    assert trials.end(trials.start(generation=2)).state == "succeeded"


def test_one_whose_submitter_died_before_it_had_a_supervisor_is_lost_in_the_end(
    trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalBackend, "_start", lambda *_: None)
    name = trials.start()
    assert trials.status(name).state == "starting"
    trials.backend.start_s = 0.2
    assert (trials.end(name).state, trials.end(name).cause) == ("failed", "lost")


def test_a_clock_that_was_set_back_neither_kills_a_job_nor_keeps_a_dead_one(trials: Trials) -> None:
    name = trials.start(parameters={"hold_at": 1})
    trials.at_step(name)
    heartbeat = trials.folder / name / "heartbeat"
    trials.supervisor(name).suspend()  # as if no beat came between
    os.utime(heartbeat, (time.time() + 3600,) * 2)
    assert trials.status(name).state == "running"
    trials.supervisor(name).resume()
    beat = heartbeat.stat().st_mtime
    until(lambda: heartbeat.stat().st_mtime > beat)
    assert trials.status(name).state == "running"
    trials.supervisor(name).kill()
    os.utime(heartbeat, (time.time() + 3600,) * 2)
    assert trials.end(name).cause == "lost"


def test_a_clock_that_was_set_forward_does_not_kill_a_job(trials: Trials) -> None:
    name = trials.start(parameters={"hold_at": 1})
    trials.at_step(name)
    os.utime(trials.folder / name / "heartbeat", (time.time() - 3600,) * 2)
    assert trials.status(name).state == "running"


@pytest.mark.parametrize("torn", ["", '{"state": "succ', "[]"])
def test_a_status_that_a_disk_has_lost_is_a_lost_job(trials: Trials, torn: str) -> None:
    name = trials.start()
    trials.end(name)
    (trials.folder / name / "status.json").write_text(torn)
    status = trials.end(name)
    assert (status.state, status.cause) == ("failed", "lost")


def test_a_job_belongs_to_whom_claimed_it_last(trials: Trials) -> None:
    name = trials.start()
    assert trials.backend.owner("training", name) == "me"
    trials.backend.claim("training", name, "you")
    assert trials.backend.owner("training", name) == "you"
    trials.end(name)


def test_nothing_is_known_of_a_job_that_never_was(trials: Trials) -> None:
    backend, name = trials.backend, "trial-0-g1"
    assert (backend.describe("training", name), backend.owner("training", name)) == (None, None)
    backend.claim("training", name, "me")
    backend.stop("training", name)
    assert backend.log("training", name) == ([], 0)
    assert not trials.folder.exists() and not list(backend.find({}))
    with pytest.raises(UserError, match="job name '../x' must match"):
        backend.describe("training", "../x")


def test_jobs_without_an_end_are_found_by_their_tags(trials: Trials) -> None:
    over, active = trials.start(), trials.start(parameters={"hold_at": 1}, run_id="other")
    trials.end(over)
    assert [name for _, name, _ in trials.backend.find({"fmops:dag": "d"})] == [active]
    ((kind, _, tags),) = trials.backend.find({"fmops:run": "other"})
    assert kind == "training" and tags["fmops:tenant"] == "t"
    assert not list(trials.backend.find({"fmops:run": "r"}))


def test_the_triggerer_is_told_where_to_look(trials: Trials) -> None:
    path, place = trials.backend.watch("training", "trial-0-g1")
    assert path == "fmops_plugins.jobs.LocalTrigger"
    assert place == {"folder": str(trials.folder / "trial-0-g1"), "lost_after_s": 2.0}
    json.dumps(place)


def test_a_job_that_needs_the_workers_environment_gets_the_running_python(trials: Trials) -> None:
    settings = trials.settings.model_copy(update={"job_python": str(trials.texts / "none")})
    trials.backend = LocalBackend(settings)
    worker = {"resources": {"image": "worker"}}
    trials.backend.check(trials.named(**worker))
    assert trials.end(trials.start(**worker)).state == "succeeded"
    with pytest.raises(UserError, match="job_python"):
        trials.backend.check(trials.named(resources={"image": "cpu"}))
