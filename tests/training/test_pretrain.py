"""Pre-training in the jobs environment: interrupted, broken, in segments, in several processes, and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.in_jobs import run_in_jobs

TRIALS = "tests.training.pretrain_trials"
SAME = ("digest", "step", "position", "tokens", "skipped", "recent", "curve")
"""What a resumed run has in common with one that was never interrupted; the digest is of weights and moments."""


def run_trials(folder: Path, *names: str) -> tuple[dict[str, Any], str]:
    """What the trials came to, and what was logged."""
    done = run_in_jobs(TRIALS, folder, *names)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stdout


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """All trials that one process can do: importing torch takes longer than most of them."""
    names = ("stop_anywhere", "segments", "broken", "corrupt", "full_disk", "refuse")
    return run_trials(tmp_path_factory.mktemp("trials"), *names)


def assert_same(resumed: dict[str, Any], whole: dict[str, Any]) -> None:
    assert {name: resumed[name] for name in SAME} == {name: whole[name] for name in SAME}


@pytest.mark.parametrize("architecture", ["decoder", "encoder_decoder"])
def test_a_run_interrupted_at_any_step_equals_one_that_was_not(trials: Any, architecture: str) -> None:
    found = trials[0]["stop_anywhere"][architecture]
    assert len(found["resumed"]) == 7
    for resumed in found["resumed"]:
        assert_same(resumed, found["whole"])


def test_a_killed_process_is_gone_on_with_bit_for_bit(trials: Any, tmp_path: Path) -> None:
    killed = run_in_jobs(TRIALS, tmp_path, "kill")
    assert killed.returncode == -9
    resumed, log = run_trials(tmp_path, "kill")
    assert "goes on from step 5" in log
    assert_same(resumed["kill"], trials[0]["segments"]["whole"])


def test_segments_equal_the_whole(trials: Any) -> None:
    assert_same(trials[0]["segments"]["segments"], trials[0]["segments"]["whole"])


def test_it_learns(trials: Any) -> None:
    for architecture in ("decoder", "encoder_decoder"):
        curve = trials[0]["stop_anywhere"][architecture]["whole"]["curve"]
        assert curve[-1]["held_out_loss"] < curve[0]["held_out_loss"] - 0.3


def test_what_is_no_number_rewinds_and_its_rows_are_left_out(trials: Any) -> None:
    found, log = trials[0]["broken"], trials[1]
    rows = 4  # of a step
    assert found["nan"]["skipped"] == [[20, rows]] and found["nan"]["rewinds"] == 1
    assert "loss nan and gradient norm nan are no numbers; rewinds to step 5" in log
    # Eight steps are done for all that, on other rows than the broken ones.
    assert (found["nan"]["step"], found["nan"]["position"]) == (8, 9 * rows)
    assert found["nan_at_once"]["skipped"] == [[0, rows]]
    assert found["nan_at_once"]["step"] == 8


def test_a_loss_that_jumps_rewinds(trials: Any) -> None:
    assert trials[0]["broken"]["jump"]["skipped"] == [[24, 4]]
    assert "jumped from" in trials[1]


def test_a_run_that_breaks_again_and_again_ends(trials: Any) -> None:
    said = trials[0]["broken"]["always"]
    assert "after 5 rewinds: lower learning_rate=0.0" in said


def test_a_corrupt_checkpoint_is_left_for_the_one_before(trials: Any) -> None:
    found, log = trials[0]["corrupt"], trials[1]
    assert found["last"] == "step-000000000006"
    assert "checkpoint step-000000000006 is left out: state.safetensors is not what was written" in log
    assert_same(found["resumed"], found["whole"])


def test_a_full_disk_leaves_the_checkpoint_before_and_nothing_half(trials: Any) -> None:
    found = trials[0]["full_disk"]
    assert "No space left on device" in found["said"]
    assert found["left"] == ["step-000000000001"]
    assert found["released"] == []
    assert_same(found["resumed"], found["whole"])


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("size", "size='huge' is no preset: write one of tiny, mini, small, 1b"),
        ("architecture", "architecture='mamba' must be one of decoder, encoder_decoder"),
        ("precision", "precision='fp8' must be one of auto, fp32, bf16"),
        ("steps", "from_step=0, until_step=9 and steps=8 must rise"),
        ("batch", "but the corpus has"),
        ("rate", "learning_rate=0.0 must be above 0"),
        ("share", "2 processes cannot share: write a multiple of 64"),
        ("single", "parallelism=single, but there are 2 processes"),
        ("no mark", "holds no mark.json: the segment before has not come to its end"),
        ("other step", "its mark is of step 4, not from_step=2"),
        ("other run", "state of a run with config_digest="),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(trials: Any, what: str, said: str) -> None:
    found = trials[0]["refuse"][what]
    assert found.startswith("BadInput: ") and said in found and "\n" not in found


def test_two_processes_train_the_same_model_as_one(tmp_path: Path) -> None:
    found = run_trials(tmp_path, "two_processes")[0]["two_processes"]
    one = found["one"]
    assert found["ddp"]["metrics"]["processes"] == 2
    for parallelism in ("ddp", "fsdp"):
        losses = [[point["loss"] for point in run["curve"]] for run in (found[parallelism], one)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)
        assert found[parallelism]["metrics"]["held_out_loss"] == pytest.approx(
            one["metrics"]["held_out_loss"], rel=1e-3
        )


@pytest.mark.slow
def test_two_processes_go_on_bit_for_bit(tmp_path: Path) -> None:
    found = run_trials(tmp_path, "two_processes_in_segments")[0]["two_processes_in_segments"]
    for parallelism in ("ddp", "fsdp"):
        assert_same(found[f"{parallelism} in two"], found[parallelism])
