"""The project as Amazon MWAA lays it out: what imports there, and what only seems to work in a checkout.

The dags folder is on the path of workers and DAG processor, with include/ inside it as a real folder. Triggerer and
web server have only the plugins. Nobody has the repository's root.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LOAD_DAGS = """
import json, sys
from pathlib import Path
from airflow.dag_processing.dagbag import BundleDagBag
dags = Path(sys.argv[1])
bag = BundleDagBag(dag_folder=str(dags), bundle_path=dags, bundle_name="dags-folder")
include = sys.modules.get("include")
print(json.dumps({
    "errors": bag.import_errors,
    "files": sorted({dag.relative_fileloc for dag in bag.dags.values()}),
    "include": include and str(Path(next(iter(include.__path__)))),
}))
"""

IMPORT_PLUGINS = """
import importlib, json, sys, traceback
from pathlib import Path
plugins = Path(sys.argv[1])
sys.path.append(str(plugins))
errors = {}
for file in sorted(plugins.rglob("*.py")):
    name = ".".join(file.relative_to(plugins).with_suffix("").parts).removesuffix(".__init__")
    try:
        importlib.import_module(name)
    except Exception:
        errors[str(file.relative_to(plugins))] = traceback.format_exc(limit=-2)
print(json.dumps(errors))
"""


def sync(project: Path, to: Path) -> Path:
    """Copy dags/ as `aws s3 sync` does, which follows links; the path of the copy."""
    return Path(shutil.copytree(project / "dags", to / "dags", ignore=shutil.ignore_patterns("__pycache__")))


def dags_load(dags: Path, home: Path) -> list[str]:
    """Load every DAG file with nothing but site-packages and that dags folder on the path."""
    answer = _isolated(LOAD_DAGS, dags, home)
    found = [f"{file} does not load: {error}" for file, error in answer["errors"].items()]
    # With .airflowignore, files below include/ are not even looked at.
    found += [f"{file} below include/ was taken for a DAG file" for file in answer["files"] if _shared(Path(file))]
    loaded = set(answer["files"]) | set(answer["errors"])
    ours = (file.relative_to(dags) for file in sorted(dags.rglob("*.py")))
    found += [f"{file} holds no DAG that was found" for file in ours if not _shared(file) and str(file) not in loaded]
    if answer["include"] not in (None, str(dags / "include")):
        found.append(f"include came from {answer['include']}, not from the dags folder")
    return found


def _shared(file: Path) -> bool:
    return file.parts[0] == "include"


def plugins_import(plugins: Path, home: Path) -> list[str]:
    """Import every module of the plugins with nothing but site-packages and that folder on the path."""
    errors = _isolated(IMPORT_PLUGINS, plugins, home)
    return [f"plugins/{file} does not import: {error}" for file, error in errors.items()]


def _isolated(script: str, folder: Path, home: Path) -> Any:
    """Run a script in a fresh interpreter that sees no PYTHONPATH, no working directory and no settings of ours."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "no-dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(home / "no-plugins"),
    }
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, folder],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])  # the lines before are Airflow's log


def triggers_lie_in_plugins(folder: Path) -> list[str]:
    """No trigger is defined below dags/ or include/, or named there by a path that the triggerer cannot import."""
    found = []
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            found += [f"{file.relative_to(folder)}:{node.lineno}: {what}" for what in _misplaced(node)]
    return found


def _misplaced(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Trigger") for base in node.bases):
        yield f"class {node.name} is a trigger; the triggerer imports only plugins/"
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        if re.fullmatch(r"(include|dags)(\.\w+)+Trigger", node.value):
            yield f"{node.value!r} names a trigger that the triggerer cannot import"
    if isinstance(node, ast.keyword) and node.arg in ("trigger", "trigger_cls", "classpath"):
        if isinstance(node.value, ast.Constant) and str(node.value.value).startswith(("include.", "dags.")):
            yield f"{node.arg}={node.value.value!r} cannot be imported by the triggerer"


def plugins_import_no_include(plugins: Path) -> list[str]:
    """No import of include/ or dags/ anywhere in the plugins, inside functions neither."""
    found = []
    for file in sorted(plugins.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = _imported(node)
            found += [
                f"{file.relative_to(plugins)}:{node.lineno}: imports {name}"
                for name in names
                if name.split(".")[0] in ("include", "dags")
            ]
    return found


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
