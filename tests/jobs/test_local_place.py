"""What the local backend asks of a machine, and the logs of its jobs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from include.config import Settings
from include.errors import UserError
from include.jobs import local
from include.jobs.local import LocalBackend
from local.setup_environment import STAMP
from tests.jobs.trials import Trials, trials, until

__all__ = ["trials"]


def test_lines_of_a_log_are_whole_and_can_be_shown(trials: Trials) -> None:
    name = trials.start("chat")
    until(lambda: (trials.folder / name / "log").read_bytes().endswith(b"half") if trials.status(name).progress else 0)
    lines, place = trials.backend.log("training", name)
    shown = [line for line in lines if not line.startswith("fmops-progress")]
    assert shown == ["first", "bad \N{REPLACEMENT CHARACTER} byte", "100%", "y" * local.LOG_CHARACTERS]
    assert trials.backend.log("training", name, place) == ([], place)
    (trials.texts / "go").touch()
    trials.end(name)
    lines, place = trials.backend.log("training", name, json.loads(json.dumps(place)))
    assert lines == ["half whole", "last without an end"]
    assert trials.backend.log("training", name, place) == ([], place)


def test_a_long_log_comes_in_parts(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "LOG_BYTES", 100)
    monkeypatch.setattr(local, "LOG_LINES", 3)
    name = trials.start()
    trials.end(name)
    (trials.folder / name / "log").write_bytes(b"".join(b"%d\n" % n for n in range(8)) + b"z" * 250 + b"\nend")
    parts, place = [], None
    while (answer := trials.backend.log("training", name, place))[0]:
        parts.append(answer[0])
        place = answer[1]
    assert [line for part in parts for line in part][:8] == [str(n) for n in range(8)]
    assert "".join(line for part in parts for line in part[:])[8:] == "z" * 250 + "end"
    assert max(map(len, parts)) == 3


def test_what_cannot_run_here_is_refused_in_one_line(trials: Trials, tmp_path: Path) -> None:
    named, texts = trials.named(), f"file://{trials.texts}"
    trials.backend.check(named)

    def refusal(python: str | None = None, **values: Any) -> str:
        changed = named.model_copy(update={"spec": named.spec.model_copy(update=values)})
        with pytest.raises(UserError) as error:
            LocalBackend(trials.settings.model_copy(update={"job_python": python})).check(changed)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "there is no include/nowhere.py" in refusal(script="include.nowhere")
    assert "channel texts='s3://b/k': local jobs read folders" in refusal(channels={"texts": "s3://b/k"})
    assert "is no folder" in refusal(channels={"texts": texts + "/a.txt"})
    assert "cannot be run: set FMOPS_JOB_PYTHON" in refusal(python=str(tmp_path / "none"))


def test_a_job_that_needs_torch_is_refused_where_it_is_not(trials: Trials, tmp_path: Path) -> None:
    """By a Python that has what it is told to have, which is asked for by name."""

    def check(image: str, missing: str) -> None:
        (python := tmp_path / "python").write_text(f'#!/bin/sh\ncase "$*" in *torch*) echo {missing} ;; esac\n')
        python.chmod(0o755)
        backend = LocalBackend(trials.settings.model_copy(update={"job_python": str(python)}))
        backend.check(trials.named(resources={"image": image}))

    with pytest.raises(UserError, match=r"needs torch, transformers, which .*python has not: run `make setup-jobs`"):
        check("torch-cpu", "torch transformers")
    check("torch-cpu", "")
    check("cpu", "torch transformers")


def test_the_job_folder_is_below_a_storage_root_that_is_one(tmp_path: Path) -> None:
    assert LocalBackend(Settings(storage_root=tmp_path.as_uri())).folder == tmp_path / "jobs"
    assert LocalBackend(Settings(storage_root="s3://b/k", job_folder=str(tmp_path))).folder == tmp_path
    with pytest.raises(UserError, match="job_folder is not set and storage_root='s3://b/k' is no folder"):
        _ = LocalBackend(Settings(storage_root="s3://b/k")).folder


def test_little_disk_is_warned_of(
    trials: Trials, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trials.backend.check(trials.named())
    assert "MiB left" not in caplog.text
    monkeypatch.setattr(local, "LITTLE_DISK", 2**80)
    trials.backend.check(trials.named())
    assert "MiB left" in caplog.text


def test_the_jobs_environment_is_taken_once_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = tmp_path / ".venv-jobs"
    (beside / "bin").mkdir(parents=True)
    (beside / "bin" / "python").symlink_to(sys.executable)
    monkeypatch.setattr(local, "PROJECT", tmp_path)
    backend = LocalBackend(Settings(storage_root=tmp_path.as_uri()))
    stamp = beside / STAMP
    assert stamp.name == local.STAMP
    for text, python in (("", Path(sys.executable)), ("made", beside / "bin" / "python")):
        stamp.write_text(text)
        assert backend.python == python
