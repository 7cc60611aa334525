"""What is printed after pre-training: the release, its curve, the model beside its rivals; or why there is none."""

from __future__ import annotations

import re
from typing import Any

import pytest

from include.contracts import Cost, Lineage, ModelRelease
from include.errors import GateError
from include.statistics import Interval
from include.storage import location, write_json, write_record
from include.training import gate
from local.pretraining_results import HEIGHT, WIDTH, plot, print_no_release, print_release
from local.workflows import WORKFLOWS, Outcome
from tests.training.release_parts import evaluation, plant_corpus

DROPPED = [{"near_duplicate": 3, "too_short": 1}, {"near_duplicate": 1200}]
REPORT = {
    f"source{number}": {"documents": 2000, "kept": 2000 - sum(dropped.values()), "dropped": dropped}
    for number, dropped in enumerate(DROPPED)
}


def released(root: str, evaluated: dict[str, Any], **other: Any) -> str:
    """A release as the task `publish` leaves it, without the files that are only named; its folder."""
    folder = f"{root}/acme/training/releases/docs-lm/3"
    lineage: dict[str, Any] = {name: name for name in Lineage.model_fields} | {"jobs": ()}
    values: dict[str, Any] = {
        "tenant": "acme",
        "use_case": "docs",
        "model": "docs-lm",
        "version": 3,
        "content_digest": "c",
        "model_uri": f"{folder}/model",
        "card_uri": f"{folder}/card.md",
        **{name: evaluated[name] for name in ("architecture", "size", "parameters")},
        "lineage": Lineage(**{**lineage, "data_uri": plant_corpus(f"{root}/corpus", sources=REPORT)}),
        "config": {},
        "metrics": {},
        "files": (),
        "licences": (),
        "cost": Cost(instance_seconds=231.4),
    }
    write_record(location(folder) / "manifest.json", ModelRelease(**{**values, **other}))
    write_json(location(folder) / "evaluation.json", evaluated)
    return folder


def evaluated_at(root: str, found: dict[str, Any]) -> str:
    """The output of an evaluation job."""
    write_json(location(f"{root}/evaluated/evaluation.json"), found)
    return f"{root}/evaluated"


def refusal(bits_per_byte: float, low: float, high: float) -> str:
    """What the gate says of a model beside the n-gram model's 2.0, without a bootstrap; as the launcher reads it."""
    interval = Interval(mean=bits_per_byte - 2.0, low=low, high=high)
    found = gate._against("ngram", "bits per byte", bits_per_byte, 2.0, interval, gate.Thresholds())
    decision = gate.Decision(verdict=found.verdict, reasons=(found.reason,), num_documents=10)
    with pytest.raises(GateError) as error:
        gate.require(decision)
    return f"GateError: {error.value}"


