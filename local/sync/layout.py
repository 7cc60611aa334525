"""What a sync sends: the files of a release, held whole so that what was checked is what is sent."""

from __future__ import annotations

import fnmatch
import hashlib
import io
import os
import re
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from include.errors import UserError

IGNORE = "dags/.airflowignore"
INCLUDE = "dags/include/"
SETTINGS = "dags/include/settings.toml"
PLUGINS = "plugins.zip"
REQUIREMENTS = "requirements.txt"

NOT_SENT = ("__pycache__", "tests", "*.pyc")
SECRET_NAMES = (
    *("*.env", ".env.*", ".netrc", ".pypirc", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks"),
    *("id_rsa*", "id_ed25519*", "credentials", "*credentials.json", "*credentials.csv", "*accesskeys.csv"),
)
SECRET_CONTENT = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----|\b(AKIA|ASIA)[0-9A-Z]{16}\b")


@dataclass(frozen=True, kw_only=True)
class File:
    """One object of a release."""

    path: str
    """Its place below the prefix, such as dags/consumer/rag_ingestion.py."""

    data: bytes

    @cached_property
    def sha256(self) -> str:
        """What differences are found by."""
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def md5(self) -> str:
        """The ETag that S3 gives these bytes, unless a KMS key encrypts them."""
        return hashlib.md5(self.data, usedforsecurity=False).hexdigest()


def collect(project: Path, settings: Path | None = None) -> list[File]:
    """The files of a release in the order in which they are put; UserError for a secret, a link or a missing part.

    The rule that hides include/ from the DAG processor comes first, then include/, so that a DAG file never meets an
    include/ older than itself, then the other DAG files, the plugins and the requirements.
    """
    for needed in ("dags", "include", "plugins", REQUIREMENTS):
        if not (project / needed).exists():
            raise UserError(f"{project / needed} is missing: sync from a whole checkout")
    if (project / "dags" / "include").resolve() != (project / "include").resolve():
        raise UserError("dags/include is not a link to ../include: git makes it where core.symlinks is true")
    files = [File(path=INCLUDE + name, data=data) for name, data in _tree(project, "include")]
    files = [file for file in files if file.path != SETTINGS]  # those of this machine
    if settings is not None:
        files.append(_settings(settings))
    files += [File(path=f"dags/{name}", data=data) for name, data in _tree(project, "dags")]
    ignored = next((file.data for file in files if file.path == IGNORE), b"")
    if b"include/" not in ignored.splitlines():
        raise UserError(f"{IGNORE} lacks the line include/: Airflow would parse what DAG files only share")
    files.append(File(path=PLUGINS, data=pack(_tree(project, "plugins"))))
    files.append(File(path=REQUIREMENTS, data=_read(project, Path(REQUIREMENTS))))
    return sorted(files, key=_turn)


def _turn(file: File) -> tuple[int, str]:
    """When a file is put."""
    if file.path == IGNORE:
        return 0, file.path
    if file.path.startswith("dags/"):
        return (1 if file.path.startswith(INCLUDE) else 2), file.path
    return 3, file.path


def pack(files: Iterable[tuple[str, bytes]]) -> bytes:
    """A zip archive whose bytes depend on names and contents alone.

    Stored, not compressed: other builds of zlib compress to other bytes, and each change of plugins.zip costs an update
    of the environment.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(files):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, whatever system packs
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data)
    return buffer.getvalue()


def include_digest(files: Iterable[File]) -> str:
    """What include.release.release_digest() will say on these files, which every DAG's first task prints."""
    from include.storage import digest

    modules = sorted(
        (Path(file.path.removeprefix(INCLUDE)), file.data)
        for file in files
        if file.path.startswith(INCLUDE) and file.path.endswith(".py")
    )
    return digest(*(part for name, data in modules for part in (name.as_posix(), data)))[:12]


def _tree(project: Path, folder: str) -> Iterator[tuple[str, bytes]]:
    """Paths below a folder of the project, and their contents; hidden files, tests and what Python compiled are not."""
    for at, folders, names in os.walk(project / folder):
        for name in sorted(folders + names):
            file = (Path(at) / name).relative_to(project)
            if any(fnmatch.fnmatch(name.lower(), pattern) for pattern in SECRET_NAMES):
                raise UserError(f"{file} looks like a secret, which all readers of the bucket could read: move it away")
            if (project / file).is_symlink() and file != Path("dags/include"):
                raise UserError(f"{file} is a link, which a sync does not follow: put the file itself there")
        folders[:] = [name for name in folders if _is_sent(name)]
        for name in filter(_is_sent, names):
            file = (Path(at) / name).relative_to(project)
            yield file.relative_to(folder).as_posix(), _read(project, file)


def _is_sent(name: str) -> bool:
    if name.startswith("."):
        return name == ".airflowignore"
    return not any(fnmatch.fnmatch(name, pattern) for pattern in NOT_SENT)


def _read(project: Path, file: Path) -> bytes:
    data = (project / file).read_bytes()
    found = SECRET_CONTENT.search(data)
    if found:
        line = data[: found.start()].count(b"\n") + 1
        raise UserError(f"{file}:{line} looks like a private key or an AWS access key: take it out, and revoke it")
    return data


def _settings(path: Path) -> File:
    """The settings file that the user named."""
    from include.config import Settings

    if not path.is_file():
        raise UserError(f"SETTINGS={path} is not a file")
    data = _read(path.parent.absolute(), Path(path.name))
    try:
        names = tomllib.loads(data.decode())
    except ValueError as error:  # of TOML or of UTF-8
        raise UserError(f"SETTINGS={path} is not TOML: {error}") from None
    for name in names:
        if name not in Settings.model_fields:
            raise UserError(f"SETTINGS={path}: {name} is not a setting of include/config.py")
        if "SecretStr" in str(Settings.model_fields[name].annotation):
            raise UserError(
                f"SETTINGS={path}: {name} is a secret, which all readers of the bucket could read: set it as the "
                f"configuration option fmops.{name} of the environment"
            )
    return File(path=SETTINGS, data=data)
