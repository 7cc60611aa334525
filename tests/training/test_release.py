"""Releases: whole or not there, the same content once, and nothing in one that its job did not vouch for."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from include.contracts import ModelRelease
from include.errors import DriftError, PermanentError, UserError
from include.jobs.states import OutputError
from include.models import registry
from include.storage import list_files, location, read_json, write_bytes, write_json
from include.training import release as releasing
from include.training.presets import PRESETS, flops_per_token
from include.training.release import Order, better, flops, metrics, release, summary
from local.home import PROJECT
from tests.training.evaluated import world
from tests.training.in_jobs import run_in_jobs
from tests.training.release_parts import (
    MODEL_FILES,
    an_order,
    evaluation,
    per_document,
    plant_corpus,
    plant_output,
    write_manifest,
)

MADE = {"evaluation.json", "per_document.json", "curve.png", "card.md"}


def versions(root: str) -> list[int]:
    return [one.version for one in registry.list_versions(root, "acme", "base")]


def files(found: ModelRelease) -> set[str]:
    """What lies in a release's folder, but for locks."""
    return {path for path in list_files(location(found.uri)) if not path.startswith(".")}


def test_a_release_is_whole_and_tells_where_it_comes_from(any_root: str) -> None:
    order = an_order(any_root)
    found = release(any_root, order)
    assert found == registry.get_version(any_root, "acme", "base", 1)
    assert files(found) == {*MODEL_FILES, *MADE, "manifest.json"}
    assert {file.path for file in found.files} == {*MODEL_FILES, *MADE}
    registry.verify(found, with_digests=True)
    assert (location(found.model_uri) / "model.safetensors").read_bytes() == MODEL_FILES["model/model.safetensors"]
    assert (found.architecture, found.size, found.parameters) == ("decoder", "tiny", 2_000_000)
    assert found.lineage.model_dump() == {
        "data_uri": order.corpus_uri,
        "data_digest": "c" * 64,
        "tokenizer_digest": "d" * 64,
        "config_digest": "e" * 64,
        "code_digest": "abc123",
        "dag_id": "pretraining",
        "run_id": "manual__2030-01-01",
        "jobs": ("train-1-g1", "evaluate-1-g1"),
    }
    assert found.metrics["held_out.bits_per_byte"] == 1.5 and found.config["steps"] == 100
    assert found.licences == ("Apache-2.0",) and found.cost.usd is None and found.cost.instance_seconds == 240
    assert (location(found.card_uri).read_text()).startswith("# base, version 1\n")
    assert (location(found.uri) / "curve.png").read_bytes().startswith(b"\x89PNG")
    told = summary(found)
    assert told["value"] == 1.5 and len(json.dumps(told)) < 1000


def test_the_same_content_is_the_same_release(any_root: str) -> None:
    order = an_order(any_root)
    first = release(any_root, order)
    card = location(first.card_uri)
    written = card.stat().st_mtime
    again = release(any_root, order.model_copy(update={"run_id": "another", "jobs": ("train-2-g1",)}))
    assert again == first and versions(any_root) == [1]
    assert card.stat().st_mtime == written, "nothing of a release is written again"


@pytest.mark.parametrize("change", ["data", "config", "code", "base_model", "name"])
def test_other_content_is_another_release(root: str, change: str) -> None:
    order = an_order(root)
    release(root, order)
    updates: dict[str, Any] = {"code": {"code_digest": "x"}, "base_model": {"base_model": "base/1"}}
    updates["name"] = {"name": "other"}
    if change == "config":
        plant_output(f"{root}/output", evaluation(config_digest="f" * 64))
    if change == "data":
        manifest = location(root) / "corpus" / "manifest.json"
        write_json(manifest, {**read_json(manifest), "corpus_digest": "b" * 64})
        plant_output(f"{root}/output", evaluation(corpus_digest="b" * 64))
    second = release(root, order.model_copy(update=updates.get(change, {})))
    assert (second.model, second.version) == (("other", 1) if change == "name" else ("base", 2))


# Two at once


