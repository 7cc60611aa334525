"""A release is loaded as Amazon MWAA will load it before anything of it is sent."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from include.errors import UserError
from local.sync.layout import PLUGINS, File

LIMIT_S = 600.0

LOAD_DAGS = """
import json, sys
from pathlib import Path
from airflow.dag_processing.dagbag import BundleDagBag
dags = Path(sys.argv[1])
bag = BundleDagBag(dag_folder=str(dags), bundle_path=dags, bundle_name="dags-folder")
print(json.dumps({"found": len(bag.dags), "errors": bag.import_errors}))
"""

IMPORT_PLUGINS = """
import importlib, json, sys, traceback
from pathlib import Path
plugins = Path(sys.argv[1])
sys.path.append(str(plugins))
errors = {}
files = sorted(plugins.rglob("*.py"))
for file in files:
    name = ".".join(file.relative_to(plugins).with_suffix("").parts).removesuffix(".__init__")
    try:
        importlib.import_module(name)
    except BaseException:
        errors[str(file.relative_to(plugins))] = traceback.format_exc()
print(json.dumps({"found": len(files), "errors": errors}))
"""


def check_loads(files: Iterable[File], say: Callable[[str], object]) -> None:
    """Load every DAG file and every module of the plugins as laid out on MWAA; UserError names each broken one.

    DAG files see dags/ (include/ inside it) and plugins/. The triggerer and the web server have the plugins alone, so
    these are imported with nothing else beside them.
    """
    with tempfile.TemporaryDirectory(prefix="fmops-sync-") as folder:
        layout = Path(folder)
        for file in files:
            place = layout / file.path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.data)
        with zipfile.ZipFile(io.BytesIO((layout / PLUGINS).read_bytes())) as archive:
            archive.extractall(layout / "plugins")
        (layout / "home").mkdir()
        broken = []
        for script, name, what in ((LOAD_DAGS, "dags", "DAGs"), (IMPORT_PLUGINS, "plugins", "modules of plugins")):
            say(f"loading {what} as they will lie on MWAA ...")
            answer = _isolated(script, layout, name)
            errors = answer["errors"].items()
            broken += [f"  {name}/{file}{_line(file, error)}" for file, error in sorted(errors)]
            say(f"  {answer['found']} load" + (f", {len(errors)} files do not" if errors else ""))
    if broken:
        raise UserError("\n".join(["nothing was sent, since these do not load as they will lie on MWAA:", *broken]))


def _line(file: str, error: str) -> str:
    """Where in the file and what, of a traceback."""
    places = re.findall(rf'{re.escape(file)}", line (\d+)', error)
    return f"{':' + places[-1] if places else ''}: {error.strip().splitlines()[-1]}"


def _isolated(script: str, layout: Path, name: str) -> Any:
    """The answer of a script in a fresh interpreter that sees no settings, credentials or working directory of ours."""
    ours = ("AIRFLOW", "AWS_", "FMOPS_", "PYTHON", "_AIRFLOW")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)} | {
        "AIRFLOW_HOME": str(layout / "home"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(layout / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(layout / "plugins"),
    }
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, layout / name],
        env=environment,
        cwd=layout / "home",
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    if done.returncode != 0:
        raise UserError(f"nothing was sent, since {name}/ could not be loaded:\n{done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[-1])  # the lines before are Airflow's log
