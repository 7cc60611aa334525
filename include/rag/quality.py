"""How well an index finds what it holds: measures over golden questions, and the gate that judges them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from include import statistics
from include.contracts import Record
from include.errors import UserError
from include.rag.golden import Question

Verdict = Literal["passed", "passed_in_doubt", "refused", "not_judged"]
Rankings = Mapping[str, Mapping[str, Sequence[str]]]
"""Mode, such as full_text, dense or hybrid -> question id -> document ids, best first."""

MIN_QUESTIONS = 20
SHOWN = 10
"""How many found documents a report keeps of each ranking, and how many questions a decision names."""
_EXACT = 9
"""Decimals that are kept: a mean of 0.8 must not miss a threshold of 0.8 by rounding."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Score(_Part):
    """A mean over all questions and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


class ModeScores(_Part):
    """One way of searching, over all questions."""

    mode: str
    asked: int
    """Questions that have a ranking, if an empty one. The others count 0 as well."""
    answered: int
    """Questions whose ranking is not empty."""
    scores: dict[str, Score]
    """By measure: recall_at_K, precision_at_K, mrr, ndcg_at_10."""


class QuestionRow(_Part):
    """One question, what it should find and what each mode found."""

    id: str
    text: str
    made_from: str | None
    relevant: tuple[str, ...]
    found: dict[str, tuple[str, ...]]
    """Mode -> the first documents of its ranking."""
    values: dict[str, dict[str, float]]
    """Mode -> measure -> value."""


class Decision(_Part):
    """What the gate says, and why."""

    verdict: Verdict
    mode: str
    thresholds: dict[str, float]
    reasons: tuple[str, ...]
    deciding: tuple[str, ...] = ()
    """Ids of the questions that cost most on the measures that were missed, worst first."""


class QualityReport(Record):
    """What golden questions say of one version of an index."""

    index: str
    index_version: int
    run_id: str
    ledger_version: int
    question_source: str
    """`made` by the rule of include.rag.golden, or the URI of the file that they come from."""
    documents_sampled: int
    """Documents that questions were made from; 0 where they come from a file."""
    num_questions: int
    modes: tuple[ModeScores, ...]
    questions: tuple[QuestionRow, ...]
    decision: Decision | None = None
    live_version: int | None = None
    """The version that was live when the decision was made."""

    def of(self, mode: str) -> ModeScores:
        """The scores of a mode; UserError if it was not measured."""
        for scores in self.modes:
            if scores.mode == mode:
                return scores
        raise UserError(f"mode={mode!r} was not measured; measured: {', '.join(one.mode for one in self.modes)}")


def measure(
    questions: Sequence[Question],
    rankings: Rankings,
    *,
    tenant: str,
    use_case: str,
    index: str,
    run_id: str,
    ledger_version: int,
    index_version: int = 1,
    question_source: str = "made",
    documents_sampled: int = 0,
    k: int = 5,
) -> QualityReport:
    """Score every mode's rankings by ir-measures; each question counts once in every mean, an unanswered one 0.

    A document that several passages are from counts once, where the first of them stands.
    """
    unique = {mode: {key: list(dict.fromkeys(ids)) for key, ids in by_id.items()} for mode, by_id in rankings.items()}
    values = {mode: _values(questions, ranked, k) for mode, ranked in unique.items()}
    rows = tuple(_row(question, unique, values) for question in questions)
    return QualityReport(
        tenant=tenant,
        use_case=use_case,
        index=index,
        index_version=index_version,
        run_id=run_id,
        ledger_version=ledger_version,
        question_source=question_source,
        documents_sampled=documents_sampled,
        num_questions=len(questions),
        modes=tuple(_mode_scores(mode, rows, ranked) for mode, ranked in unique.items()),
        questions=rows,
    )


def _row(
    question: Question, ranked: Mapping[str, Mapping[str, list[str]]], values: Mapping[str, dict[str, dict[str, float]]]
) -> QuestionRow:
    return QuestionRow(
        id=question.id,
        text=question.text,
        made_from=question.made_from,
        relevant=tuple(sorted(question.relevant)),
        found={mode: tuple(by_id.get(question.id, ())[:SHOWN]) for mode, by_id in ranked.items()},
        values={mode: by_question[question.id] for mode, by_question in values.items()},
    )


def judge(
    report: QualityReport,
    thresholds: Mapping[str, float],
    *,
    mode: str = "hybrid",
    min_questions: int = MIN_QUESTIONS,
    before: QualityReport | None = None,
    max_drop: float = 0.0,
    compared: Sequence[str] = ("recall_at_5", "mrr"),
) -> Decision:
    """Refuse where a whole interval lies below its threshold; pass in doubt where only the mean does.

    With `before`, the measures `compared` are set against its own on the questions that both reports hold: refused
    where the whole interval of the paired difference lies beyond `max_drop`. Fewer than `min_questions` are not judged.
    UserError for a threshold of a measure that is not there or not within 0 to 1.
    """
    scores = report.of(mode).scores
    for name, threshold in thresholds.items():
        if report.num_questions and name not in scores:
            raise UserError(f"threshold {name!r} is of no measure; measures: {', '.join(scores)}")
        if not 0 <= threshold <= 1:
            raise UserError(f"threshold {name}={threshold} is not within 0 to 1")
    if report.num_questions < min_questions or not (thresholds or before):
        why = f"{report.num_questions} questions are too few to judge by; at least {min_questions} are needed"
        reasons = (why if thresholds or before else "no threshold is set",)
        return Decision(verdict="not_judged", mode=mode, thresholds=dict(thresholds), reasons=reasons)
    findings = [_against(name, scores[name], threshold) for name, threshold in thresholds.items()]
    if before is not None:
        findings += [_dropped(name, report, before, mode, max_drop, min_questions) for name in compared]
    missed = {name for name, verdict, _ in findings if verdict != "passed"}
    verdicts = {verdict for _, verdict, _ in findings}
    verdict = next(one for one in _WORST_FIRST if one in verdicts)
    return Decision(
        verdict=verdict,
        mode=mode,
        thresholds=dict(thresholds),
        reasons=tuple(reason for _, _, reason in findings),
        deciding=_worst(report, mode, missed),
    )


_WORST_FIRST: tuple[Verdict, ...] = ("refused", "passed_in_doubt", "passed")
_Finding = tuple[str, Verdict, str]


def _against(name: str, score: Score, threshold: float) -> _Finding:
    shown = f"{name} {score.mean:.3f} (95 % interval {score.low:.3f} to {score.high:.3f})"
    if score.high < threshold:
        return name, "refused", f"{shown} lies below {threshold:g} entirely"
    if score.mean < threshold:
        return name, "passed_in_doubt", f"{shown} is below {threshold:g}, but its interval reaches it"
    return name, "passed", f"{shown} reaches {threshold:g}"


def _dropped(
    name: str, report: QualityReport, before: QualityReport, mode: str, max_drop: float, min_questions: int
) -> _Finding:
    earlier = {row.id: row.values[mode][name] for row in before.questions if name in row.values.get(mode, {})}
    later = {row.id: row.values[mode][name] for row in report.questions if row.id in earlier}
    than = f"the live version {before.index_version}"
    if len(later) < min_questions:
        return name, "passed", f"{name} is not compared with {than}: {len(later)} questions in common"
    pairs = [(value, earlier[key]) for key, value in later.items()]
    change = _rounded(statistics.paired_difference([new for new, _ in pairs], [old for _, old in pairs]))
    shown = f"{name} changed by {change.mean:+.3f} ({change.low:+.3f} to {change.high:+.3f}) from {than}"
    if change.high < -max_drop:
        return name, "refused", f"{shown}: more than the allowed drop of {max_drop:g}, entirely"
    if change.mean < -max_drop:
        return name, "passed_in_doubt", f"{shown}: more than the allowed drop of {max_drop:g}, but not surely"
    return name, "passed", f"{shown}: within the allowed drop of {max_drop:g}"


def _worst(report: QualityReport, mode: str, missed: set[str]) -> tuple[str, ...]:
    cost = {row.id: sum(1 - row.values[mode][name] for name in missed) for row in report.questions}
    return tuple(sorted((key for key in cost if cost[key] > 0), key=lambda key: (-cost[key], key))[:SHOWN])


def _values(questions: Sequence[Question], ranked: Mapping[str, list[str]], k: int) -> dict[str, dict[str, float]]:
    """Question id -> measure -> value; 0 for what was not found."""
    import ir_measures
    from ir_measures import RR, P, R, nDCG

    names = {R @ k: f"recall_at_{k}", P @ k: f"precision_at_{k}", RR: "mrr", nDCG @ 10: "ndcg_at_10"}
    values = {question.id: dict.fromkeys(names.values(), 0.0) for question in questions}
    relevant = {question.id: dict.fromkeys(question.relevant, 1) for question in questions}
    # Falling scores: the scorer sorts by score, and what it does with equal ones is its own.
    run = {key: {one: float(-rank) for rank, one in enumerate(ranked[key])} for key in values if ranked.get(key)}
    if run:
        for metric in ir_measures.iter_calc(list(names), relevant, run):
            values[metric.query_id][names[metric.measure]] = round(float(metric.value), _EXACT)
    return values


def _mode_scores(mode: str, rows: Sequence[QuestionRow], ranked: Mapping[str, list[str]]) -> ModeScores:
    names = list(rows[0].values[mode]) if rows else []
    return ModeScores(
        mode=mode,
        asked=sum(row.id in ranked for row in rows),
        answered=sum(bool(ranked.get(row.id)) for row in rows),
        scores={name: _rounded(statistics.mean_interval([row.values[mode][name] for row in rows])) for name in names},
    )


def _rounded(interval: statistics.Interval) -> Score:
    return Score(mean=round(interval.mean, _EXACT), low=round(interval.low, _EXACT), high=round(interval.high, _EXACT))
