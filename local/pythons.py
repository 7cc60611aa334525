"""Find the Python that the environment is made with.

Runs under any Python from 3.8 on and needs the standard library only, since nothing is installed yet.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

MINORS = (12, 13, 11)
"""Python 3.x in order of preference; 3.12 is Amazon MWAA's."""


class SetupError(Exception):
    """One line for the user."""


class Python(NamedTuple):
    """An interpreter that can make the environment."""

    path: str
    version: str
    found: str


def probe(path: str, found: str) -> Python | None:
    """Ask an interpreter for its version; None if it cannot make an environment.

    It may not run (a pyenv shim of a version that is not selected) or lack ensurepip (Debian without python3-venv).
    """
    code = "import sys, ensurepip; print('%d.%d.%d' % sys.version_info[:3])"
    try:
        done = subprocess.run([path, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Python(path, done.stdout.decode().strip(), found) if done.returncode == 0 else None


def supported(python: Python) -> bool:
    """Whether its version is one of MINORS."""
    return any(python.version.startswith(f"3.{minor}.") for minor in MINORS)


def pyenv_paths(environ: Mapping[str, str], minor: int) -> list[str]:
    """The interpreters 3.minor that pyenv holds, newest first, selected there or not."""
    root = Path(environ.get("PYENV_ROOT") or Path(environ.get("HOME", "/")) / ".pyenv")
    folders = [f for f in root.glob(f"versions/3.{minor}.*") if f.name.split(".")[2].isdigit()]
    folders.sort(key=lambda f: int(f.name.split(".")[2]), reverse=True)
    return [str(f / "bin" / "python") for f in folders]


def candidates(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Where a Python may be, in order of preference: (path, how it was found)."""
    for minor in MINORS:
        on_path = shutil.which(f"python3.{minor}", path=environ.get("PATH"))
        if on_path:
            yield on_path, "on PATH"
        for path in pyenv_paths(environ, minor):
            yield path, "in pyenv"
    plain = shutil.which("python3", path=environ.get("PATH"))
    if plain:
        yield plain, "on PATH"


def named_python(name: str, environ: Mapping[str, str]) -> Python:
    """The Python that the variable PYTHON names; SetupError if it will not do."""
    path = shutil.which(name, path=environ.get("PATH"))
    python = probe(path, "from the variable PYTHON") if path else None
    if python is None:
        raise SetupError(f"PYTHON={name} does not run, or has no ensurepip: name a Python 3.11, 3.12 or 3.13")
    if not supported(python):
        raise SetupError(f"PYTHON={name} is Python {python.version}: 3.11, 3.12 or 3.13 is needed")
    return python


def find_python(environ: Mapping[str, str]) -> Python:
    """The Python to use: what PYTHON names, else the best there is; SetupError if none will do."""
    if environ.get("PYTHON"):
        return named_python(environ["PYTHON"], environ)
    unfit = []
    for path, found in candidates(environ):
        python = probe(path, found)
        if python and supported(python):
            return python
        unfit.append(f"{path} ({python.version if python else 'does not run, or has no ensurepip'})")
    raise SetupError(
        "no Python 3.11, 3.12 or 3.13 among python3.12, python3.13, python3.11 and python3 on PATH and in pyenv"
        f"{'; saw ' + ', '.join(unfit) if unfit else ''}; set PYTHON=/path/to/one"
    )
