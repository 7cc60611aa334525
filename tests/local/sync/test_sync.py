"""A sync: what is written, in which order, and what stands in the bucket after each way that it can end."""

from __future__ import annotations

import hashlib
import os
import subprocess
from subprocess import PIPE
from typing import Any

import pytest

import local.sync
from local.sync import SyncError
from tests.local.sync.deployment import DAG, ORDER, Deployment, fail_at


def test_a_first_sync_writes_all_of_it_in_order(mine: Deployment, loads: None) -> None:
    assert mine.sync() == ORDER
    assert mine.is_whole() and sorted(mine.lie()) == sorted(ORDER)
    manifest = mine.manifest()
    assert manifest["schema_version"] == 1 and manifest["git_revision"] is None
    assert manifest["object_versions"] == {path: mine.version(path) for path in ("plugins.zip", "requirements.txt")}
    assert f"7 added, 0 changed, 0 unchanged, 0 removed, 0 foreign; {manifest_size(manifest)} KiB to send" in mine.said
    head = mine.s3.head_object(Bucket=mine.bucket, Key="team/mwaa/dags/consumer/one.py")
    assert (
        head["Metadata"]["sha256"] == hashlib.sha256((mine.project / "dags/consumer/one.py").read_bytes()).hexdigest()
    )
    assert "fmops.target=aws" in mine.said


def test_the_manifest_names_the_commit(mine: Deployment, loads: None) -> None:
    def git(*arguments: str) -> str:
        who = ("-c", "user.name=n", "-c", "user.email=e")
        return subprocess.run(["git", *who, *arguments], cwd=mine.project, check=True, stdout=PIPE, text=True).stdout

    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "-m", "one")
    mine.sync()
    assert mine.manifest()["git_revision"] == git("rev-parse", "HEAD").strip()


def manifest_size(manifest: dict[str, Any]) -> str:
    return f"{sum(sent['bytes'] for sent in manifest['files']) / 1024:,.1f}"


def test_an_unchanged_project_writes_nothing(synced: Deployment) -> None:
    before = synced.manifest()
    for file in synced.project.rglob("*.py"):
        os.utime(file, (0, 0))
    assert synced.sync() == []
    assert "0 added, 0 changed, 7 unchanged" in synced.said and "Nothing else to do" in synced.said
    assert synced.manifest() == before


def test_a_changed_dag_of_the_same_size_and_time_is_sent_alone(synced: Deployment) -> None:
    file = synced.project / "dags/consumer/one.py"
    time_ns, text = file.stat().st_mtime_ns, file.read_text()
    file.write_text(text.replace("one", "two"))
    os.utime(file, ns=(time_ns, time_ns))
    assert synced.sync() == ["dags/consumer/one.py", "fmops-release.json"]
    assert synced.is_whole()
    assert "MWAA fetches DAG files by itself. Nothing else to do" in synced.said


def test_include_goes_before_the_dags(synced: Deployment) -> None:
    synced.edit("dags/a.py", DAG.format("a"))
    synced.edit("include/zones.py", "ZONES = ()\n")
    synced.edit("include/config.py", "NAME = 'ours-'\n")
    digest = synced.manifest()["include_digest"]
    assert synced.sync() == ["dags/include/config.py", "dags/include/zones.py", "dags/a.py", "fmops-release.json"]
    assert synced.manifest()["include_digest"] != digest


@pytest.mark.parametrize(
    ("path", "place"), [("plugins/mine/page.py", "plugins.zip"), ("requirements.txt", "requirements.txt")]
)
def test_plugins_and_requirements_need_an_update_of_the_environment(synced: Deployment, path: str, place: str) -> None:
    before = {name: synced.version(name) for name in ("plugins.zip", "requirements.txt")}
    synced.edit(path, "# something else\n")
    assert synced.sync() == [place, "fmops-release.json"]
    assert synced.version(place) != before[place]
    assert f"{place} changed: update the environment, which takes 20 to 30 minutes" in synced.said
    assert f"--plugins-s3-object-version {synced.version('plugins.zip')} \\\n" in synced.said
    assert f"--requirements-s3-object-version {synced.version('requirements.txt')}" in synced.said
    assert "--plugins-s3-path team/mwaa/plugins.zip" in synced.said


@pytest.mark.parametrize("marked", [False, True], ids=["as the console does", "with the mark kept"])
def test_what_somebody_changed_in_the_bucket_is_put_right(synced: Deployment, marked: bool) -> None:
    head = synced.s3.head_object(Bucket=synced.bucket, Key="team/mwaa/dags/consumer/one.py")
    changed = b"x" * head["ContentLength"]
    synced.put("dags/consumer/one.py", changed, Metadata=head["Metadata"] if marked else {})
    assert synced.sync() == ["dags/consumer/one.py", "fmops-release.json"]
    assert "changed  dags/consumer/one.py   (in the bucket it is not what the last sync put there)" in synced.said
    assert synced.is_whole()


