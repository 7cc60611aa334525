"""Make a virtual environment of the project's: Airflow's (`make setup`) or that of jobs (`make setup-jobs`).

Runs as `python3 -m local.setup_environment airflow|jobs` under any Python from 3.8 on, with the standard library only.
A stamp file inside an environment holds the digest of all that it was made from: while that holds, a call ends at once
and touches no network.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from local.pythons import Python, SetupError, find_python

PROJECT = Path(__file__).resolve().parent.parent
UV = "uv==0.13.9"


class Size(NamedTuple):
    """What an environment takes."""

    download_mb: int
    """All wheels for Linux x86_64 and Python 3.12, and uv: the sizes that `uv pip compile --format pylock.toml` lists,
    summed over one wheel per package."""
    needed_gb: float
    """On the disk, and as much again and more: room to unpack, and for uv's cache on the same disk."""
    note: str
    """What else there is to say of the download."""


class Environment(NamedTuple):
    """An environment that the project needs."""

    verb: str
    variable: str
    """Names another folder for it."""
    folder: str
    files: tuple[str, ...]
    """What it is made from; a change of one is installed by the next call."""
    installs: tuple[tuple[str, tuple[str, ...]], ...]
    """Steps, each with its arguments for `uv pip install`."""
    size: Size
    size_without_gpu: Size | None = None
    """With PyTorch's build for CPUs, which uv installs if UV_TORCH_BACKEND=cpu."""

    def size_by(self, environ: Mapping[str, str]) -> Size:
        """What it takes by these variables."""
        return (self.size_without_gpu if environ.get("UV_TORCH_BACKEND") == "cpu" else None) or self.size

    def path(self, project: Path, environ: Mapping[str, str]) -> Path:
        """Where it stands, or is to stand."""
        return project / Path(environ.get(self.variable) or self.folder).expanduser()


AIRFLOW = Environment(
    verb="setup",
    variable="FMOPS_VENV",
    folder=".venv",
    files=(
        "requirements.txt",
        "requirements-local.txt",
        "requirements-local-nodeps.txt",
        "constraints.txt",
        "pyproject.toml",
    ),
    installs=(
        ("install the requirements", ("-r", "requirements-local.txt", "--group", "dev", "-c", "constraints.txt")),
        ("install the requirements without dependencies", ("-r", "requirements-local-nodeps.txt", "--no-deps")),
    ),
    size=Size(570, 3.2, "no torch"),
)
JOBS = Environment(
    verb="setup-jobs",
    variable="FMOPS_JOBS_VENV",
    folder=".venv-jobs",
    files=("requirements-jobs.txt", "constraints-jobs.txt"),
    installs=(("install the requirements", ("-r", "requirements-jobs.txt", "-c", "constraints-jobs.txt")),),
    size=Size(3270, 14.0, "most of it torch's CUDA build"),
    size_without_gpu=Size(280, 4.0, "and torch's CPU build"),
)
ENVIRONMENTS = {"airflow": AIRFLOW, "jobs": JOBS}

STAMP = ".fmops-stamp"
"""Lies in an environment that we made, from its first moment on; empty until the environment is whole."""

# uv's variable; others that make it needless; pip's variables; pip's option; what separates several values for uv.
INDEX_VARIABLES: tuple[tuple[str, tuple[str, ...], tuple[str, ...], str, str | None], ...] = (
    ("UV_DEFAULT_INDEX", ("UV_INDEX_URL",), ("PIP_INDEX_URL",), "index-url", None),
    ("UV_INDEX", ("UV_EXTRA_INDEX_URL",), ("PIP_EXTRA_INDEX_URL",), "extra-index-url", " "),
    ("UV_FIND_LINKS", (), ("PIP_FIND_LINKS",), "find-links", ","),
    ("UV_INSECURE_HOST", (), ("PIP_TRUSTED_HOST",), "trusted-host", " "),
    ("SSL_CERT_FILE", (), ("PIP_CERT", "REQUESTS_CA_BUNDLE"), "cert", None),
    ("ALL_PROXY", ("all_proxy", "HTTPS_PROXY", "https_proxy"), ("PIP_PROXY",), "proxy", None),
)


def pip_settings(listing: str) -> dict[str, str]:
    """What pip's configuration files say, from `pip config list`; section install wins over global."""
    found = {}
    for section in ("global.", "install."):
        for line in listing.splitlines():
            name, separator, value = line.partition("=")
            if separator and name.startswith(section):
                found[name[len(section) :]] = str(ast.literal_eval(value))
    return found


