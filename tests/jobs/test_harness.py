"""The harness: SageMaker's two contracts, errors by class, progress, manifest and checkpoints."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from include.jobs import checkpoints, harness
from include.jobs.checkpoints import RECORD, Checkpoints
from include.jobs.harness import BadInput, Job, finite, told
from include.jobs.output import read_manifest
from include.jobs.scripts import smoke
from tests.jobs import trial

Script = Callable[[Callable[[Job], Any]], None]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """Makes a function the main() of include.trial."""

    def make(main: Callable[[Job], Any]) -> None:
        monkeypatch.setattr(trial, "main", main)
        monkeypatch.setitem(sys.modules, "include.trial", trial)

    return make


def training(root: Path, **parameters: Any) -> dict[str, str]:
    """The folders of a training job, as SageMaker makes them: hyper-parameters are texts."""
    (root / "input" / "config").mkdir(parents=True, exist_ok=True)
    (root / "input" / "data" / "texts").mkdir(parents=True, exist_ok=True)
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in parameters.items()}
    (root / "input" / "config" / "hyperparameters.json").write_text(json.dumps(texts))
    return {"FMOPS_ML_ROOT": str(root)}


# Contracts


def test_a_training_job_by_its_folders_alone(tmp_path: Path) -> None:
    job = Job(
        training(tmp_path, fmops_script="include.x", sagemaker_region="r", steps=3, rate=0.5, name="a b", on=True)
    )
    assert (job.script, job.hyperparameters) == ("include.x", {"steps": 3, "rate": 0.5, "name": "a b", "on": True})
    assert job.channel("texts") == tmp_path / "input" / "data" / "texts"
    assert (job.model_dir, job.checkpoint_dir) == (tmp_path / "model", tmp_path / "checkpoints")
    assert job.model_dir.is_dir() and job.output_data_dir.is_dir()
    assert (job.hosts, job.host, job.rank) == (["algo-1"], "algo-1", 0)


def test_a_training_job_by_its_variables(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    environment = {
        "FMOPS_ML_ROOT": str(tmp_path), "SM_HPS": '{"fmops_script": "include.x", "steps": 3, "text": "4"}',
        "SM_CHANNEL_TEXTS": str(tmp_path / "c"), "SM_MODEL_DIR": str(tmp_path / "m"),
        "SM_CHECKPOINT_DIR": str(tmp_path / "k"), "SM_OUTPUT_DATA_DIR": str(tmp_path / "o"),
        "SM_HOSTS": '["algo-2", "algo-1"]', "SM_CURRENT_HOST": "algo-2",
    }  # fmt: skip
    job = Job(environment)
    assert (job.script, job.hyperparameters) == ("include.x", {"steps": 3, "text": 4})
    assert job.channel("texts") == tmp_path / "c"
    assert [path.name for path in (job.model_dir, job.checkpoint_dir, job.output_data_dir)] == ["m", "k", "o"]
    assert (job.hosts, job.rank) == (["algo-1", "algo-2"], 1)


@pytest.mark.parametrize("way", ["variable", "argument"])
def test_a_processing_job_is_mapped_onto_it(tmp_path: Path, way: str) -> None:
    (tmp_path / "processing" / "input" / "texts").mkdir(parents=True)
    (tmp_path / "config").mkdir()
    hosts = {"current_host": "algo-1", "hosts": ["algo-2", "algo-1"]}
    (tmp_path / "config" / "resourceconfig.json").write_text(json.dumps(hosts))
    given = json.dumps({"fmops_script": "include.x", "steps": "3"})
    environment = {"FMOPS_ML_ROOT": str(tmp_path)} | ({"FMOPS_HYPERPARAMETERS": given} if way == "variable" else {})
    job = Job(environment, ["--region", "r", *([given] if way == "argument" else [])])
    assert (job.script, job.hyperparameters) == ("include.x", {"steps": 3})
    assert job.channel("texts") == tmp_path / "processing" / "input" / "texts"
    assert job.model_dir == tmp_path / "processing" / "output" and job.model_dir.is_dir()
    assert (job.hosts, job.rank) == (["algo-1", "algo-2"], 0)


@pytest.mark.parametrize(("text", "why"), [("{", "are not JSON"), ("[1]", "are not a JSON object")])
def test_hyperparameters_that_cannot_be_read_are_bad_input(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(BadInput, match=f"hyper-parameters in FMOPS_HYPERPARAMETERS {why}"):
        Job({"FMOPS_ML_ROOT": str(tmp_path), "FMOPS_HYPERPARAMETERS": text})


def test_a_channel_or_a_parameter_that_is_wrong_is_bad_input(tmp_path: Path) -> None:
    job = Job(training(tmp_path, steps=2, rate="NaN", whole=1, text="5", flag="yes"))
    with pytest.raises(BadInput, match="channel 'images' is missing: there is no folder"):
        job.channel("images")
    assert (job.parameter("steps", 1), job.parameter("none", 1), job.parameter("text", "")) == (2, 1, "5")
    whole = job.parameter("whole", 0.5)
    assert (whole, type(whole)) == (1.0, float)
    for name, default in (("rate", 0.5), ("flag", False), ("steps", True), ("flag", 3)):
        with pytest.raises(BadInput, match=f"hyper-parameter {name}=.* must be of type {type(default).__name__}"):
            job.parameter(name, default)


# Ends


def outcome(tmp_path: Path, **environment: str) -> tuple[int, str, str]:
    """Exit code, reason and output of the harness as a container runs it, without any package beside it."""
    run = subprocess.run(
        [sys.executable, "-S", "-c", "from include.jobs.harness import main; main()"],
        env={"PYTHONPATH": str(Path(harness.__file__).parents[2]), "PATH": os.environ["PATH"]}
        | training(tmp_path, **json.loads(environment.pop("parameters", "{}"))) | environment,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    failure = tmp_path / "output" / "failure"
    return run.returncode, failure.read_text() if failure.exists() else "", run.stdout + run.stderr


def test_the_harness_needs_the_standard_library_alone(tmp_path: Path) -> None:
    parameters = {"fmops_script": "include.jobs.scripts.smoke", "seconds": 1}
    code, failure, output = outcome(tmp_path, parameters=json.dumps(parameters))
    assert (code, failure) == (0, "")
    assert 'fmops-progress {"step": 1, "of": 1, "hashes": ' in output
    assert read_manifest(f"file://{tmp_path}/model").metrics["seconds"] == 1


@pytest.mark.parametrize(
    ("script_name", "reason"),
    [
        ("", "BadInput: hyper-parameter fmops_script is missing"),
        ("os.path", "BadInput: fmops_script='os.path': there is no such module"),
        ("include.nowhere.at_all", "BadInput: fmops_script='include.nowhere.at_all': there is no such module"),
        ("include.jobs.states", "BadInput: fmops_script='include.jobs.states' has no function main"),
    ],
)
def test_a_script_that_is_none_is_bad_input(tmp_path: Path, script_name: str, reason: str) -> None:
    code, failure, output = outcome(tmp_path, parameters=json.dumps({"fmops_script": script_name}))
    assert code == 64 and failure.startswith(reason)
    assert (tmp_path / "output" / "message").read_text() == failure  # what a processing job shows
    assert not (tmp_path / "model" / "manifest.json").exists()
    assert "Traceback" in output


def test_where_the_reason_cannot_be_noted_the_exit_code_tells(tmp_path: Path) -> None:
    code, failure, output = outcome(tmp_path, FMOPS_FAILURE_FILE="/dev/null/failure")
    assert (code, failure) == (64, "")
    assert "the reason is not noted" in output


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (BadInput("a\nb"), "BadInput", "a b"),
        (MemoryError(), "OutOfMemory", "no memory was left"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA"), "OutOfMemory", "CUDA"),
        (KeyError("x"), "UserCode", "KeyError: 'x'"),
        (SystemExit(0), "UserCode", "SystemExit: 0"),
    ],
)
def test_errors_have_a_class_and_one_line(error: BaseException, kind: str, reason: str) -> None:
    assert told(error) == (kind, reason)
    assert set(harness.EXIT_CODES) == {"BadInput", "OutOfMemory", "UserCode"}


def test_a_long_reason_is_cut_between_characters(tmp_path: Path) -> None:
    harness._write_reason(tmp_path / "new" / "failure", "UserCode: x" + "\N{SNOWMAN}" * 2000 + "\ud800")
    text = (tmp_path / "new" / "failure").read_bytes()
    assert 990 < len(text) <= 1000 and text.decode().endswith("\N{SNOWMAN}")


# Manifest and progress


def test_the_manifest_comes_last_and_holds_every_file(tmp_path: Path, script: Script) -> None:
    def main(job: Job) -> dict[str, Any]:
        (job.model_dir / "deep").mkdir()
        (job.model_dir / "deep" / "b.txt").write_text("b")
        (job.model_dir / "a.txt").write_text("aa")
        assert not (job.model_dir / "manifest.json").exists()
        number = SimpleNamespace(item=lambda: 2.5)  # as NumPy's
        return {"loss": float("inf"), "list": [float("nan"), 1], "number": number, "path": {"deep": True}}

    script(main)
    harness.run(training(tmp_path, fmops_script="include.trial"))
    manifest = read_manifest(f"file://{tmp_path}/model")
    assert [(file.path, file.bytes) for file in manifest.files] == [("a.txt", 2), ("deep/b.txt", 1)]
    assert manifest.metrics == {"loss": None, "list": [None, 1], "number": 2.5, "path": {"deep": True}}
    assert "NaN" not in (tmp_path / "model" / "manifest.json").read_text()


def test_no_manifest_is_left_by_a_script_that_ends_badly(tmp_path: Path, script: Script) -> None:
    def own(job: Job) -> None:
        (job.model_dir / "manifest.json").write_text("{}")

    for main, error in (
        (lambda job: 5, r"main\(\) returned a int, not a dict"),
        (lambda job: {"loss": object()}, "not JSON serializable"),
        (lambda job: (job.progress(step=7), 1 / 0), "division by zero"),
        (own, "the script wrote manifest.json"),
    ):
        script(main)
        with pytest.raises((TypeError, FileExistsError, ZeroDivisionError), match=error):
            harness.run(training(tmp_path, fmops_script="include.trial"))
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["manifest.json"]
    assert (tmp_path / "model" / "manifest.json").read_text() == "{}"


def test_other_hosts_than_the_first_write_a_manifest_of_their_own(tmp_path: Path) -> None:
    Job(training(tmp_path) | {"SM_HOSTS": '["algo-1", "algo-2"]', "SM_CURRENT_HOST": "algo-2"}).finish({})
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["manifest-1.json"]


def test_progress_is_shown_every_few_seconds_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [100.0]
    monkeypatch.setattr(harness.time, "monotonic", lambda: clock[0])
    file = tmp_path / "progress.json"
    job = Job(training(tmp_path) | {"FMOPS_PROGRESS_FILE": str(file)})
    for step in range(1, 6):
        job.progress(step=step, of=5, loss=float("nan") if step == 5 else 1 / step)
        clock[0] += 0.9
    assert json.loads(file.read_text()) == {"step": 4, "of": 5, "left_s": 1, "loss": 0.25}
    job.tell()
    job.tell()
    shown = capsys.readouterr().out.splitlines()
    assert [json.loads(line.removeprefix("fmops-progress "))["step"] for line in shown] == [1, 4, 5]
    assert json.loads(file.read_text()) == {"step": 5, "of": 5, "loss": None}


def test_progress_that_cannot_be_noted_does_not_end_the_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    job = Job(training(tmp_path) | {"FMOPS_PROGRESS_FILE": "/dev/null/progress.json"})
    job.progress(step=1)
    assert "progress is not noted" in caplog.text and "fmops-progress" in capsys.readouterr().out


def test_finite_leaves_what_json_can_hold() -> None:
    value = {"a": [1, 2.5, "x", None, True], "b": {"c": (1,)}}
    assert finite(value) == {"a": [1, 2.5, "x", None, True], "b": {"c": [1]}}


# Checkpoints


def save(kept: Checkpoints, step: int) -> Path:
    with kept.save(step) as folder:
        (folder / "state").write_text(str(step))
    return kept.folder / f"step-{step:012d}"


LEFT_OUT = "checkpoint step-000000000002 is left out"


def test_the_last_checkpoint_is_found_and_old_ones_go(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "k", keep=2)
    assert kept.last() is None
    for step in (1, 2, 9, 10):
        save(kept, step)
    step, folder = Checkpoints(tmp_path / "k").last() or (0, Path())
    assert (step, (folder / "state").read_text()) == (10, "10")
    assert sorted(int(path.name[5:]) for path in kept.folder.iterdir()) == [9, 10]


def test_a_checkpoint_is_whole_or_not_there(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    save(kept, 1)
    with pytest.raises(OSError, match="full"), kept.save(2) as folder:
        (folder / "state").write_text("half")
        raise OSError("full")
    (tmp_path / ".partial-000000000003").mkdir()  # of a generation that was killed
    assert (Checkpoints(tmp_path).last() or (0,))[0] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000000001"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "state").write_text("3"), LEFT_OUT),
        (lambda folder: (folder / "state").write_text("longer"), LEFT_OUT),
        (lambda folder: (folder / "state").unlink(), LEFT_OUT),
        # Nobody knows when it was saved: one that is whole goes before it.
        (lambda folder: (folder / RECORD).write_text("{"), ""),
        (lambda folder: (folder / RECORD).write_text("[]"), ""),
        (lambda folder: (folder / RECORD).unlink(), ""),
    ],
)
def test_a_checkpoint_that_is_not_what_was_written_is_left_out(
    tmp_path: Path, spoil: Callable[[Path], Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Checkpoints(tmp_path)
    save(kept, 1)
    spoil(save(kept, 2))
    with caplog.at_level(logging.WARNING):
        assert (kept.last() or (0,))[0] == 1
    assert said in caplog.text
    save(kept, 2)
    assert (kept.last() or (0,))[0] == 2


def test_a_script_that_began_anew_keeps_what_it_saves(tmp_path: Path) -> None:
    """Its steps are below those of the checkpoints that it found, whole or not."""
    before = Checkpoints(tmp_path)
    for step in (300, 400):
        save(before, step)
    after = Checkpoints(tmp_path)
    save(after, 100)
    assert (after.last() or (0,))[0] == 100
    save(after, 150)
    assert (Checkpoints(tmp_path).last() or (0,))[0] == 150
    assert sorted(int(path.name[5:]) for path in tmp_path.iterdir()) == [100, 150]


def test_corrupt_checkpoints_do_not_push_out_good_ones(tmp_path: Path) -> None:
    before = Checkpoints(tmp_path)
    for step in (300, 400):
        (save(before, step) / "state").write_text("torn")
    after = Checkpoints(tmp_path)
    assert after.last() is None
    for step in (100, 150):
        save(after, step)
    assert (Checkpoints(tmp_path).last() or (0,))[0] == 150


def test_a_checkpoint_is_due_when_its_time_has_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: clock[0])
    job = Job(training(tmp_path))
    assert not job.checkpoint_due(5)
    clock[0] = 105
    assert job.checkpoint_due(5)
    save(job.checkpoints, 1)
    assert not job.checkpoint_due(5)


# Smoke


def test_smoke_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke, "CHECKPOINT_S", 0.0)
    environment = training(tmp_path, seconds=1)
    first = smoke.main(Job(environment))
    assert first["resumed_from_step"] == 0 and first["hashes"] > 0
    second = smoke.main(Job(training(tmp_path, seconds=2)))
    assert second["resumed_from_step"] == 1 and second["hashes"] > first["hashes"]
    result = json.loads((tmp_path / "model" / "result.json").read_text())
    assert result["hashes"] == second["hashes"] and len(result["digest"]) == 64


@pytest.mark.parametrize("seconds", [0, 3601, "long"])
def test_smoke_refuses_a_time_that_is_none(tmp_path: Path, seconds: int | str) -> None:
    with pytest.raises(BadInput, match="seconds"):
        smoke.main(Job(training(tmp_path, seconds=seconds)))
