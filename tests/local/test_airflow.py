"""What surrounds a local Airflow: its environment, what it says when it does not start, who may share it."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from include.errors import UserError
from local.airflow import LocalAirflow, already_running, running_airflow
from local.home import PROJECT, AirflowError, Home, Running
from local.options import environment, read_options
from local.processes import MARK, end_marked, marked

RUNNING = Running(
    url="http://127.0.0.1:18099", mark="m", launcher=1, started_at="2026-01-01T00:00:00+00:00", healthy=True
)


@pytest.fixture
def broken_airflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment whose `airflow` migrates, and whose scheduler fails with a word of its own."""
    program = tmp_path / "bin" / "airflow"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\ncase "$1" in\ndb) ;;\nscheduler) echo "no such table: dag"; exit 3 ;;\n*) exec sleep 600 ;;\nesac\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program.with_name("python")))


def test_options_are_read_without_comments(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# a comment\n\nA=1\nB=x=y # kept\n")
    assert read_options(tmp_path / "env") == {"A": "1", "B": "x=y # kept"}


def test_the_environment_is_the_projects_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("AIRFLOW_CONFIG", "/another/airflow.cfg")
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://production")
    monkeypatch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "True")
    monkeypatch.setenv("AIRFLOW__FMOPS__TENANT", "acme")
    options = {"AIRFLOW__CORE__PARALLELISM": "2", MARK: "stolen"}
    env = environment(Home(tmp_path), RUNNING, dags=tmp_path / "d", plugins=tmp_path / "p", options=options)
    assert "PYTHONPATH" not in env and "AIRFLOW_CONFIG" not in env
    assert env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == f"sqlite:///{tmp_path}/airflow.db"
    assert env["AIRFLOW__CORE__LOAD_EXAMPLES"] == "False"
    assert env["AIRFLOW__FMOPS__TENANT"] == "acme"
    assert env["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:18099/execution/"
    assert env["AIRFLOW__API__PORT"] == "18099" and env["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert env["AIRFLOW__CORE__PARALLELISM"] == "2"
    assert env[MARK] == "m"
    assert env["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


@pytest.mark.parametrize(
    ("shell", "python"),
    [
        ({}, None),
        ({"FMOPS_JOBS_VENV": "other"}, str(PROJECT / "other" / "bin" / "python")),
        ({"FMOPS_JOBS_VENV": "/other"}, "/other/bin/python"),
        ({"FMOPS_JOBS_VENV": "other", "FMOPS_JOB_PYTHON": "/mine/python"}, "/mine/python"),
    ],
)
def test_jobs_find_a_moved_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: dict[str, str], python: str | None
) -> None:
    monkeypatch.delenv("FMOPS_JOBS_VENV", raising=False)
    for name, value in shell.items():
        monkeypatch.setenv(name, value)
    env = environment(Home(tmp_path), RUNNING, dags=tmp_path, plugins=tmp_path, options={})
    assert env.get("FMOPS_JOB_PYTHON") == python


@pytest.mark.usefixtures("broken_airflow")
def test_a_component_that_dies_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    airflow = LocalAirflow(home=tmp_path / "home", dags=tmp_path, plugins=tmp_path, port=0, say=lambda _line: None)
    with pytest.raises(
        AirflowError, match=r"^airflow scheduler ended with status 3; its log .*\n  no such table: dag$"
    ):
        airflow.__enter__()
    assert marked(airflow.running.mark) == []
    assert not airflow.home.is_held() and airflow.home.read_running() is None


@pytest.mark.usefixtures("broken_airflow")
def test_what_a_killed_launcher_left_is_ended_first(tmp_path: Path) -> None:
    home, said = Home(tmp_path / "home"), []
    home.prepare()
    mark = uuid.uuid4().hex
    with subprocess.Popen(["sleep", "600"], env={**os.environ, MARK: mark}) as left:
        home.write_running(Running(url="http://127.0.0.1:1", mark=mark, launcher=1, started_at="", healthy=True))
        with pytest.raises(AirflowError, match="scheduler ended"):
            LocalAirflow(home=home.path, dags=tmp_path, plugins=tmp_path, port=0, say=said.append).__enter__()
        assert left.wait() != 0
    assert said[0] == "airflow: ending what an earlier launcher left running"
    assert end_marked(mark) == []


def test_a_taken_port_is_found_before_anything_starts(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        airflow = LocalAirflow(home=tmp_path / "home", port=server.getsockname()[1])
        with pytest.raises(UserError, match="FMOPS_PORT"):
            airflow.__enter__()
    assert not airflow.home.is_held()


def test_a_running_airflow_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMOPS_AIRFLOW_HOME", str(tmp_path))
    holder = Home(tmp_path)
    holder.prepare()
    assert holder.hold()
    holder.write_running(RUNNING)
    said: list[str] = []
    with running_airflow(said.append) as (running, check_alive):
        assert running == RUNNING
        assert said == [f"airflow: using the one that runs at {RUNNING.url}"]
        check_alive()
        holder.release()
        with pytest.raises(AirflowError, match=f"the Airflow on {tmp_path} has ended"):
            check_alive()


def test_the_line_about_a_running_airflow_says_where(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert "has just begun" in already_running(home)
    home.write_running(RUNNING)
    assert already_running(home).startswith(f"an Airflow already runs on {tmp_path}: {RUNNING.url} (process 1)")
