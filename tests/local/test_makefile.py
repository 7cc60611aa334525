"""What the Makefile runs, and what reaches it; the Python that it finds is one that writes down what it was asked."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from local.home import PROJECT

ODD = """a b'c"d $HOME $(shell id) `id` \\ # 100% \u00e4"""


class Project:
    """The Makefile in a folder of its own, with an environment of Airflow's and one of jobs' that record calls."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._calls, self._texts = folder, folder / "calls", folder / "texts"
        shutil.copy(PROJECT / "Makefile", folder)
        for name in ("system", ".venv", ".venv-jobs"):
            python = folder / name / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.write_text(
                f'#!/bin/sh\n[ "$1" = -c ] && exit\necho "{name} $*" >>"{self._calls}"\nenv -0 >"{self._texts}"\n'
            )
            python.chmod(0o755)

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        self._calls.write_text("")
        environment = {"PATH": "/usr/bin:/bin", "PYTHON": str(self.folder / "system" / "bin" / "python")}
        return subprocess.run(
            ["make", *arguments], cwd=self.folder, env=environment, capture_output=True, text=True, timeout=60
        )

    @property
    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines()

    def text(self, name: str) -> str:
        """A variable, as the last program found it in its environment."""
        pairs = (pair.partition("=") for pair in self._texts.read_text().split("\0"))
        return next(value for key, _, value in pairs if key == name)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.parametrize("name", ["BUCKET", "PREFIX", "SETTINGS", "DRY_RUN"])
def test_what_the_user_writes_reaches_sync_letter_by_letter(project: Project, name: str) -> None:
    assert project.make("sync", f"{name}={ODD}").returncode == 0
    assert project.calls == ["system -m local.setup_environment airflow", ".venv -m local sync"]
    assert project.text(name) == ODD


def test_a_misspelt_variable_keeps_sync_from_writing(project: Project) -> None:
    done = project.make("sync", "BUCKET=mine", "DRYRUN=1")
    assert done.returncode != 0
    assert "sync does not know DRYRUN: write BUCKET, PREFIX, SETTINGS or DRY_RUN" in done.stderr
    assert done.stderr.count("\n") == 1
    assert ".venv -m local sync" not in project.calls
    assert project.make("sync", "BUCKET=mine", "DRY_RUN=1", "AWS_PROFILE=mine", "FMOPS_VENV=.venv").returncode == 0
    assert project.calls[-1] == ".venv -m local sync" and project.text("AWS_PROFILE") == "mine"


@pytest.mark.parametrize(("check", "option"), [([], ""), (["CHECK=1"], " --check")])
def test_images_runs_in_the_jobs_environment(project: Project, check: list[str], option: str) -> None:
    assert project.make("images", *check).returncode == 0
    assert project.calls == [
        "system -m local.setup_environment jobs",
        f".venv-jobs -W ignore::SyntaxWarning -m local.images{option}",
    ]


def test_the_jobs_environment_can_be_moved(project: Project) -> None:
    (project.folder / ".venv-jobs").rename(project.folder / "else where")
    assert project.make("images", "FMOPS_JOBS_VENV=else where").returncode == 0
    assert project.calls[-1].endswith("-m local.images")
    assert project.text("FMOPS_JOBS_VENV") == "else where"


def test_the_tests_of_ci_find_both_environments(project: Project) -> None:
    assert project.make("test").returncode == 0
    assert project.calls[:2] == [f"system -m local.setup_environment {kind}" for kind in ("airflow", "jobs")]
    assert project.calls[2].startswith(".venv -m pytest")


def test_demo_all_finds_both_environments_and_demo_needs_one(project: Project) -> None:
    airflow, jobs = (f"system -m local.setup_environment {kind}" for kind in ("airflow", "jobs"))
    assert project.make("demo-all").returncode == 0
    assert project.calls == [airflow, jobs, ".venv -m local demo-all"]
    assert project.make("demo").returncode == 0
    assert project.calls == [airflow, ".venv -m local demo"]


def test_help_lists_every_verb(project: Project) -> None:
    makefile = (PROJECT / "Makefile").read_text().replace("\\\n", "")
    verbs = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert verbs is not None
    listed = [line.split()[0] for line in project.make("help").stdout.splitlines()]
    assert sorted(listed) == sorted(verbs[1].split())