def uv_environment(environ: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """The environment for uv: all as it is, and pip's index settings where uv's own are absent."""
    result = dict(environ)
    for target, others, sources, option, separator in INDEX_VARIABLES:
        if any(environ.get(name) for name in (target, *others)):
            continue
        values = [environ.get(name) for name in sources] + [settings.get(option)]
        value = next((v for v in values if v), None)
        if value:
            result[target] = value if separator is None else separator.join(value.split())
    return result


def wanted_stamp(kind: Environment, project: Path, version: str) -> str:
    """The digest of all that the environment is made from."""
    state = hashlib.sha256(f"{UV}\n{version}\n".encode())
    for name in kind.files:
        data = (project / name).read_bytes()
        state.update(f"{name} {len(data)}\n".encode() + data)
    return state.hexdigest()


def venv_version(venv: Path) -> str:
    """The full Python version of an environment, "" if there is none or its interpreter is gone."""
    configuration = venv / "pyvenv.cfg"
    if not (configuration.is_file() and (venv / "bin" / "python").exists()):
        return ""
    for line in configuration.read_text().splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "version":
            return value.strip()
    return ""


def is_current(kind: Environment, project: Path, environ: Mapping[str, str]) -> bool:
    """Whether the environment is whole and made from these files, by the Python that PYTHON names (if any)."""
    venv = kind.path(project, environ)
    version = venv_version(venv)
    stamp = venv / STAMP
    if not version or not stamp.is_file() or stamp.read_text() != wanted_stamp(kind, project, version):
        return False
    return not environ.get("PYTHON") or find_python(environ).version == version


def check_disk(kind: Environment, venv: Path, needed_gb: float, free_bytes: Callable[[Path], int]) -> None:
    """SetupError if the disk that is to hold the environment is short of room."""
    free_gb = free_bytes(venv) / 1e9
    if free_gb < needed_gb:
        raise SetupError(
            f"{venv} has {free_gb:.1f} GB free, the environment needs {needed_gb:.0f} GB: free some, or set "
            f"{kind.variable} to a folder on another disk"
        )


@contextmanager
def claimed(kind: Environment, venv: Path) -> Iterator[None]:
    """Hold the environment's folder against a second setup; SetupError if the folder is somebody else's."""
    stamp = venv / STAMP
    if venv.exists() and not stamp.exists() and (not venv.is_dir() or any(venv.iterdir())):
        raise SetupError(
            f"{venv} was not made by `make {kind.verb}`: move it away, or set {kind.variable} to another folder"
        )
    try:
        venv.mkdir(parents=True, exist_ok=True)
        file = stamp.open("a")
    except OSError as error:
        raise SetupError(f"{venv} cannot be written ({error.strerror}): set {kind.variable}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(f"setup: another setup is at work on {venv}, waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def empty(venv: Path) -> None:
    """Remove what an interrupted setup, or another Python, left behind; all but the stamp."""
    for entry in venv.iterdir():
        if entry.name == STAMP:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


class Steps:
    """Runs the commands of one setup in the project's folder, all their output into one log."""

    def __init__(self, project: Path, log: Path) -> None:
        self.project, self.log = project, log

    def run(self, step: str, command: list[str], environ: Mapping[str, str]) -> None:
        """Run one command, its milestones also to the screen; SetupError if it fails."""
        with self.log.open("a") as log:
            log.write(f"$ {' '.join(command)}\n")
            status = self._run(command, environ, log)
        if status:
            raise SetupError(
                f"step {step!r} failed, its log is {self.log}; if the package index could not be reached, see "
                "HTTPS_PROXY, UV_DEFAULT_INDEX (or PIP_INDEX_URL) and SSL_CERT_FILE"
            )

    def _run(self, command: list[str], environ: Mapping[str, str], log: TextIO) -> int:
        both: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        with subprocess.Popen(command, env=dict(environ), cwd=self.project, **both) as process:
            try:
                for line in process.stdout or ():
                    log.write(line)
                    if line.startswith(("Resolved ", "Prepared ", "Installed ")):
                        print(f"setup:   {line.rstrip()}", flush=True)
            except BaseException:
                process.terminate()
                raise
        return process.returncode


def build(kind: Environment, project: Path, python: Python, environ: Mapping[str, str]) -> None:
    """Make the environment, or bring a whole one of the same Python up to the lock."""
    venv = kind.path(project, environ)
    steps = Steps(project, venv / "setup.log")
    was_whole = (venv / STAMP).read_text() != "" and venv_version(venv) == python.version
    (venv / STAMP).write_text("")
    if not was_whole:
        empty(venv)
        steps.run("make the environment", [python.path, "-m", "venv", str(venv)], environ)
    inside = str(venv / "bin" / "python")
    pip = [inside, "-m", "pip", "--disable-pip-version-check"]
    steps.run("install uv", [*pip, "install", "--quiet", UV], environ)
    listing = subprocess.run([*pip, "config", "list"], env=dict(environ), stdout=subprocess.PIPE, check=True)
    uv_environ = uv_environment(environ, pip_settings(listing.stdout.decode()))
    for step, requirements in kind.installs:
        steps.run(step, [str(venv / "bin" / "uv"), "pip", "install", "--python", inside, *requirements], uv_environ)
    (venv / STAMP).write_text(wanted_stamp(kind, project, venv_version(venv)))


def setup(kind: Environment, project: Path, environ: Mapping[str, str], free_bytes: Callable[[Path], int]) -> None:
    """See to it that the environment stands; at once if it does."""
    if is_current(kind, project, environ):
        return
    python, venv = find_python(environ), kind.path(project, environ)
    with claimed(kind, venv):
        if is_current(kind, project, environ):  # made by the setup that we waited for
            return
        size = kind.size_by(environ)
        check_disk(kind, venv, size.needed_gb, free_bytes)
        print(f"setup: Python {python.version}, {python.path} ({python.found})")
        print(f"setup: installs into {venv}; downloads about {size.download_mb} MB, {size.note}", flush=True)
        build(kind, project, python, environ)
    print("setup: done", flush=True)


def main() -> int:
    """Entry point; 0 if the environment stands."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    kind = ENVIRONMENTS[sys.argv[1]]
    try:
        setup(kind, PROJECT, os.environ, lambda folder: shutil.disk_usage(folder).free)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("setup: interrupted; the next call starts it anew", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
