"""The launcher for real: a whole Airflow is started, used by its API, and ended in every way a user ends it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from include.errors import UserError
from local.airflow import LocalAirflow
from local.home import PROJECT, AirflowError, Home, Running
from local.processes import alive, marked
from local.watch import follow

pytestmark = pytest.mark.airflow

LAUNCHER = """
import sys
from pathlib import Path
from local.airflow import LocalAirflow
from local.watch import follow

home, dags = map(Path, sys.argv[1:])
with LocalAirflow(home=home, dags=dags, plugins=dags / "none", port=0) as airflow, airflow.client() as client:
    run_id = client.trigger(client.dag("tiny"), {"hang_s": 600})
    follow(client, "tiny", run_id, check_alive=airflow.check_alive)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An Airflow home for all tests of this file, and a dags folder with the tiny DAG beside `include`."""
    home, dags = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("dags")
    (dags / "include").symlink_to(PROJECT / "include")
    (dags / ".airflowignore").write_text("include/\n")
    shutil.copy(Path(__file__).with_name("tiny_dag.py"), dags)
    return home, dags


@pytest.fixture(scope="class")
def airflow(folders: tuple[Path, Path]) -> Iterator[LocalAirflow]:
    home, dags = folders
    with LocalAirflow(home=home, dags=dags, plugins=dags / "none", port=0) as airflow:
        yield airflow
    assert marked(airflow.running.mark) == []


def ran(airflow: LocalAirflow, conf: dict[str, int]) -> tuple[str, str, list[str]]:
    """Run the tiny DAG: (final state, run id, lines said)."""
    lines: list[str] = []
    with airflow.client() as client:
        run_id = client.trigger(client.dag("tiny"), conf)
        return follow(client, "tiny", run_id, say=lines.append, check_alive=airflow.check_alive), run_id, lines


class TestOne:
    """One Airflow for all of these, ended before the tests after them start theirs on the same home."""

    def test_a_run_succeeds_and_its_result_can_be_fetched(self, airflow: LocalAirflow) -> None:
        state, run_id, lines = ran(airflow, {})
        assert state == "success"
        assert any("shard" in line and "3/3 done" in line for line in lines)
        with airflow.client() as client:
            assert client.xcom("tiny", run_id, "total") == {"total": 3}

    def test_a_failed_run_shows_the_error(self, airflow: LocalAirflow) -> None:
        state, _, lines = ran(airflow, {"bad": 1})
        assert state == "failed"
        assert "shard[1] failed at try 1; its log ends:" in lines
        assert "  ValueError: number 1 is bad" in lines

    def test_wrong_requests_are_one_line(self, airflow: LocalAirflow) -> None:
        with airflow.client() as client:
            details = client.dag("tiny")
            with pytest.raises(UserError, match="no key worse in DAG tiny: allowed are bad, hang_s"):
                client.trigger(details, {"worse": 1})
            with pytest.raises(UserError, match="conf of DAG tiny: .*'x' is not of type 'integer'"):
                client.trigger(details, {"bad": "x"})

    def test_it_listens_on_loopback_only(self, airflow: LocalAirflow) -> None:
        sockets = [c for p in marked(airflow.running.mark) for c in p.net_connections("inet") if c.status == "LISTEN"]
        assert {c.laddr.ip for c in sockets} == {"127.0.0.1"}

    def test_a_second_one_on_the_same_home_is_refused(self, airflow: LocalAirflow, folders: tuple[Path, Path]) -> None:
        with pytest.raises(AirflowError, match=f"already runs on .*: {airflow.running.url} .*make down"):
            LocalAirflow(home=folders[0], dags=folders[1], port=0).__enter__()
        airflow.check_alive()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_ends_all_in_the_middle_of_a_run(
    folders: tuple[Path, Path], tmp_path: Path, number: signal.Signals
) -> None:
    home, dags = folders
    command = [sys.executable, "-c", LAUNCHER, str(home), str(dags)]
    log = tmp_path / "log"
    with log.open("w") as file, subprocess.Popen(command, cwd=PROJECT, stdout=file, stderr=file) as launcher:
        try:
            running, escaped = hanging_run(home, launcher)
            launcher.send_signal(number)
            launcher.wait(timeout=120)
        finally:
            launcher.kill()
    assert f"Ended: {number.name}" in log.read_text()
    assert marked(running.mark) == []
    assert not any(alive(process) for process in escaped)
    assert Home(home).read_running() is None


def hanging_run(home: Path, launcher: subprocess.Popen[bytes]) -> tuple[Running, list[psutil.Process]]:
    """Wait until a task hangs: what runs, and the processes that the task has sent out of its group and session."""
    while launcher.poll() is None:
        running = Home(home).read_running()
        escaped = [p for p in marked(running.mark) if p.name() == "sleep"] if running else []
        if running and escaped:
            return running, escaped
        time.sleep(0.2)
    raise AssertionError("the launcher ended before its run began")
