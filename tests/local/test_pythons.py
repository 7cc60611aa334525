"""Which Python the environment is made with, on a fake tree of interpreters."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.pythons import SetupError, find_python


class Machine:
    """A folder that stands in for PATH and one for pyenv; each interpreter is a script that prints its version."""

    def __init__(self, root: Path) -> None:
        self.bin, self.home = root / "bin", root / "home"
        self.bin.mkdir()

    def python(self, path: Path, version: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\necho {version}\n")
        path.chmod(0o755)
        return path

    def on_path(self, name: str, version: str) -> Path:
        return self.python(self.bin / name, version)

    def in_pyenv(self, version: str, folder: str | None = None) -> Path:
        return self.python(self.home / ".pyenv" / "versions" / (folder or version) / "bin" / "python", version)

    def broken(self, name: str) -> None:
        """What a pyenv shim does while its version is not selected, and a Debian Python without ensurepip."""
        self.on_path(name, "").write_text("#!/bin/sh\nexit 127\n")

    def environ(self, **more: str) -> dict[str, str]:
        return {"PATH": str(self.bin), "HOME": str(self.home), **more}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_312_on_path_comes_before_all_others(machine: Machine) -> None:
    expected = machine.on_path("python3.12", "3.12.4")
    machine.on_path("python3.13", "3.13.1")
    machine.in_pyenv("3.12.9")
    assert find_python(machine.environ()) == (str(expected), "3.12.4", "on PATH")


def test_the_newest_312_of_pyenv_comes_before_313_on_path(machine: Machine) -> None:
    machine.on_path("python3.13", "3.13.1")
    machine.in_pyenv("3.12.9")
    expected = machine.in_pyenv("3.12.10")
    machine.in_pyenv("3.12.99", folder="3.12-dev")
    assert find_python(machine.environ()) == (str(expected), "3.12.10", "in pyenv")


def test_pyenv_root_is_honoured(machine: Machine, tmp_path: Path) -> None:
    expected = machine.python(tmp_path / "elsewhere" / "versions" / "3.12.3" / "bin" / "python", "3.12.3")
    environ = machine.environ(PYENV_ROOT=str(tmp_path / "elsewhere"))
    assert find_python(environ).path == str(expected)


def test_313_comes_before_311(machine: Machine) -> None:
    machine.on_path("python3.11", "3.11.9")
    expected = machine.in_pyenv("3.13.0")
    assert find_python(machine.environ()).path == str(expected)


def test_a_shim_that_does_not_run_is_passed_over(machine: Machine) -> None:
    machine.broken("python3.12")
    expected = machine.on_path("python3", "3.11.2")
    assert find_python(machine.environ()).path == str(expected)


def test_none_in_range_names_what_was_seen_and_the_variable(machine: Machine) -> None:
    old = machine.on_path("python3", "3.10.13")
    machine.broken("python3.12")
    with pytest.raises(SetupError, match=rf"no Python 3\.11.*python3\.12 \(does not run.*{old} \(3\.10\.13\).*PYTHON="):
        find_python(machine.environ())


def test_the_variable_python_wins(machine: Machine) -> None:
    machine.on_path("python3.12", "3.12.4")
    expected = machine.on_path("mine", "3.13.1")
    assert find_python(machine.environ(PYTHON="mine")) == (str(expected), "3.13.1", "from the variable PYTHON")


@pytest.mark.parametrize("version", ["3.10.13", "3.14.0", "2.7.18"])
def test_the_variable_python_with_another_version_is_refused(machine: Machine, version: str) -> None:
    machine.on_path("python3.12", "3.12.4")
    path = machine.on_path("mine", version)
    with pytest.raises(SetupError, match=f"PYTHON={path} is Python {version}: 3.11, 3.12 or 3.13 is needed"):
        find_python(machine.environ(PYTHON=str(path)))


def test_the_variable_python_that_does_not_run_is_refused(machine: Machine) -> None:
    with pytest.raises(SetupError, match="PYTHON=nonesuch does not run"):
        find_python(machine.environ(PYTHON="nonesuch"))
