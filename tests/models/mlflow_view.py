"""Planted releases, and the view of them in MLflow as plain values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from include.config import load_settings
from include.contracts import ModelRelease
from include.models import registry, registry_mlflow
from include.models.registry_mlflow import tracking_uri
from include.training.release import better, release
from tests.training.release_parts import an_order, evaluation, plant_corpus, plant_output


def released(root: str, bits: float, name: str = "base", **other: Any) -> ModelRelease:
    """A release of a planted model, promoted."""
    output = plant_output(f"{root}/output-{bits}", evaluation(bits_per_byte=bits, **other))
    order = an_order(root, name=name, output_uri=output, corpus_uri=f"{root}/corpus", code_digest=f"code-{bits}")
    found = release(root, order)
    registry.promote(root, "acme", name, found.version, better=better, by="run")
    return found


def plant_three(root: str) -> str:
    """Three versions of a model, of which the second is champion, and one of another."""
    plant_corpus(f"{root}/corpus", ("Apache-2.0", "MIT"))
    for bits in (1.5, 1.3, 1.4):
        released(root, bits)
    released(root, 1.6, "other")
    return root


def place(root: str) -> str:
    """Where the view lies by default."""
    found = tracking_uri(load_settings())
    assert found == f"sqlite:///{root.removeprefix('file://')}/mlflow.db"
    return found


@contextmanager
def client(uri: str) -> Iterator[Any]:
    """MLflow's own client, as a user would have it."""
    with registry_mlflow._client(uri) as found:
        yield found


def view(uri: str) -> dict[str, Any]:
    """All that the view holds, but for ids and times of writing."""
    with client(uri) as mlflow:
        return {
            model.name: {
                "description": model.description,
                "tags": model.tags,
                "aliases": {alias: int(version) for alias, version in model.aliases.items()},
                "versions": [
                    {
                        "number": int(one.version),
                        "tags": one.tags,
                        "description": one.description,
                        "status": one.status,
                        "source": one.source,
                        "run": run_view(mlflow, one.run_id),
                    }
                    for one in sorted(
                        mlflow.search_model_versions(f"name = '{model.name}'"), key=lambda one: int(one.version)
                    )
                ],
                "runs": len(mlflow.search_runs([experiment_of(mlflow, model.name)])),
            }
            for model in mlflow.search_registered_models()
        }


def experiment_of(mlflow: Any, name: str) -> str:
    return str(mlflow.get_experiment_by_name(name.replace(".", "/")).experiment_id)


def run_view(mlflow: Any, run_id: str) -> dict[str, Any]:
    run = mlflow.get_run(run_id)
    folder = Path(mlflow.download_artifacts(run_id, "release"))
    return {
        "name": run.info.run_name,
        "times": (run.info.start_time, run.info.end_time),
        "status": run.info.status,
        "params": run.data.params,
        "tags": {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")},
        "metrics": {
            name: [(one.step, one.value, one.timestamp) for one in mlflow.get_metric_history(run_id, name)]
            for name in run.data.metrics
        },
        "artifacts": {file.name: file.read_bytes() for file in sorted(folder.iterdir())},
    }
