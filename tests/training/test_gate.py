"""The gate of a release: both outcomes, by planted models that were trained and not, and by planted numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.errors import GateError, UserError
from include.storage import location, write_json
from include.training.evaluate_base import EVALUATION as WRITTEN
from include.training.evaluate_base import PER_DOCUMENT as WRITTEN_PER_DOCUMENT
from include.training.gate import EVALUATION, PER_DOCUMENT, Decision, Thresholds, judge, read_evaluation, require
from tests.training.evaluated import world


def planted(
    gains: list[float], *, zlib: float = 3.0, architecture: str = "decoder", size: int = 100
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An evaluation whose model saves `gain` bits per byte (or per token) of each document, against a baseline of 2."""
    rows: list[dict[str, Any]] = [
        {"source": "one", "number": number, "bytes": size, "tokens": size, "model_bits": (2 - gain) * size,
         "baseline_bits": 2.0 * size}
        for number, gain in enumerate(gains)
    ]  # fmt: skip
    model = float(np.mean([row["model_bits"] for row in rows])) / size
    if architecture == "decoder":
        baselines = {"ngram": {"bits_per_byte": 2.0}, "zlib": {"bits_per_byte": zlib}}
        return {"architecture": architecture, "held_out": {"bits_per_byte": model}, "baselines": baselines}, rows
    nats = {name: {"loss_nats_per_token": bits * np.log(2)} for name, bits in (("m", model), ("unigram", 2.0))}
    denoising, unigram = nats["m"], {"unigram": nats["unigram"]}
    return {"architecture": architecture, "held_out": {}, "span_denoising": denoising, "baselines": unigram}, rows


def decided(gains: list[float], thresholds: Thresholds | None = None, **planting: Any) -> Decision:
    return judge(*planted(gains, **planting), thresholds or Thresholds())


@pytest.mark.parametrize("architecture", ["decoder", "encoder_decoder"])
def test_a_trained_model_passes(architecture: str) -> None:
    evaluation, rows = read_evaluation(location((world() / f"{architecture}-trained" / "evaluation").as_uri()))
    decision = judge(evaluation, rows, Thresholds(ngram_margin=0.1, zlib_margin=0.1, unigram_margin=0.1))
    assert decision.verdict == "passed" and decision.num_documents == 20
    assert {one.verdict for one in decision.findings} == {"passed"} and not decision.deciding
    require(decision)


@pytest.mark.parametrize("architecture", ["decoder", "encoder_decoder"])
def test_an_untrained_model_is_refused(architecture: str) -> None:
    evaluation, rows = read_evaluation(location((world() / f"{architecture}-untrained" / "evaluation").as_uri()))
    decision = judge(evaluation, rows, Thresholds())
    assert decision.verdict == "refused"
    assert {one.verdict for one in decision.findings} == {"refused"}
    assert len(decision.deciding) == 10 and decision.deciding[0].split("#")[0] in ("one", "two")
    with pytest.raises(GateError, match=r"the model is refused: .* is not below .* of \w+: \+\d.*decided it: \w+#\d"):
        require(decision)


def test_the_names_of_the_files_are_those_that_the_job_writes() -> None:
    assert (EVALUATION, PER_DOCUMENT) == (WRITTEN, WRITTEN_PER_DOCUMENT)


def test_a_model_has_to_be_better_than_each_baseline() -> None:
    assert decided([0.1] * 8).verdict == "passed"
    assert decided([0.0] * 8).verdict == "refused", "as good is not better"
    zlib = decided([0.1] * 8, zlib=1.5)
    assert [(one.baseline, one.verdict) for one in zlib.findings] == [("zlib", "refused"), ("ngram", "passed")]
    assert zlib.verdict == "refused" and zlib.deciding == ()


def test_the_margin_is_a_share_of_the_baselines_cost() -> None:
    gains = [0.1] * 10  # of 2: 5 %
    assert decided(gains, Thresholds(ngram_margin=0.04)).verdict == "passed"
    refused = decided(gains, Thresholds(ngram_margin=0.06))
    assert refused.verdict == "refused"
    assert refused.reasons[1] == (
        "1.900 bits per byte is not below 2.000 of ngram less 6.0%: +0.020 (95 % interval +0.020 to +0.020)"
    )


def test_a_difference_that_chance_explains_passes_only_where_doubt_is_allowed() -> None:
    gains = [0.5, -0.4, 0.6, -0.5, 0.4, -0.3, 0.3, -0.2]
    refused = decided(gains)
    assert refused.findings[1].difference < 0 < (refused.findings[1].high or 0)
    assert refused.verdict == "refused" and "below, but not surely, 2.000 of ngram" in refused.reasons[1]
    assert refused.deciding == ("one#3", "one#1", "one#5", "one#7"), "where the baseline is ahead, by most first"
    doubtful = decided(gains, Thresholds(is_doubt_allowed=True))
    assert doubtful.verdict == "passed_in_doubt"
    require(doubtful)
    assert decided([-gain for gain in gains], Thresholds(is_doubt_allowed=True)).verdict == "refused"


def test_too_few_documents_are_not_judged_by() -> None:
    decision = decided([0.5] * 7)
    assert decision.verdict == "not_judged" and not decision.findings
    with pytest.raises(GateError, match="not judged: 7 held-out documents are too few to judge by: min_documents=8"):
        require(decision)
    assert decided([0.5] * 7, Thresholds(min_documents=7)).verdict == "passed"


def test_no_number_is_no_pass() -> None:
    evaluation, rows = planted([0.5] * 8)
    evaluation["held_out"]["bits_per_byte"] = float("nan")
    assert judge(evaluation, rows, Thresholds()).verdict == "refused"


@given(
    gains=st.lists(st.floats(-1, 1), min_size=8, max_size=30),
    sizes=st.integers(1, 1000),
    architecture=st.sampled_from(["decoder", "encoder_decoder"]),
)
def test_the_interval_holds_the_difference_of_the_sums(gains: list[float], sizes: int, architecture: str) -> None:
    finding = decided(gains, architecture=architecture, size=sizes).findings[-1]
    assert finding.low is not None and finding.high is not None
    assert finding.low - 1e-9 <= finding.difference <= finding.high + 1e-9
    unit = 1.0 if architecture == "decoder" else np.log(2)
    assert finding.difference == pytest.approx(-np.mean(gains) * unit, abs=1e-9)
    assert (finding.verdict == "passed") == (finding.high < 0 and finding.difference < 0)


def test_an_unknown_schema_is_refused(tmp_path: Path) -> None:
    output = location(tmp_path.as_uri())
    write_json(output / EVALUATION, {"schema_version": 2})
    with pytest.raises(UserError, match=r"evaluation.json: schema_version=2 is not 1"):
        read_evaluation(output)
    write_json(output / EVALUATION, {"schema_version": 1})
    write_json(output / PER_DOCUMENT, {})
    with pytest.raises(UserError, match=r"per_document.json: schema_version=None is not 1"):
        read_evaluation(output)


def test_thresholds_that_cannot_be_meant_are_refused() -> None:
    for wrong in ({"ngram_margin": -0.1}, {"zlib_margin": 1.0}, {"min_documents": 1}, {"margin": 0.1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Thresholds(**wrong)  # type: ignore[arg-type]