def test_a_decoder_stands_beside_the_ngram_model_and_zlib(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = released(root, evaluation(bits_per_byte=1.8))
    print_release(folder, "champion", 250.2, {})
    said = capsys.readouterr().out
    for words in (
        "\nmodel docs-lm, version 3, champion\n",
        "  documents   4,000 read, 2,796 kept; left out: 1,203 near duplicate, 1 too short\n",
        "  tokens      100 to train on, 100 held out in 4 documents\n",
        "  training    100 steps, 409,600 tokens; decoder of size tiny, 2,000,000 weights\n",
        "  time        250 s; its jobs, which train and evaluate, 231 s\n",
        "bits per byte; the line is the 3-gram model's\n",
        "  model       1.800 bits per byte, on 10 held-out documents\n",
        "  3-gram      2.000: the model is 10.0 % below\n",
        "  zlib        2.500: the model is 28.0 % below\n",
        f"  release     {folder}\n",
        f"  card        {folder}/card.md\n",
        f"  curve       {folder}/curve.png\n",
        f"  model       {folder}/model\n",
        "  make ui-mlflow ",
        "  docs/pretraining.md ",
    ):
        assert words in said


def test_an_encoder_decoder_stands_beside_the_unigram(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluation("encoder_decoder")
    found["span_denoising"]["loss_nats_per_token"] = 6.3
    print_release(released(root, found), "challenger", 300, {})
    said = capsys.readouterr().out
    assert "version 3, challenger\n" in said and "encoder-decoder of size tiny" in said
    assert "  model       6.300 nats per left-out token, on 10 held-out documents\n" in said
    assert "  unigram     6.000: the model is 5.0 % above\n" in said
    assert "zlib" not in said and "---- " not in said


def test_work_that_was_found_again_is_told_from_what_this_run_did(
    root: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_release(released(root, evaluation()), "champion", 20, {})
    assert "  time        20 s; its jobs, which train and evaluate, 231 s when they ran\n" in capsys.readouterr().out


def test_mlflow_is_named_where_there_is_one(
    root: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = released(root, evaluation())
    monkeypatch.setenv("FMOPS_STORAGE_ROOT", "s3://bucket/prefix")
    print_release(folder, "champion", 300, {})
    assert "make ui-mlflow" not in capsys.readouterr().out


def test_the_curve_has_a_mark_for_each_look_and_the_level_across() -> None:
    *rows, axis, steps = plot([(100, 3.0), (550, 2.0), (1000, 1.0)], 2.0)
    assert len(rows) == HEIGHT
    assert (rows[0][:10], rows[-1]) == ("  3.00 |o", f"  1.00 |{' ' * (WIDTH - 1)}o")
    (middle,) = [row for row in rows if "-" in row]
    assert middle.count("o") == 1 and len(middle) == len(axis) == len(steps) == len("  3.00 |") + WIDTH
    assert re.fullmatch(r"step +100 +1,000", steps)


@pytest.mark.parametrize(("points", "level"), [([(5.0, 2.0)], None), ([(5.0, 2.0), (5.0, 2.0)], 2.0)])
def test_a_curve_of_one_height_can_be_drawn(points: list[tuple[float, float]], level: float | None) -> None:
    assert "".join(plot(points, level)).count("o") == 1


def test_a_curve_without_a_look_says_so(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    curve = [
        {"step": 10, "loss": 3.0},
        {"step": 20, "held_out_loss": None},
        {"step": 30, "held_out_loss": float("nan")},
    ]
    print_release(released(root, evaluation(curve=curve)), "champion", 300, {})
    assert "curve\n  no point of it was kept\nquality\n" in capsys.readouterr().out


@pytest.mark.parametrize(("bits", "high", "is_doubt"), [(1.95, 0.1, True), (2.2, 0.3, False)])
def test_a_refused_model_is_shown_with_the_gates_reason(
    root: str, capsys: pytest.CaptureFixture[str], bits: float, high: float, is_doubt: bool
) -> None:
    found = evaluation(bits_per_byte=bits)
    reason = refusal(bits, -0.1, high)
    print_no_release({"release.gate": reason}, evaluated_at(root, found))
    said = capsys.readouterr().out
    assert f"\npretraining: nothing was released\n  release.gate       {reason}\n" in said
    assert "\nmodel, not released\n" in said
    assert f"  model       {bits:.3f} bits per byte" in said
    assert f"the model is {abs(100 - 50 * bits):.1f} % {'below' if is_doubt else 'above'}" in said
    assert f"  evaluation  {root}/evaluated/evaluation.json\n" in said
    assert ("accept_doubt" in said) is is_doubt
    assert "docs/pretraining.md" in said and "goes on where it failed" not in said


def test_a_release_that_is_there_is_shown_although_a_task_after_it_failed(
    root: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = released(root, evaluation())
    results = {"release.publish": {"release_uri": folder, "alias": "champion"}, "release.evaluate": {"output_uri": "u"}}
    failures = {"release.register": "BusyError: no answer"}
    show = WORKFLOWS["pretraining"].show
    show(Outcome(succeeded=False, seconds=300, results=results, failures=failures))
    said = capsys.readouterr().out
    assert "model docs-lm, version 3, champion\n" in said
    assert f"{folder}/model\nfailed afterwards\n  release.register   BusyError: no answer\nnext\n" in said
    show(Outcome(succeeded=True, seconds=300, results=results))
    assert "failed" not in capsys.readouterr().out


def test_a_run_that_failed_before_it_was_evaluated_names_the_task(capsys: pytest.CaptureFixture[str]) -> None:
    print_no_release({"train.segment_1": "UserError: run `make setup-jobs`; or not"}, None)
    said = capsys.readouterr().out
    assert f"nothing was released\n  train.segment_1    UserError: run `make setup-jobs`\n{'':21}or not\nnext\n" in said
    assert "make dag DAG=pretraining   goes on where it failed" in said
    assert "quality" not in said
