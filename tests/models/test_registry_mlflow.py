"""The view of releases in MLflow: it tells what the manifests tell, and comes back the same when it is deleted."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from include.config import load_settings
from include.errors import UserError
from include.models import registry
from include.models.registry_mlflow import Synced, sync_mlflow, tracking_uri
from include.storage import location, read_json, write_json
from include.training import curve
from local.home import PROJECT
from tests.models.mlflow_view import client, place, plant_three, released, view
from tests.training.release_parts import plant_corpus, point


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than everything else of a planted release."""
    monkeypatch.setattr(curve, "draw", lambda *_: b"a curve")


@pytest.fixture
def three(root: str) -> str:
    """A root with planted releases."""
    return plant_three(root)


def test_the_view_tells_what_the_manifests_tell(three: str) -> None:
    assert sync_mlflow(three, "acme", place(three)) == Synced(models=2, versions=4, written=4)
    found = view(place(three))
    assert list(found) == ["acme.base", "acme.other"]
    base = found["acme.base"]
    assert base["aliases"] == {"champion": 2, "challenger": 3}
    assert [one["number"] for one in base["versions"]] == [1, 2, 3] and base["runs"] == 3
    first, manifest = base["versions"][0], registry.get_version(three, "acme", "base", 1)
    assert first["source"] == manifest.model_uri and first["status"] == "READY"
    assert first["tags"]["fmops.release"] == "base/1"
    run = first["run"]
    for name in ("data_digest", "config_digest", "code_digest", "tokenizer_digest", "run_id"):
        assert first["tags"][name] == getattr(manifest.lineage, name)
    assert first["tags"]["base_model"] == "none" and first["tags"].items() <= run["tags"].items()
    for name in ("dag_id", "data_uri"):
        assert run["tags"][name] == getattr(manifest.lineage, name)
    assert run["tags"]["jobs"] == "train-1-g1, evaluate-1-g1" and run["tags"]["cost_usd"] == "unknown"
    assert run["name"] == "base 1" and run["params"]["learning_rate"] == "0.004" and run["params"]["size"] == "tiny"
    assert {name: values[0][1] for name, values in run["metrics"].items() if not name.startswith("train/")} == (
        manifest.metrics
    )
    assert [(step, value) for step, value, _ in run["metrics"]["train/loss"]] == [
        (step, point(step)["loss"]) for step in range(10, 110, 10)
    ]
    assert [step for step, *_ in run["metrics"]["train/held_out_loss"]] == [50, 100]
    assert set(run["artifacts"]) == {"card.md", "curve.png", "evaluation.json", "per_document.json", "manifest.json"}
    assert run["artifacts"]["card.md"] == location(manifest.card_uri).read_bytes()
    card = run["artifacts"]["card.md"].decode()
    assert first["description"].startswith("# base, version 1\n") and "![" not in first["description"]
    assert first["description"].splitlines()[2] == card.splitlines()[2]


def test_a_second_sync_writes_nothing(three: str) -> None:
    sync_mlflow(three, "acme", place(three))
    before = view(place(three))
    assert sync_mlflow(three, "acme", place(three)) == Synced(models=2, versions=4, written=0)
    assert view(place(three)) == before


def test_a_deleted_view_comes_back_the_same(three: str) -> None:
    sync_mlflow(three, "acme", place(three))
    before = view(place(three))
    folder = Path(three.removeprefix("file://"))
    (folder / "mlflow.db").unlink()
    shutil.rmtree(folder / "mlflow-artifacts")
    spawn = multiprocessing.get_context("spawn")  # MLflow keeps a file open that is gone
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        assert pool.submit(sync_mlflow, three, "acme", place(three)).result().written == 4
        assert pool.submit(view, place(three)).result() == before


def test_what_was_released_since_is_added(three: str) -> None:
    sync_mlflow(three, "acme", place(three))
    released(three, 1.2)
    assert sync_mlflow(three, "acme", place(three)) == Synced(models=2, versions=5, written=1)
    base = view(place(three))["acme.base"]
    assert base["aliases"] == {"champion": 4, "challenger": 3}
    assert [one["number"] for one in base["versions"]] == [1, 2, 3, 4]


def test_an_alias_that_nobody_has_any_more_goes(three: str) -> None:
    sync_mlflow(three, "acme", place(three))
    registry.promote(three, "acme", "base", 3, better=lambda new, old: (True, "by hand"), by="a person")
    sync_mlflow(three, "acme", place(three))
    assert view(place(three))["acme.base"]["aliases"] == {"champion": 3}


def test_numbers_are_the_registry_s_where_one_was_never_finished(three: str) -> None:
    manifest = registry.release_home(three, "acme", "base", 2) / "manifest.json"
    kept = manifest.read_bytes()
    write_json(registry.model_home(three, "acme", "base") / "aliases.json", {"schema_version": 1, "champion": 1})
    manifest.unlink()
    sync_mlflow(three, "acme", place(three))
    base = view(place(three))["acme.base"]
    assert [(one["number"], one["tags"]["fmops.release"]) for one in base["versions"]] == [(1, "base/1"), (3, "base/3")]
    manifest.write_bytes(kept)  # its task was cleared at last
    assert sync_mlflow(three, "acme", place(three)).written == 3
    base = view(place(three))["acme.base"]
    assert [(one["number"], one["tags"]["fmops.release"]) for one in base["versions"]] == [
        (number, f"base/{number}") for number in (1, 2, 3)
    ]
    assert base["runs"] == 3, "runs that were right were kept"


