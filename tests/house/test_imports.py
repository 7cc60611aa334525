"""include/ imports without Airflow, and its imports point one way."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from import_graph import importers, wrong_arrows

from tests.training.in_jobs import jobs_python

PROJECT = Path(__file__).resolve().parents[2]

WITHOUT_AIRFLOW = """
import importlib, json, sys, traceback
from importlib.abc import MetaPathFinder

class NoAirflow(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "airflow":
            raise ModuleNotFoundError(f"{name} is blocked")

sys.meta_path.insert(0, NoAirflow())
root, *modules = sys.argv[1:]
sys.path.append(root)
errors = {}
for name in modules:
    try:
        importlib.import_module(name)
    except Exception:
        errors[name] = traceback.format_exc(limit=-2)
print(json.dumps(errors))
"""


def import_without_airflow(
    root: Path, names: Iterable[str] | None = None, python: str = sys.executable
) -> dict[str, str]:
    """Import all of root/include but the operator where Airflow cannot be imported; module -> traceback."""
    files = sorted((root / "include").rglob("*.py"))
    all_names = [".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__") for file in files]
    chosen = all_names if names is None else names
    command = [python, "-I", "-c", WITHOUT_AIRFLOW, root, *(n for n in chosen if n != "include.jobs.operator")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def plant(root: Path, **files: str) -> Path:
    """An include/ of one-line modules; `rag__ask="..."` becomes include/rag/ask.py."""
    for name, text in files.items():
        file = root.joinpath("include", *name.split("__")).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return root / "include"


def test_include_needs_no_airflow() -> None:
    failed = import_without_airflow(PROJECT)
    of_jobs = [name for name, error in failed.items() if error.rstrip().endswith("No module named 'torch'")]
    assert {name: error for name, error in failed.items() if name not in of_jobs} == {}
    # They run inside jobs alone, whose environment holds torch and no Airflow.
    assert all(name.startswith("include.training.") for name in of_jobs)
    assert import_without_airflow(PROJECT, of_jobs, str(jobs_python())) == {}


def test_the_process_that_reads_documents_starts_light() -> None:
    """Every shard starts one: settings, storage and their libraries would take four times as long as all it needs."""
    code = "import include.documents.reading_process, include.documents.loaders, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert not {"pydantic", "fsspec", "upath", "include.storage"} & set(done.stdout.split())


def test_a_module_that_needs_airflow_is_caught(tmp_path: Path) -> None:
    plant(
        tmp_path,
        config="",
        rag__ask="from airflow.sdk import Variable",
        rag__late="def f():\n    import airflow.sdk",
        jobs__operator="import airflow.sdk",
    )
    found = import_without_airflow(tmp_path)
    assert list(found) == ["include.rag.ask"]
    assert "airflow is blocked" in found["include.rag.ask"]


def test_nothing_that_airflow_runs_imports_the_sagemaker_sdk() -> None:
    assert {folder: importers(PROJECT / folder, "sagemaker") for folder in ("dags", "include", "plugins", "local")} == {
        "dags": [],
        "include": [],
        "plugins": [],
        "local": ["images.py"],  # `make images` runs it in the jobs environment
    }


def test_only_the_view_of_releases_imports_mlflow() -> None:
    assert {folder: importers(PROJECT / folder, "mlflow") for folder in ("dags", "include", "plugins", "local")} == {
        "dags": [],
        "include": ["models/registry_mlflow.py"],
        "plugins": [],
        "local": [],
    }


def test_a_late_import_is_seen(tmp_path: Path) -> None:
    plant(tmp_path, jobs__sagemaker="import boto3", late="def f():\n    from sagemaker.core import image_uris")
    assert importers(tmp_path / "include", "sagemaker") == ["late.py"]


def test_arrows_point_one_way() -> None:
    assert wrong_arrows(PROJECT / "include") == []


def test_wrong_arrows_are_caught(tmp_path: Path) -> None:
    include = plant(
        tmp_path,
        storage="def late():\n    from include.models import chat",
        models__chat="from include import storage",
        rag__ask="from include.models.chat import ask\nfrom . import load",
        rag__load="from include.storage import location\nfrom ..evaluation import judge",
        evaluation__judge="import include.contracts, dags.consumer",
        contracts="",
        novelty="",
    )
    assert wrong_arrows(include) == [
        "include/novelty has no level; give it one in import_graph.py",
        "include/evaluation/judge.py:1: include/evaluation imports dags/",
        "include/rag/load.py:2: the domain rag imports the domain evaluation; what both need moves down",
        "include/storage.py:2: storage imports models, which lies above it",
        "circle: models -> storage -> models",
    ]


def test_right_arrows_pass(tmp_path: Path) -> None:
    include = plant(
        tmp_path,
        storage="from include.errors import UserError",
        errors="",
        models__chat="from include.storage import location",
        rag__ask="from include.models import chat",
        dag_defaults="from include.callbacks import log_failure",
        callbacks="",
    )
    assert wrong_arrows(include) == []
