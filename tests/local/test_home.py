"""The home of a local Airflow: its lock, password, disk and port."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from include.errors import UserError
from local.home import PROJECT, Home, Running, airflow_home, airflow_port, usable_port

PLENTY = 10**12


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.prepare()
    return home


def test_one_launcher_holds_a_home_at_a_time(home: Home) -> None:
    other = Home(home.path)
    assert not other.is_held()
    assert home.hold()
    assert other.is_held() and not other.hold()
    home.release()
    assert not other.is_held() and other.hold()
    other.release()


def test_a_home_that_does_not_exist_is_not_held(tmp_path: Path) -> None:
    home = Home(tmp_path / "none")
    assert not home.is_held() and not home.is_made() and home.read_running() is None


def test_what_runs_is_read_as_written_and_forgotten(home: Home) -> None:
    running = Running(
        url="http://127.0.0.1:1", mark="m", launcher=1, started_at="2026-01-01T00:00:00+00:00", healthy=True
    )
    home.write_running(running)
    assert Home(home.path).read_running() == running
    home.forget_running()
    assert home.read_running() is None


def test_the_password_stays_and_is_private(home: Home) -> None:
    password = home.password()
    assert len(password) >= 12
    assert Home(home.path).password() == password
    assert stat.S_IMODE(home.password_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700


def test_two_homes_have_two_passwords(home: Home, tmp_path: Path) -> None:
    other = Home(tmp_path / "other")
    other.prepare()
    assert other.password() != home.password()


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with pytest.raises(UserError, match=rf"{home.path} has 0\.4 GB free, Airflow needs 1 GB.*FMOPS_AIRFLOW_HOME"):
        home.prepare(lambda _path: 4 * 10**8)
    home.prepare(lambda _path: PLENTY)
    assert home.is_made()


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/home cannot be used .*FMOPS_AIRFLOW_HOME"):
        Home(tmp_path / "file" / "home").prepare()


def test_a_taken_port_is_named_and_a_free_one_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} cannot be used .*FMOPS_PORT"):
            usable_port(port)
    assert usable_port(port) == port
    assert usable_port(0) > 0


@pytest.mark.parametrize(("text", "port"), [("", 8080), ("0", 0), ("18080", 18080)])
def test_ports(text: str, port: int) -> None:
    assert airflow_port({"FMOPS_PORT": text}) == port


@pytest.mark.parametrize("text", ["http", "-1", "65536", "80.5", "\u0663"])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=f"FMOPS_PORT={text} is not a port"):
        airflow_port({"FMOPS_PORT": text})


def test_the_home_can_be_moved(tmp_path: Path) -> None:
    assert airflow_home({}) == PROJECT / ".airflow"
    assert airflow_home({"FMOPS_AIRFLOW_HOME": str(tmp_path)}) == tmp_path