def test_a_view_that_is_wrong_is_made_anew(three: str) -> None:
    sync_mlflow(three, "acme", place(three))
    manifest = registry.release_home(three, "acme", "base", 2) / "manifest.json"
    write_json(manifest, {**read_json(manifest), "use_case": "another"})
    assert sync_mlflow(three, "acme", place(three)).written == 3
    base = view(place(three))["acme.base"]
    assert [one["number"] for one in base["versions"]] == [1, 2, 3] and base["runs"] == 3
    assert base["versions"][1]["run"]["tags"]["use_case"] == "another"
    assert base["aliases"] == {"champion": 2, "challenger": 3}


@pytest.mark.parametrize("step", ["log_batch", "log_artifacts", "set_terminated", "create_model_version"])
def test_a_sync_that_died_is_finished_by_the_next(three: str, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(mlflow.MlflowClient, step, die)
    with pytest.raises(KeyboardInterrupt):
        sync_mlflow(three, "acme", place(three))
    monkeypatch.undo()
    monkeypatch.setenv("FMOPS_STORAGE_ROOT", three)
    assert sync_mlflow(three, "acme", place(three)).written == 4
    found = view(place(three))
    assert (found["acme.base"]["runs"], found["acme.other"]["runs"]) == (3, 1)
    assert [one["number"] for one in found["acme.base"]["versions"]] == [1, 2, 3]


def test_what_others_keep_in_mlflow_is_left_alone(three: str) -> None:
    with client(place(three)) as mlflow:
        mlflow.create_registered_model("acme.base")
        mlflow.create_registered_model("theirs")
    with pytest.raises(UserError, match="registered model 'acme.base' was not made from releases, not those below"):
        sync_mlflow(three, "acme", place(three))
    with client(place(three)) as mlflow:
        assert [one.name for one in mlflow.search_registered_models()] == ["acme.base", "theirs"]


def test_two_installations_do_not_overwrite_each_other(three: str, tmp_path: Path) -> None:
    sync_mlflow(three, "acme", place(three))
    shutil.copytree(three.removeprefix("file://"), tmp_path / "copy")
    with pytest.raises(
        UserError, match="'acme.base' shows the releases below .*/storage, .*another mlflow_tracking_uri"
    ):
        sync_mlflow((tmp_path / "copy").as_uri(), "acme", place(three))


def test_of_nothing_there_is_an_empty_view(root: str) -> None:
    assert sync_mlflow(root, "acme", place(root)) == Synced(models=0, versions=0, written=0)
    assert view(place(root)) == {}


def test_a_curve_with_a_gap_has_a_gap(root: str) -> None:
    plant_corpus(f"{root}/corpus")
    released(root, 1.5, curve=[point(10), {**point(20), "loss": float("nan"), "grad_norm": None}, point(30)])
    sync_mlflow(root, "acme", place(root))
    metrics = view(place(root))["acme.base"]["versions"][0]["run"]["metrics"]
    assert [step for step, *_ in metrics["train/loss"]] == [10, 30]
    assert [step for step, *_ in metrics["train/learning_rate"]] == [10, 20, 30]


def test_a_long_card_is_cut_between_sections(root: str) -> None:
    plant_corpus(f"{root}/corpus", steps=[{"name": "x" * 150, "kept": number} for number in range(60)])
    found = released(root, 1.5)
    sync_mlflow(root, "acme", place(root))
    text = view(place(root))["acme.base"]["versions"][0]["description"]
    assert len(location(found.card_uri).read_text()) > 5000 >= len(text)
    assert text.endswith("(cut: see card.md)") and text.count("```") % 2 == 0


def test_releases_on_s3_are_shown_too(s3_root: str, tmp_path: Path) -> None:
    plant_corpus(f"{s3_root}/corpus")
    found = released(s3_root, 1.5)
    uri = f"sqlite:///{tmp_path}/view/mlflow.db"
    assert sync_mlflow(s3_root, "acme", uri).written == 1
    (version,) = view(uri)["acme.base"]["versions"]
    assert version["source"] == found.model_uri and version["source"].startswith("s3://")
    assert version["run"]["artifacts"]["card.md"] == location(found.card_uri).read_bytes()


# Where it lies, and what it must not do


def test_without_a_setting_storage_elsewhere_has_no_view(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMOPS_STORAGE_ROOT", "s3://bucket/root")
    assert tracking_uri(load_settings()) is None


ALONE = """
import json, socket, sys, threading
reached = []
connect = socket.socket.connect

def watched(self, address):
    if self.family != socket.AF_UNIX:
        reached.append(str(address))
        raise OSError(f"{address} is out of reach")
    return connect(self, address)

socket.socket.connect = watched
resolve = socket.getaddrinfo
def resolved(host, *rest, **more):
    reached.append(str(host))
    raise OSError(f"{host} is out of reach")
socket.getaddrinfo = resolved
before = set(sys.modules)
from include.models import registry, registry_mlflow
from include.training import release
assert not {name for name in sys.modules if name.split(".")[0] == "mlflow"}, "imported before it is needed"
root, uri = sys.argv[1:]
print(registry_mlflow.sync_mlflow(root, "acme", uri).written)
import mlflow.telemetry.client as telemetry
names = [thread.name for thread in threading.enumerate()]
print(json.dumps({"reached": reached, "client": telemetry.get_telemetry_client() is not None, "threads": names}))
"""


def test_nothing_leaves_this_machine_and_nothing_is_left_in_the_folder(three: str, tmp_path: Path) -> None:
    (cwd := tmp_path / "cwd").mkdir()
    (home := tmp_path / "home").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", ALONE, three, place(three)],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "HOME": str(home), "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    *_, written, told = done.stdout.splitlines()
    assert written == "4"
    assert json.loads(told) == {"reached": [], "client": False, "threads": ["MainThread"]}
    assert list(cwd.iterdir()) == []
    assert [path for path in home.rglob("*mlflow*")] == []
