"""What the folder of a local job tells: real jobs first, then folders that somebody tampered with."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fmops_plugins import job_files
from fmops_plugins.answers import PageError
from fmops_plugins.job_files import job_folder, read_job

from tests.jobs.trials import Trials, trials, until
from tests.plugins.job_folders import STARTED, make, place, write

__all__ = ["trials"]

NAME = "train-0123456789abcdef-g1"


@pytest.fixture
def jobs(root: str) -> Path:
    """The folder of all jobs."""
    return Path(root.removeprefix("file://")) / "jobs"


@pytest.fixture
def real(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> Trials:
    """Jobs with supervisors, whose folder the API server is told."""
    monkeypatch.setenv("FMOPS_JOB_FOLDER", str(trials.folder))
    return trials


def told(trials: Trials, name: str) -> dict[str, Any]:
    """As the operator tells of it."""
    return {"backend": "local", "kind": "training", "name": name, **trials.backend.watch("training", name)[1]}


def refusal(told: dict[str, Any], dag_id: str = "d") -> tuple[int, str]:
    with pytest.raises(PageError) as caught:
        read_job(told, dag_id)
    return caught.value.status, str(caught.value)


def test_a_job_that_runs_and_is_stopped(real: Trials) -> None:
    name = real.start("count", parameters={"steps": 9, "hold_at": 2})
    real.at_step(name, 2)
    view = read_job(told(real, name), "d")
    assert (view.state, view.is_over, view.ended_at, view.message) == ("running", False, None, "")
    assert view.progress.items() >= {"step": 2, "of": 9, "total": 3}.items()
    assert view.steps == (2.0, 9.0)
    assert view.told_at is not None
    assert view.lines == ["now at 1", "now at 2"], "without lines of progress"
    assert view.owner == "me"
    real.backend.stop("training", name)
    assert read_job(told(real, name), "d").state in ("stopping", "stopped")
    status = real.end(name)
    view = read_job(told(real, name), "d")
    assert (view.state, view.cause, view.message) == ("stopped", "stopped", "it was asked to stop")
    assert (view.started_at, view.ended_at, view.billed_s) == (status.started_at, status.ended_at, status.billed_s)
    assert view.output_uri == status.output_uri


def test_a_job_that_ended_well_and_one_that_failed(real: Trials) -> None:
    good, bad = real.start("count"), real.start("fail")
    real.end(good)
    real.end(bad)
    view = read_job(told(real, good), "d")
    assert (view.state, view.cause, view.message) == ("succeeded", "", "")
    assert view.tags["task"] == str(real.folder)
    view = read_job(told(real, bad), "d")
    assert (view.state, view.cause) == ("failed", "user_code")
    assert view.message.startswith("ValueError: the answer is wrong (trial.py:")
    assert view.lines[-1] == "is wrong"
    assert "Traceback (most recent call last):" in view.lines


def test_a_log_that_is_hard_to_show(real: Trials) -> None:
    name = real.start("chat")
    log = real.folder / name / "log"
    until(lambda: log.exists() and log.read_bytes().endswith(b"half"))
    shown = ["first", "bad \ufffd byte", "100%", "y" * 2000]
    assert read_job(told(real, name), "d").lines == [*shown, "half"]
    (real.texts / "go").touch()
    real.end(name)
    assert read_job(told(real, name), "d").lines == [*shown, "half whole", "last without an end"]


def test_a_job_whose_supervisor_is_gone_is_silent_then_lost(real: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    name = real.start("count", parameters={"steps": 9, "hold_at": 2})
    real.at_step(name, 2)
    real.supervisor(name).kill()
    monkeypatch.setattr(job_files, "SILENT_S", 0.5)
    line = until(lambda: read_job(told(real, name), "d").message)
    assert line.startswith("no heartbeat for ")
    assert line.endswith("s; silent for 2 s, it counts as lost")
    real.end(name)
    view = read_job(told(real, name), "d")
    assert (view.state, view.cause) == ("failed", "lost")
    assert view.ended_at is not None


def test_all_that_a_folder_tells(jobs: Path) -> None:
    view = read_job(place(make(jobs, NAME, "failed")), "d")
    assert (view.name, view.state, view.cause) == (NAME, "failed", "user_code")
    assert view.message == "ValueError: no line (train.py:7)"
    assert (view.started_at, view.ended_at) == (STARTED, STARTED + timedelta(seconds=61))
    assert (view.billed_s, view.machine, view.owner) == (60.5, "here", "attempt-1")
    assert view.tags == {
        "tenant": "acme", "use-case": "faq", "dag": "d", "run": "r", "task": "train", "map-index": "-1"
    }  # fmt: skip
    assert view.output_uri == f"file://{jobs / NAME}/output"
    assert view.lines == ["first", "last"]


def test_a_job_that_has_only_just_been_made(jobs: Path) -> None:
    folder = make(jobs, NAME)
    for name in ("started.json", "progress.json", "log"):
        (folder / name).unlink()
    view = read_job(place(folder), "d")
    assert (view.state, view.started_at, view.progress, view.lines, view.billed_s) == ("starting", None, {}, [], 0.0)
    (folder / "stop").touch()
    assert read_job(place(folder), "d").state == "stopping"


@pytest.mark.parametrize("status", ["", "{", "[]", '{"state": "<b>"}', '{"state": "running"}', "x" * 2**21])
def test_a_verdict_that_cannot_be_read_is_one_all_the_same(jobs: Path, status: str) -> None:
    folder = make(jobs, NAME)
    (folder / "status.json").write_text(status)
    view = read_job(place(folder), "d")
    assert (view.state, view.cause) == ("failed", "lost")


def test_values_of_another_kind_than_meant(jobs: Path) -> None:
    folder = make(jobs, NAME)
    write(folder / "started.json", {"started_at": [1], "host": {"a": "b"}})
    write(folder / "status.json", {"state": "failed", "cause": 3, "message": ["a"], "billed_s": "x", "ended_at": 4})
    view = read_job(place(folder, lost_after_s="long"), "d")
    assert (view.started_at, view.machine, view.cause, view.message) == (None, "{'a': 'b'}", "3", "['a']")
    assert view.billed_s == 0.0
    assert view.ended_at is not None, "the last heartbeat's"


def test_of_a_long_log_the_end_is_read(jobs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_files, "LOG_BYTES", 40)
    log = "x" * 100 + 'fmops-progress {"step": 1}\nlast but one\nlast\n'
    assert read_job(place(make(jobs, NAME, log=log)), "d").lines == ["last but one", "last"]
    assert read_job(place(make(jobs, "whole-g1", log="one\n\ntwo")), "d").lines == ["one", "", "two"]


def test_links_pipes_and_folders_in_place_of_files_are_not_read(jobs: Path) -> None:
    secret = jobs.parent / "secret"
    secret.parent.mkdir(parents=True)
    secret.write_text('{"host": "secret"}')
    for number, name in enumerate(("log", "started.json", "progress.json", "owner", "spec.json"), start=1):
        folder = make(jobs, f"link-g{number}")
        (folder / name).unlink()
        (folder / name).symlink_to(secret)
        status, reason = refusal(place(folder))
        assert (status, "secret" in reason) == (502, False), name
    pipe = make(jobs, "pipe-g1")
    (pipe / "log").unlink()
    os.mkfifo(pipe / "log")
    assert refusal(place(pipe)) == (502, f"The folder of the job, {pipe}, cannot be read: log is not a plain file")
    folder = make(jobs, "folder-g1")
    (folder / "log").unlink()
    (folder / "log").mkdir()
    assert refusal(place(folder))[0] == 502


@pytest.mark.parametrize(
    "changes",
    [
        {"folder": "/etc", "name": "etc-g1"},
        {"folder": "{jobs}/../outside-g1", "name": "outside-g1"},
        {"folder": "{jobs}/link-g1", "name": "link-g1"},
        {"folder": "{jobs}/inside/inner-g1", "name": "inner-g1"},
        {"folder": "{jobs}/" + NAME, "name": "other-g1"},
        {"folder": "{jobs}", "name": "jobs"},
        {"folder": "{jobs}/plain", "name": "plain"},
        {"folder": "{jobs}/" + NAME + "\x00", "name": NAME},
        {"folder": "{jobs}/\ud800", "name": NAME},
        {"folder": None},
        {"folder": 7},
        {"name": None},
        {"name": "../" + NAME},
        {"name": ""},
    ],
)
def test_a_folder_elsewhere_is_refused(jobs: Path, changes: dict[str, Any]) -> None:
    folder = make(jobs, NAME)
    for other in (jobs / "inside", jobs.parent):
        make(other, "inner-g1" if other.name == "inside" else "outside-g1")
    make(jobs, "plain")
    (jobs / "link-g1").symlink_to(jobs.parent / "outside-g1")
    changed = {key: value.format(jobs=jobs) if isinstance(value, str) else value for key, value in changes.items()}
    status, reason = refusal(place(folder) | changed)
    assert status == 403
    assert "is not the folder of a job below" in reason
    assert "set FMOPS_JOB_FOLDER" in reason


def test_a_job_of_another_dag_is_refused(jobs: Path) -> None:
    folder = make(jobs, NAME, dag_id="theirs")
    assert read_job(place(folder), "theirs").name == NAME
    assert refusal(place(folder), "mine") == (
        403,
        f"{folder} is not the folder of a job of DAG mine, so it is not shown.",
    )
    (folder / "spec.json").unlink()
    assert refusal(place(folder), "theirs")[0] == 403
    write(folder / "spec.json", {"spec": ["theirs"]})
    assert refusal(place(folder), "theirs")[0] == 403


def test_a_folder_that_is_gone_is_said_to_be(jobs: Path) -> None:
    told = place(jobs / NAME)
    assert refusal(told) == (404, f"The folder of the job, {jobs / NAME}, is gone: it was cleaned up.")
    jobs.mkdir(parents=True)
    (jobs / NAME).write_text("a file")
    assert refusal(told)[0] == 404


def test_where_jobs_have_their_folders(jobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert job_folder() == jobs
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setenv("FMOPS_JOB_FOLDER", str(tmp_path / "link"))
    make(tmp_path / "elsewhere", NAME)
    assert read_job(place(tmp_path / "link" / NAME), "d").name == NAME
    monkeypatch.delenv("FMOPS_JOB_FOLDER")
    monkeypatch.delenv("FMOPS_STORAGE_ROOT")
    status, reason = refusal(place(tmp_path / "link" / NAME))
    assert (status, "set FMOPS_STORAGE_ROOT" in reason) == (503, True)


def test_the_clock_of_the_heartbeat(jobs: Path) -> None:
    folder = make(jobs, NAME)
    os.utime(folder / "heartbeat", (time.time() + 500, time.time() + 500))
    assert read_job(place(folder), "d").message == "", "a clock set back is no silence"
    os.utime(folder / "heartbeat", (time.time() - 500, time.time() - 500))
    assert "no heartbeat for 5" in read_job(place(folder), "d").message
    assert read_job(place(folder, lost_after_s=None), "d").message.endswith(" s")