def test_what_somebody_deleted_in_the_bucket_comes_back(synced: Deployment) -> None:
    synced.s3.delete_object(Bucket=synced.bucket, Key="team/mwaa/dags/include/config.py")
    assert synced.sync() == ["dags/include/config.py", "fmops-release.json"]
    assert synced.is_whole()


def test_what_a_release_put_there_goes_and_what_others_put_there_stays(synced: Deployment) -> None:
    synced.edit("dags/two.py", DAG.format("two"))
    synced.edit("include/old.py", "")
    synced.sync()
    (synced.project / "dags/two.py").unlink()
    (synced.project / "include/old.py").unlink()
    synced.put("dags/theirs.py", b"theirs")
    synced.put("dags/", b"")
    synced.put("data/rag/ledger", b"data")
    synced.put("dags/two.py", b"taken over by somebody")
    copied = {"Bucket": synced.bucket, "Key": "team/mwaa/dags/consumer/one.py"}
    synced.s3.copy_object(Bucket=synced.bucket, Key="team/mwaa/dags/copy.py", CopySource=copied)
    synced.s3.put_object(Bucket=synced.bucket, Key="dags/outside.py", Body=b"")
    assert synced.sync() == ["dags/include/old.py", "fmops-release.json"]
    assert "1 removed, 3 foreign" in synced.said and "removed  dags/include/old.py" in synced.said
    assert "foreign  dags/theirs.py   (no sync put it there: left)" in synced.said
    assert {"dags/theirs.py", "dags/two.py", "dags/copy.py", "data/rag/ledger"} <= synced.lie().keys()
    assert synced.get("dags/outside.py") == b"" and synced.is_whole()


def test_a_dry_run_writes_nothing(mine: Deployment, loads: None) -> None:
    assert mine.sync(dry_run=True) == [] and mine.lie() == {}
    assert "7 added" in mine.said and mine.said.endswith("DRY_RUN: nothing was written")
    mine.sync()
    before = mine.lie()
    mine.edit("include/config.py", "NAME = 'ours-'\n")
    (mine.project / "include/catalog/prices.yaml").unlink()
    assert mine.sync(dry_run=True) == [] and mine.lie() == before
    assert "1 changed" in mine.said and "removed  dags/include/catalog/prices.yaml" in mine.said


@pytest.mark.parametrize("place", [ORDER[0], "dags/include/config.py", "plugins.zip", "fmops-release.json"])
def test_a_first_sync_that_dies_is_repaired_by_the_next(mine: Deployment, loads: None, place: str) -> None:
    with pytest.raises(SyncError, match=f"writing {place}: Could not connect"):
        mine.sync(fail_at(place))
    assert mine.written == ORDER[: ORDER.index(place)] and "fmops-release.json" not in mine.lie()
    assert mine.sync() == ORDER[ORDER.index(place) :]
    assert mine.is_whole() and mine.sync() == []


@pytest.mark.parametrize("place", ["dags/include/config.py", "dags/new.py", "dags/two.py", "fmops-release.json"])
def test_a_later_sync_that_dies_leaves_the_old_manifest(synced: Deployment, place: str) -> None:
    synced.edit("dags/two.py", DAG.format("two"))
    synced.sync()
    before = synced.manifest()
    (synced.project / "dags/two.py").rename(synced.project / "dags/new.py")
    synced.edit("include/config.py", "NAME = 'ours-'\n")
    with pytest.raises(SyncError):
        synced.sync(fail_at(place))
    assert synced.manifest() == before
    (synced.project / "dags/new.py").rename(synced.project / "dags/newer.py")
    synced.sync()
    assert synced.is_whole() and not {"dags/two.py", "dags/new.py"} & synced.lie().keys()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("place", ["dags/include/__init__.py", "fmops-release.json"])
def test_of_two_syncs_at_once_the_second_stops(mine: Deployment, loads: None, first: bool, place: str) -> None:
    if not first:
        mine.sync()

    def meanwhile(path: str) -> None:
        if path == place:
            mine.edit("include/config.py", "NAME = 'theirs-'\n")
            mine.sync()

    mine.edit("include/__init__.py", "# changed\n")
    with pytest.raises(SyncError, match="another sync ended"):
        mine.sync(meanwhile)
    theirs = hashlib.sha256(b"NAME = 'theirs-'\n").hexdigest()
    assert theirs in [sent["sha256"] for sent in mine.manifest()["files"]]
    mine.sync()
    assert mine.is_whole()


def test_a_sync_that_waited_behind_another_writes_nothing(synced: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    def meanwhile(files: object, say: object) -> None:
        monkeypatch.setattr(local.sync, "check_loads", lambda files, say: None)
        synced.edit("include/config.py", "NAME = 'theirs-'\n")
        synced.sync()
        synced.written = []

    synced.edit("include/config.py", "NAME = 'ours-'\n")
    monkeypatch.setattr(local.sync, "check_loads", meanwhile)
    with pytest.raises(SyncError, match="another sync ended since this one made its plan"):
        synced.sync()
    assert synced.written == []