def release_own(root: str, worker: int) -> tuple[int, str]:
    """What one of several processes does: two contents, each released by two of four."""
    order = Order.model_validate_json((Path(root.removeprefix("file://")) / "order.json").read_bytes())
    found = release(root, order.model_copy(update={"code_digest": f"code-{worker % 2}", "run_id": f"run-{worker}"}))
    by = f"run-{worker}"
    registry.promote(root, "acme", "base", found.version, better=better, by=by)
    return found.version, found.content_digest


def test_processes_that_release_at_once_share_nothing_but_their_content(tmp_path: Path) -> None:
    root = tmp_path.as_uri()
    (tmp_path / "order.json").write_text(an_order(root).model_dump_json())
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = set(pool.map(release_own, [root] * 4, range(4)))
    assert sorted(version for version, _ in found) == [1, 2]
    assert versions(root) == [1, 2]
    for one in registry.list_versions(root, "acme", "base"):
        registry.verify(one, with_digests=True)
    aliases = registry.read_aliases(root, "acme", "base")
    assert {aliases.champion, aliases.challenger} == {1, 2}, "two versions, one champion"


# A task that dies

DIE = """
import os, signal, sys
from include.training import release

order, root, last = sys.argv[1:]
claim, check, write = release.registry.claim, release._Source._check, release.write_bytes
claimed = []

def die_at(name):
    if claimed and name == last:
        os.kill(os.getpid(), signal.SIGKILL)

release.registry.claim = lambda *asked: claimed.append(claim(*asked)) or claimed[0]
release._Source._check = lambda self, name, sha256: die_at(name) or check(self, name, sha256)
release.write_bytes = lambda path, data: die_at(path.name) or write(path, data)
release.registry.publish = lambda *_: die_at("manifest.json")
release.release(root, release.Order.model_validate_json(open(order).read()))
"""
"""Dies when it has written the bytes of a file and not yet put it in its place, or is about to write one it makes."""


@pytest.mark.parametrize(
    "last",
    ["model/config.json", "model/model.safetensors", "per_document.json", "curve.png", "card.md", "manifest.json"],
)
def test_a_killed_release_is_none_and_its_repetition_whole(tmp_path: Path, last: str) -> None:
    root = tmp_path.as_uri()
    (tmp_path / "order.json").write_text((order := an_order(root)).model_dump_json())
    command = [sys.executable, "-c", DIE, str(tmp_path / "order.json"), root, last]
    died = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    home = registry.release_home(root, "acme", "base", 1)
    assert home.exists() and not (home / "manifest.json").exists()
    assert versions(root) == [] and registry.champion(root, "acme", "base") is None
    if last == "model/model.safetensors":
        assert any(path.endswith(".tmp") for path in list_files(home)), "this one dies in the middle of a file"
    found = release(root, order)
    assert (found.version, versions(root)) == (1, [1])
    assert files(found) == {*MODEL_FILES, *MADE, "manifest.json"}, "what the first try left is gone"
    registry.verify(found, with_digests=True)


