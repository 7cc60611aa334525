"""The requirements against MWAA's constraints and against our lock."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from local.setup_environment import pip_settings, uv_environment

PYTHONS = ("3.11", "3.12", "3.13")
MWAA_PYTHON = "3.12"


def resolve(requirements: Path, constraints: Path, environ: Mapping[str, str] | None = None) -> list[str]:
    """What keeps the requirements from resolving for MWAA's Python under those constraints; empty if they do."""
    return _resolved(requirements, constraints, MWAA_PYTHON, environ)[1]


def not_held(requirements: Path, lock: Path, python: str, *options: str) -> list[str]:
    """What an installation on that Python would bring that the lock does not hold; or why nothing can be said."""
    text, problems = _resolved(requirements, lock, python, None, *options)
    held = pins(lock.read_text(), python)
    return problems or [f"Python {python}: {name}" for name in sorted(pins(text, python).keys() - held.keys())]


def _resolved(
    requirements: Path, constraints: Path, python: str, environ: Mapping[str, str] | None, *options: str
) -> tuple[str, list[str]]:
    """The packages as a lock would list them, and what kept them from resolving: one of the two is empty."""
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if uv is None:
        return "", ["uv is not installed, so nothing was resolved; `make setup` installs it"]
    settings = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, timeout=60
    )
    done = subprocess.run(
        [uv, "pip", "compile", "--quiet", "--python-version", python, "--python-platform", "linux", *options]
        + ["--python", sys.executable, "--constraint", constraints, requirements],  # else uv searches for one
        env=uv_environment(os.environ, pip_settings(settings.stdout)) | dict(environ or {}),
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode == 0:
        return done.stdout, []
    if "Failed to fetch" in done.stderr or "error sending request" in done.stderr:
        return "", [f"the package index could not be reached, so nothing was resolved: {done.stderr}"]
    return "", [f"{requirements.name} does not resolve under {constraints.name}: {done.stderr}"]


def pins(text: str, python: str) -> dict[str, str]:
    """Package -> version, of the lines of a lock that hold for one Python on Linux."""
    found = {}
    for requirement in _requirements(text, python):
        ((operator, version),) = [(spec.operator, spec.version) for spec in requirement.specifier]
        assert operator == "==", f"{requirement} is no pin"
        found[canonicalize_name(requirement.name)] = version
    return found


def differ_from_mwaa(lock: str, mwaa: str) -> list[str]:
    """Packages that the lock holds at another version than MWAA's list, on MWAA's Python."""
    ours, theirs = pins(lock, MWAA_PYTHON), pins(mwaa, MWAA_PYTHON)
    return [
        f"{name}: locked at {ours[name]}, MWAA holds {theirs[name]}"
        for name in sorted(ours.keys() & theirs.keys())
        if ours[name] != theirs[name]
    ]


def not_locked(requirements: str, lock: str) -> list[str]:
    """Lines whose package the lock lacks, or holds at a version that they refuse, on any Python that we support."""
    found = []
    for python in PYTHONS:
        locked = pins(lock, python)
        for requirement in _requirements(requirements, python):
            version = locked.get(canonicalize_name(requirement.name))
            if version is None:
                found.append(f"Python {python}: {requirement} is not in the lock")
            elif not requirement.specifier.contains(version, prereleases=True):
                found.append(f"Python {python}: {requirement} is locked at {version}")
    return found


def not_pinned(requirements: str) -> list[str]:
    """Lines that name no exact version; a file that is installed without dependencies is its own lock."""
    exact = [f"{r.name}=={spec.version}" for r in _requirements(requirements, MWAA_PYTHON) for spec in r.specifier]
    return [str(r) for r in _requirements(requirements, MWAA_PYTHON) if str(r) not in exact]


def _requirements(text: str, python: str) -> list[Requirement]:
    """The requirements of a file that hold for one Python on Linux; options such as -r are not followed."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
    }
    lines = (line.split(" #")[0].strip() for line in text.splitlines())
    found = [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]
    return [r for r in found if r.marker is None or r.marker.evaluate(environment)]
