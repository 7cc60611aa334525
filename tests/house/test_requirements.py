"""What we ask for installs on MWAA, and what we lock is what MWAA has. Needs the package index."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from requirement_files import PYTHONS, differ_from_mwaa, not_held, not_locked, not_pinned, pins, resolve

PROJECT = Path(__file__).resolve().parents[2]
MWAA = PROJECT / "mwaa" / "constraints-3.3.1.txt"
LOCK = PROJECT / "constraints.txt"
JOBS_LOCK = PROJECT / "constraints-jobs.txt"


def test_requirements_resolve_under_mwaa_constraints() -> None:
    assert resolve(PROJECT / "requirements.txt", MWAA) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("pandas==2.0.0", "you require pandas==2.0.0 and pandas==3.0.5"),
        ("langchain-aws==1.9.1", "you require langchain-aws==1.9.1"),  # wants a newer boto3 than MWAA's
    ],
    ids=["a pin of MWAA's", "what a package needs"],
)
def test_an_unresolvable_requirement_is_caught(line: str, message: str, tmp_path: Path) -> None:
    planted = tmp_path / "requirements.txt"
    planted.write_text(line)
    (found,) = resolve(planted, MWAA)
    assert "requirements.txt does not resolve under constraints-3.3.1.txt" in found
    assert message in " ".join(found.split())


def test_an_index_out_of_reach_is_not_taken_for_success(tmp_path: Path) -> None:
    planted = tmp_path / "requirements.txt"
    planted.write_text("pandas")
    nowhere = {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0", "UV_NO_CACHE": "1"}
    (found,) = resolve(planted, MWAA, nowhere)
    assert found.startswith("the package index could not be reached")


def test_lock_equals_mwaa() -> None:
    assert len(pins(LOCK.read_text(), "3.12").keys() & pins(MWAA.read_text(), "3.12").keys()) > 100
    assert differ_from_mwaa(LOCK.read_text(), MWAA.read_text()) == []


@pytest.mark.parametrize(
    ("name", "lock"),
    [("requirements.txt", LOCK), ("requirements-local.txt", LOCK), ("requirements-jobs.txt", JOBS_LOCK)],
)
def test_lock_covers_every_requirement(name: str, lock: Path) -> None:
    assert not_locked((PROJECT / name).read_text(), lock.read_text()) == []


@pytest.mark.parametrize("python", PYTHONS)
def test_the_locks_hold_all_that_is_installed(python: str) -> None:
    tools = ("--group", f"{PROJECT / 'pyproject.toml'}:dev")
    assert not_held(PROJECT / "requirements-local.txt", LOCK, python, *tools) == []
    assert not_held(PROJECT / "requirements-jobs.txt", JOBS_LOCK, python) == []


def test_a_package_that_only_others_need_is_missed_in_a_lock(tmp_path: Path) -> None:
    (planted := tmp_path / "requirements.txt").write_text("tenacity\nhttpcore\n")
    (lock := tmp_path / "constraints.txt").write_text("tenacity==9.1.4\nhttpcore==1.0.9\n")
    assert not_held(planted, lock, "3.12") == ["Python 3.12: certifi", "Python 3.12: h11"]
    lock.write_text("tenacity==0.0.1\n")
    (problem,) = not_held(planted, lock, "3.12")
    assert "requirements.txt does not resolve under constraints.txt" in problem


def test_the_sagemaker_sdk_is_in_the_jobs_environment_alone() -> None:
    sdk = {"sagemaker", "sagemaker-core"}
    for python in PYTHONS:
        assert sdk <= pins(JOBS_LOCK.read_text(), python).keys()
        assert not sdk & pins(LOCK.read_text(), python).keys()
    assert importlib.util.find_spec("sagemaker") is None


def test_what_is_installed_without_dependencies_is_pinned() -> None:
    assert not_pinned((PROJECT / "requirements-local-nodeps.txt").read_text()) == []
    assert not_pinned("one==1.0\ntwo>=2\nthree\n") == ["two>=2", "three"]


def test_no_requirements_file_is_forgotten() -> None:
    assert {file.name for file in PROJECT.glob("requirements*.txt")} == {
        "requirements.txt",
        "requirements-local.txt",
        "requirements-local-nodeps.txt",
        "requirements-jobs.txt",  # an environment and a lock of its own
    }


def test_a_lock_that_drifted_is_caught() -> None:
    lock = "Numpy==2.5.1 ; python_full_version >= '3.12'\nnumpy==2.4.0 ; python_full_version < '3.12'\nboto3==1.0\n"
    assert differ_from_mwaa(lock, "numpy==2.5.1\nboto3==1.43.56\n") == ["boto3: locked at 1.0, MWAA holds 1.43.56"]
    assert not_locked("numpy>=2.5  # reason\nboto3==1.0\nlancedb\n-r other.txt\n", lock) == [
        "Python 3.11: numpy>=2.5 is locked at 2.4.0",
        "Python 3.11: lancedb is not in the lock",
        "Python 3.12: lancedb is not in the lock",
        "Python 3.13: lancedb is not in the lock",
    ]