@pytest.mark.parametrize("full", ["model/model.safetensors", "card.md", "manifest.json"])
def test_a_full_disk_releases_nothing(root: str, full: str, monkeypatch: pytest.MonkeyPatch) -> None:
    order = an_order(root)
    replace = os.replace

    def no_space(source: str, target: str) -> None:
        if target.endswith(f"releases/base/1/{full}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(PermanentError, match="releases/base/1: no space is left .* so nothing was released"):
        release(root, order)
    assert versions(root) == []
    monkeypatch.undo()
    assert release(root, order).version == 1 and versions(root) == [1]


def test_another_fault_of_the_disk_is_told_as_it_is(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    order = an_order(root)

    def broken(*_: Any) -> None:
        raise OSError(errno.EIO, "it is broken")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="it is broken"):
        release(root, order)


# What is refused


@pytest.mark.parametrize("path", ["model/model.safetensors", "evaluation.json", "per_document.json"])
def test_an_artefact_that_is_not_what_its_job_wrote_is_refused(any_root: str, path: str) -> None:
    order = an_order(any_root)
    file = location(order.output_uri) / path
    data = file.read_bytes()
    write_bytes(file, data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(OutputError, match=f"{path} is not what the job wrote: its SHA-256 is another"):
        release(any_root, order)
    assert versions(any_root) == []
    assert not any(name.endswith(path) for name in list_files(registry.model_home(any_root, "acme", "base")))
    write_bytes(file, data)
    assert release(any_root, order).version == 1


def test_an_output_that_is_not_whole_is_refused(root: str) -> None:
    order = an_order(root)
    (location(order.output_uri) / "model" / "config.json").unlink()
    with pytest.raises(OutputError, match="config.json: missing, not 2 bytes"):
        release(root, order)
    (location(order.output_uri) / "manifest.json").unlink()
    with pytest.raises(OutputError, match="holds no manifest.json"):
        release(root, order)


@pytest.mark.parametrize("name", ["evaluation.json", "per_document.json"])
@pytest.mark.parametrize("schema", [2, None, "1"])
def test_an_unknown_schema_is_refused(root: str, name: str, schema: Any) -> None:
    value = {**(evaluation() if name == "evaluation.json" else per_document()), "schema_version": schema}
    plant_output(f"{root}/output", **{name: value})
    with pytest.raises(UserError, match=f"{name}: schema_version={schema!r} is not 1"):
        release(root, an_order(root, output_uri=f"{root}/output"))
    assert versions(root) == []


@pytest.mark.parametrize("name", ["model/weights.bin", "model/model.pt", "model/code.py", "model/x.pkl"])
def test_nothing_that_could_run_is_released(root: str, name: str) -> None:
    plant_output(f"{root}/output", **{name: b"x"})
    with pytest.raises(OutputError, match=f"{name}: a model's folder holds .json, .safetensors, .txt, .jinja files"):
        release(root, an_order(root, output_uri=f"{root}/output"))


def test_a_name_that_leads_out_of_the_folder_is_refused(root: str) -> None:
    plant_output(f"{root}/output", **{"model/a/b.json": b"x"})
    manifest = location(root) / "output" / "manifest.json"
    write_bytes(location(root) / "secret.json", b"x")
    text = manifest.read_text().replace("model/a/b.json", "model/../../secret.json")
    manifest.write_text(text)
    with pytest.raises(OutputError):
        release(root, an_order(root, output_uri=f"{root}/output"))
    plant_output(f"{root}/output", **{"model/a b.json": b"x"})
    with pytest.raises(OutputError, match="path='model/a b.json' cannot be released"):
        release(root, an_order(root, output_uri=f"{root}/output"))


@pytest.mark.parametrize("missing", ["model/config.json", "model/model.safetensors"])
def test_a_model_without_weights_or_configuration_is_none(root: str, missing: str) -> None:
    plant_output(f"{root}/output")
    paths = [path for path in (*MODEL_FILES, "evaluation.json", "per_document.json") if path != missing]
    write_manifest(location(root) / "output", paths)
    with pytest.raises(OutputError, match="holds no model"):
        release(root, an_order(root, output_uri=f"{root}/output"))


def test_a_model_of_another_corpus_or_of_no_known_kind_is_refused(root: str) -> None:
    for change in ({"corpus_digest": "f" * 64}, {"tokenizer_digest": "f" * 64}):
        plant_output(f"{root}/output", evaluation(**change))
        with pytest.raises(DriftError, match=f"{next(iter(change))} f+ is not that of the corpus"):
            release(root, an_order(root, output_uri=f"{root}/output"))
    plant_output(f"{root}/output", {**evaluation(), "architecture": "perceptron"})
    with pytest.raises(UserError, match="architecture='perceptron' is none of decoder, encoder_decoder"):
        release(root, an_order(root, output_uri=f"{root}/output"))
    assert versions(root) == []


# Figures


def test_metrics_are_the_numbers_of_the_evaluation() -> None:
    found = metrics(evaluation())
    assert found["held_out.by_source.docs.bits_per_byte"] == 1.5
    assert found["baselines.ngram.bits_per_byte"] == 2.0 and found["zero_shot.accuracy"] == 0.5
    assert found["step"] == 100 and not any(name.startswith(("curve", "samples")) for name in found)
    nothing = evaluation(zero_shot={"task": "t", "items": 0, "accuracy": None, "low": 0.0, "high": 1.0, "chance": 0.25})
    assert "zero_shot.accuracy" not in metrics(nothing)
    with pytest.raises(OutputError, match=r"baselines.zlib.bits_per_byte is inf, which is no number"):
        metrics(evaluation(baselines={"zlib": {"bits_per_byte": float("inf")}}))


def test_flops_are_the_presets_own_count() -> None:
    assert flops(evaluation(), 2048) == 409_600 * flops_per_token(PRESETS["tiny"], "decoder", 2048)
    assert flops(evaluation(size="mine"), 2048) == 6 * 2_000_000 * 409_600


def released(root: str, code: str, bits: float, *, architecture: str = "decoder", spread: float = 0.0) -> ModelRelease:
    output = f"{root}/output-{code}"
    plant_output(output, evaluation(architecture, bits), **{"per_document.json": per_document(bits, spread)})
    return release(root, an_order(root, output_uri=output, code_digest=code))


@pytest.mark.parametrize("architecture", ["decoder", "encoder_decoder"])
def test_one_that_is_surely_better_on_the_same_documents_is_better(root: str, architecture: str) -> None:
    old, new = (released(root, code, bits, architecture=architecture) for code, bits in (("a", 1.5), ("b", 1.4)))
    is_better, line = better(new, old)
    unit = -0.1 if architecture == "decoder" else new.metrics[releasing.PRIMARY[architecture]] * -0.1 / 1.4
    assert is_better and line.endswith(f"of 1: surely better (95 % interval {unit:+.4f} to {unit:+.4f})")
    is_better, line = better(old, new)
    assert not is_better and "not surely better" in line


def test_one_that_chance_may_have_made_better_is_not(root: str) -> None:
    old, new = released(root, "a", 1.5), released(root, "b", 1.49, spread=0.5)
    assert new.metrics["held_out.bits_per_byte"] < old.metrics["held_out.bits_per_byte"]
    is_better, line = better(new, old)
    assert not is_better and "not surely better" in line
    assert not better(old, old)[0]


def test_of_models_on_other_documents_the_figures_are_all_there_is(root: str) -> None:
    old, new = released(root, "a", 1.5), released(root, "b", 1.4)
    moved = new.model_copy(update={"lineage": new.lineage.model_copy(update={"data_digest": "0" * 64})})
    is_better, line = better(moved, old)
    assert is_better and line.endswith("better; measured on other documents, so this is a weak reason")
    is_better, line = better(old, moved)
    assert not is_better and "weak reason" in line


def test_of_few_documents_the_line_says_so(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.training.release_parts.DOCUMENTS", 5)
    old, new = released(root, "a", 1.5), released(root, "b", 1.4)
    is_better, line = better(new, old)
    assert is_better and line.endswith("by 5 documents, so this is a weak reason")


def test_two_architectures_are_not_compared(root: str) -> None:
    old = released(root, "a", 1.5)
    new = released(root, "b", 0.1, architecture="encoder_decoder")
    is_better, line = better(new, old)
    assert not is_better and line.endswith("the two cannot be compared")


# A model that was really trained


@pytest.mark.parametrize("architecture", ["decoder", "encoder_decoder"])
def test_what_the_card_says_loads_the_model(tmp_path: Path, architecture: str) -> None:
    evaluated = json.loads((world() / f"{architecture}-trained" / "evaluation" / "evaluation.json").read_bytes())
    output = location(tmp_path.as_uri()) / "output"
    for path, about in list_files(location((world() / f"{architecture}-trained" / "evaluation").as_uri())).items():
        if not path.startswith("manifest") and about["size"]:
            write_bytes(output / path, (world() / f"{architecture}-trained" / "evaluation" / path).read_bytes())
    write_json(output / "evaluation.json", {**evaluated, "corpus_digest": "c" * 64, "tokenizer_digest": "d" * 64})
    write_manifest(output, sorted(list_files(output)))
    root = tmp_path.as_uri()
    plant_corpus(f"{root}/corpus")
    found = release(root, an_order(root, output_uri=f"{root}/output", corpus_uri=f"{root}/corpus"))
    card = location(found.card_uri).read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)
    folder = found.uri.removeprefix("file://")
    run = run_in_jobs(f"import os\nos.chdir({folder!r})\n{code}", env={"HF_HUB_OFFLINE": "1"})
    assert run.returncode == 0, run.stderr
    assert "A task is" in run.stdout or architecture == "encoder_decoder"
