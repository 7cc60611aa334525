"""Whether an evaluated model may be released: it has to beat what needs no training worth the name.

A decoder has to beat an n-gram model and zlib in bits per byte, an encoder-decoder the unigram in nats per token, each
by a margin. How sure the difference is tells a bootstrap over documents, which are independent as tokens are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from include import statistics
from include.errors import GateError, UserError
from include.statistics import Interval
from include.storage import read_json

if TYPE_CHECKING:
    from upath import UPath

Verdict = Literal["passed", "passed_in_doubt", "refused", "not_judged"]
Rows = Sequence[Mapping[str, Any]]
"""Of per_document.json."""

SCHEMA_VERSION = 1
EVALUATION, PER_DOCUMENT = "evaluation.json", "per_document.json"
SHOWN = 10
"""How many documents a decision names."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Thresholds(_Part):
    """What a model has to reach; margins are shares of the baseline's cost, so 0.02 asks for 2 % less."""

    ngram_margin: float = Field(0.0, ge=0, lt=1)
    zlib_margin: float = Field(0.0, ge=0, lt=1)
    unigram_margin: float = Field(0.0, ge=0, lt=1)
    min_documents: int = Field(8, ge=2)
    """Fewer are not judged by."""
    is_doubt_allowed: bool = False
    """Whether a model passes that is better, but by an interval that reaches the threshold."""


class Finding(_Part):
    """The model against one baseline."""

    baseline: str
    unit: str
    model: float
    other: float
    """The baseline's own."""
    margin: float
    difference: float
    """model - (1 - margin) x other: below 0 the model is better by more than the margin."""
    low: float | None
    high: float | None
    """The 95 % interval of the difference; None where it is not known by document."""
    verdict: Verdict
    reason: str


class Decision(_Part):
    """What the gate says, and why."""

    verdict: Verdict
    reasons: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    num_documents: int
    deciding: tuple[str, ...] = ()
    """Held-out documents, as source#number, at which a missed baseline is ahead by most."""


def read_evaluation(output: UPath) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Evaluation and rows of its documents, from the evaluation job's output; UserError for an unknown schema."""
    found = []
    for name in (EVALUATION, PER_DOCUMENT):
        read = read_json(output / name)
        if read.get("schema_version") != SCHEMA_VERSION:
            raise UserError(f"{name}: schema_version={read.get('schema_version')!r} is not {SCHEMA_VERSION}")
        found.append(read)
    return found[0], found[1]["documents"]


def judge(evaluation: Mapping[str, Any], documents: Rows, thresholds: Thresholds) -> Decision:
    """Set the model against each of its baselines; the worst finding is the verdict.

    A baseline is missed where the difference is not below 0, or not surely so and doubt is not allowed.
    """
    if len(documents) < thresholds.min_documents:
        reason = (
            f"{len(documents)} held-out documents are too few to judge by: min_documents={thresholds.min_documents}"
        )
        return Decision(verdict="not_judged", reasons=(reason,), num_documents=len(documents))
    findings = tuple(_findings(evaluation, documents, thresholds))
    verdicts = {one.verdict for one in findings}
    verdict = next(one for one in _WORST_FIRST if one in verdicts)
    return Decision(
        verdict=verdict,
        reasons=tuple(one.reason for one in findings),
        findings=findings,
        num_documents=len(documents),
        deciding=_worst(documents) if any(one.high is not None and one.verdict != "passed" for one in findings) else (),
    )


def require(decision: Decision) -> None:
    """GateError, with all reasons and numbers, unless the model passed."""
    if decision.verdict not in ("passed", "passed_in_doubt"):
        worst = f"; documents that decided it: {', '.join(decision.deciding)}" if decision.deciding else ""
        raise GateError(f"the model is {decision.verdict.replace('_', ' ')}: {'; '.join(decision.reasons)}{worst}")


_WORST_FIRST: tuple[Verdict, ...] = ("refused", "passed_in_doubt", "passed")


def _findings(evaluation: Mapping[str, Any], documents: Rows, thresholds: Thresholds) -> Iterator[Finding]:
    baselines = evaluation["baselines"]
    if evaluation["architecture"] == "decoder":
        unit, name, model = "bits per byte", "bits_per_byte", evaluation["held_out"]["bits_per_byte"]
        total, by_document = sum(row["bytes"] for row in documents), "ngram"
        yield _against("zlib", unit, model, baselines["zlib"][name], None, thresholds)
    else:
        unit, name = "nats per token", "loss_nats_per_token"
        model = evaluation["span_denoising"][name]
        total, by_document = sum(row["tokens"] for row in documents) / math.log(2), "unigram"
    margin = _margin(by_document, thresholds)
    each = len(documents) / total  # so that the mean over documents is the difference of the sums
    interval = statistics.paired_difference(
        [row["model_bits"] * each for row in documents],
        [(1 - margin) * row["baseline_bits"] * each for row in documents],
    )
    yield _against(by_document, unit, model, baselines[by_document][name], interval, thresholds)


def _margin(baseline: str, thresholds: Thresholds) -> float:
    return float(getattr(thresholds, f"{baseline}_margin"))


def _against(
    baseline: str, unit: str, model: float, other: float, interval: Interval | None, thresholds: Thresholds
) -> Finding:
    margin = _margin(baseline, thresholds)
    difference = model - (1 - margin) * other
    verdict: Verdict = "passed"
    how = "below"
    if not difference < 0:  # of no number neither is true
        verdict, how = "refused", "not below"
    elif interval and interval.high >= 0:
        verdict, how = "passed_in_doubt" if thresholds.is_doubt_allowed else "refused", "below, but not surely,"
    asked = f"{other:.3f} of {baseline}" + (f" less {margin:.1%}" if margin else "")
    shown = f" (95 % interval {interval.low:+.3f} to {interval.high:+.3f})" if interval else ""
    return Finding(
        baseline=baseline,
        unit=unit,
        model=model,
        other=other,
        margin=margin,
        difference=difference,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        verdict=verdict,
        reason=f"{model:.3f} {unit} is {how} {asked}: {difference:+.3f}{shown}",
    )


def _worst(documents: Rows) -> tuple[str, ...]:
    """Documents at which the baseline is ahead, by most bits first."""
    ahead = {f"{row['source']}#{row['number']}": row["model_bits"] - row["baseline_bits"] for row in documents}
    return tuple(sorted((name for name in ahead if ahead[name] > 0), key=lambda name: (-ahead[name], name))[:SHOWN])
