"""What a release holds, and what may not be in it."""

from __future__ import annotations

import io
import os
import shutil
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.errors import UserError
from include.release import release_digest
from local.home import PROJECT
from local.sync.layout import collect, include_digest, pack
from tests.local.sync.deployment import ORDER, Deployment


def test_the_same_files_make_the_same_zip(mine: Deployment, tmp_path: Path) -> None:
    before = mine.project / "plugins"
    after = shutil.copytree(before, tmp_path / "again" / "plugins")
    os.utime(after / "mine/page.py", (time.time(), 0))
    (after / "mine/page.py").chmod(0o600)
    packed = [pack(_files(folder)) for folder in (before, after)]
    assert packed[0] == packed[1] == pack(reversed(list(_files(before))))
    with zipfile.ZipFile(io.BytesIO(packed[0])) as archive:
        assert archive.namelist() == [".airflowignore", "mine/__init__.py", "mine/page.py"]
    (after / "mine/page.py").write_text("import nine\n")
    assert pack(_files(after)) != packed[0]


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for file in folder.rglob("*"):
        if file.is_file():
            yield file.relative_to(folder).as_posix(), file.read_bytes()


def test_what_is_not_sent(mine: Deployment) -> None:
    for path in (
        *("include/__pycache__/config.cpython-312.pyc", "include/old.pyc", "dags/tests/test_one.py", "include/.hidden"),
        *(
            "dags/.ipynb_checkpoints/one.py",
            "include/settings.toml",
            "plugins/mine/__pycache__/x.pyc",
            "data/x",
            "x.py",
        ),
    ):
        mine.edit(path, "target = 'local'")
    assert [file.path for file in collect(mine.project)] == ORDER[:-1]


@pytest.mark.parametrize(
    "path",
    [
        "include/.env",
        "dags/prod.env",
        "plugins/mine/server.pem",
        "include/aws/credentials",
        "dags/id_rsa",
        "dags/A.KEY",
    ],
)
def test_a_secret_by_its_name_is_refused(mine: Deployment, path: str) -> None:
    mine.edit(path, "")
    with pytest.raises(UserError, match=f"{path} looks like a secret") as raised:
        mine.sync()
    assert mine.lie() == {} and "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["key = 'AKIA" + "ABCDEFGH12345678'", "-----BEGIN RSA " + "PRIVATE KEY-----"])
@pytest.mark.parametrize("path", ["include/config.py", "plugins/mine/page.py", "requirements.txt"])
def test_a_secret_by_its_content_is_refused(mine: Deployment, path: str, text: str) -> None:
    mine.edit(path, f"# one\n{text}\n")
    with pytest.raises(UserError, match=f"{path}:2 looks like a private key or an AWS access key") as raised:
        mine.sync()
    assert mine.lie() == {} and text not in str(raised.value)


def test_a_link_is_refused(mine: Deployment, tmp_path: Path) -> None:
    (mine.project / "dags/passwords.py").symlink_to("/etc/passwd")
    with pytest.raises(UserError, match="dags/passwords.py is a link"):
        collect(mine.project)


def test_a_checkout_that_is_not_whole_is_refused(mine: Deployment) -> None:
    mine.edit("dags/.airflowignore", "tests/\n")
    with pytest.raises(UserError, match="lacks the line include/"):
        collect(mine.project)
    (mine.project / "dags/include").unlink()
    with pytest.raises(UserError, match="dags/include is not a link"):
        collect(mine.project)
    shutil.rmtree(mine.project / "plugins")
    with pytest.raises(UserError, match="plugins is missing"):
        collect(mine.project)


def test_settings_are_sent_only_by_name_and_kept_until_said(mine: Deployment, loads: None, tmp_path: Path) -> None:
    (tmp_path / "aws.toml").write_text("target = 'aws'\n")
    assert "dags/include/settings.toml" in mine.sync(settings=str(tmp_path / "aws.toml"))
    assert mine.lie()["dags/include/settings.toml"] == b"target = 'aws'\n"
    with pytest.raises(UserError, match=r"name the file again by SETTINGS=\.\.\., or remove it by SETTINGS=none"):
        mine.sync()
    assert mine.sync(settings="none") == ["dags/include/settings.toml", "fmops-release.json"]
    assert mine.sync() == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("target =", "is not TOML"),
        ("traget = 'aws'", "traget is not a setting of include/config.py"),
        ("opensearch_password = 'x'", "opensearch_password is a secret.*fmops.opensearch_password"),
        (None, "is not a file"),
    ],
)
def test_settings_that_cannot_be_sent(mine: Deployment, tmp_path: Path, text: str | None, why: str) -> None:
    if text is not None:
        (tmp_path / "aws.toml").write_text(text)
    with pytest.raises(UserError, match=f"SETTINGS={tmp_path}/aws.toml:? {why}"):
        mine.sync(settings=str(tmp_path / "aws.toml"))


def test_tasks_print_the_digest_that_the_manifest_holds() -> None:
    assert include_digest(collect(PROJECT)) == release_digest()
