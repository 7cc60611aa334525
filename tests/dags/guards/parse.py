"""What parsing a DAG file costs and touches: CPU time, banned imports, Variables, Connections, network, files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[3]
DAGS = PROJECT / "dags"
BAD = PROJECT / "tests" / "dags" / "bad" / "consumer"
GOOD = PROJECT / "tests" / "dags" / "good" / "consumer"

FILE_BUDGET_S = 1.0
ALL_BUDGET_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """What the parse of one file did, measured in a process of its own."""

    file: Path
    cpu_s: float
    """CPU time beyond that of `import airflow.sdk`, so that a busy machine does not fail a good DAG."""
    error: str | None
    banned: dict[str, str]
    """Banned modules that the parse loaded, each with the line that led to it."""
    access: list[str]
    """Reads of Variables, Connections, network, processes and files, each with its line."""


def dag_files() -> list[Path]:
    """Every DAG file of the project; dags/include is a link to what they share and holds none."""
    return sorted(f for f in DAGS.rglob("*.py") if "include" not in f.relative_to(DAGS).parts)


def banned_modules() -> list[str]:
    """The modules that ruff's TID253 bans at the top of a DAG file: one list for both."""
    with (PROJECT / "pyproject.toml").open("rb") as file:
        lint = tomllib.load(file)["tool"]["ruff"]["lint"]
    return lint["flake8-tidy-imports"]["banned-module-level-imports"]


def measure(files: list[Path]) -> tuple[dict[Path, Parsed], list[str]]:
    """Parse each file in a fresh process; also the banned modules that Airflow itself loads, which are no DAG's."""
    order = {
        "files": [str(file) for file in files],
        "path": [str(DAGS)],
        "own": sorted({str(DAGS), str(PROJECT / "include"), *(str(file.parent) for file in files)}),
        "banned": banned_modules(),
    }
    probe = Path(__file__).with_name("probe.py")
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [sys.executable, "-I", probe],
            input=json.dumps(order),
            env=clean_environment(Path(home)),
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, f"the probe failed:\n{done.stderr}"
    answer = json.loads(done.stdout)
    return {Path(f): Parsed(file=Path(f), **v) for f, v in answer["files"].items()}, answer["loaded_by_airflow"]


def clean_environment(home: Path) -> dict[str, str]:
    """An environment with nothing of the caller's but its PATH, and an Airflow home of its own."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }


def parses(parsed: Parsed) -> list[str]:
    return [f"does not parse: {parsed.error}"] if parsed.error else []


def within_budget(parsed: Parsed) -> list[str]:
    if parsed.cpu_s < FILE_BUDGET_S:
        return []
    return [f"parsing takes {parsed.cpu_s:.2f} s of CPU; allowed is less than {FILE_BUDGET_S} s"]


def within_budget_together(parsed: list[Parsed]) -> list[str]:
    total = sum(p.cpu_s for p in parsed)
    if total < ALL_BUDGET_S:
        return []
    return [f"parsing all files takes {total:.2f} s of CPU; allowed is less than {ALL_BUDGET_S} s"]


def loads_no_banned_module(parsed: Parsed) -> list[str]:
    return [f"loads {name} while parsing (from {by})" for name, by in parsed.banned.items()]


def touches_nothing(parsed: Parsed) -> list[str]:
    return [f"while parsing, {what}" for what in parsed.access]
