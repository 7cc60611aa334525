"""Runs code in the jobs environment, where torch is; the environment that tests run in has none."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from include.jobs.local import KEPT, STAMP
from local.home import PROJECT
from local.setup_environment import JOBS

MODULE = re.compile(r"\w+(\.\w+)+")
TIMEOUT_S = 600.0


def jobs_python() -> Path:
    """The Python of the jobs environment; the test fails if there is none that is whole."""
    folder = JOBS.path(PROJECT, os.environ)
    stamp = folder / STAMP
    if not stamp.is_file() or not stamp.stat().st_size:
        pytest.fail(f"there is no whole jobs environment in {folder}: run `make setup-jobs`")
    return folder / "bin" / "python"


def run_in_jobs(
    code_or_module: str, *arguments: object, env: Mapping[str, str] | None = None, timeout_s: float = TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    """Run a module by its dotted name, or code, with arguments; what it printed and how it ended.

    It gets the variables that a local job gets, one thread, and `env`; the project is on its path.
    """
    how = ("-m", code_or_module) if MODULE.fullmatch(code_or_module) else ("-c", code_or_module)
    kept = {name: value for name, value in os.environ.items() if re.fullmatch(KEPT, name)}
    own = {"PYTHONPATH": str(PROJECT), "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.run(
        [str(jobs_python()), *how, *map(str, arguments)],
        env={**kept, **own, **(env or {})},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
