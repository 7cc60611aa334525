"""Resolve the requirements anew into the two locks: `make lock`.

`constraints.txt` is universal: one file for Python 3.11 to 3.13 and every platform, by markers. On Python 3.12 it holds
what Amazon MWAA's own constraints hold, so what runs here runs there. `constraints-jobs.txt` locks the jobs
environment, which cannot share one with Airflow (see requirements-jobs.txt).
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
MWAA = PROJECT / "mwaa" / "constraints-3.3.1.txt"
OLDEST_PYTHON = "3.11"
_PIN = re.compile(r"^(?P<pin>[A-Za-z0-9._-]+==[^\s;#]+)\s*$")


def constraints_for_mwaa_python(text: str) -> str:
    """MWAA's pins, each limited to MWAA's Python: some (numpy) do not exist for the others that we support."""
    marker = "python_full_version >= '3.12' and python_full_version < '3.13'"
    pins = (_PIN.match(line) for line in text.splitlines())
    return "".join(f"{match['pin']} ; {marker}\n" for match in pins if match)


def compile_lock(requirements: list[str], output: str, *extra: str) -> None:
    """Run uv's resolver for all supported Pythons and platforms; raises CalledProcessError with uv's own words."""
    command = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", OLDEST_PYTHON]
    command += ["--python", sys.executable]  # else uv looks through every interpreter on PATH
    command += ["--no-emit-index-url", "--custom-compile-command", "make lock", *extra]
    subprocess.run([*command, "--output-file", output, *requirements], cwd=PROJECT, check=True)  # noqa: S607


def main() -> int:
    """Write both locks; 1 if the resolver refuses."""
    upgrade = ["--upgrade"] if "--upgrade" in sys.argv[1:] else []
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as mwaa:
        mwaa.write(constraints_for_mwaa_python(MWAA.read_text()))
        mwaa.flush()
        try:
            compile_lock(
                ["requirements-local.txt"], "constraints.txt",
                "--group", "dev", "--constraint", mwaa.name, "--no-annotate", *upgrade,
            )  # fmt: skip
            compile_lock(["requirements-jobs.txt"], "constraints-jobs.txt", "--no-annotate", *upgrade)
        except subprocess.CalledProcessError:
            print("make lock: the requirements do not resolve; the resolver's words stand above")
            return 1
    print("wrote constraints.txt and constraints-jobs.txt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
