"""`make sync` from its variables to the bucket, with the project itself."""

from __future__ import annotations

import sys

import pytest

import local.__main__ as launcher
from local.sync import SyncError
from tests.local.sync.deployment import Deployment


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch, mine: Deployment, loads: None) -> pytest.MonkeyPatch:
    monkeypatch.setattr(sys, "argv", ["local", "sync"])
    monkeypatch.setenv("BUCKET", mine.bucket)
    monkeypatch.setenv("PREFIX", mine.prefix)
    return monkeypatch


def test_it_sends_the_project_unless_it_is_a_dry_run(
    verb: pytest.MonkeyPatch, mine: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    verb.setenv("DRY_RUN", "1")
    assert launcher.main() == 0
    assert "DRY_RUN: nothing was written" in capsys.readouterr().out
    assert mine.lie() == {}
    verb.setenv("DRY_RUN", "0")
    assert launcher.main() == 0
    assert mine.lie().keys() >= {"dags/include/config.py", "dags/operations/smoke.py", "plugins.zip"}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("BUCKET", "", "BUCKET is not set: write for example make sync BUCKET=my-mwaa-bucket"),
        ("BUCKET", "s3://mine/", "BUCKET=s3://mine/ is not the name of a bucket"),
        ("PREFIX", "/mwaa", "PREFIX=/mwaa is not a prefix"),
        ("SETTINGS", "no.toml", "no.toml"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    verb: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, words: str
) -> None:
    verb.setenv(name, value)
    assert launcher.main() == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_a_sync_that_stops_in_between_is_status_1(verb: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped(*_: object, **__: object) -> int:
        raise SyncError("another sync ended while this one wrote: run it again")

    verb.setattr(launcher, "sync", stopped)
    assert launcher.main() == 1
    assert capsys.readouterr().err == "error: another sync ended while this one wrote: run it again\n"
