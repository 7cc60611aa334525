"""How well an index finds what it holds: the verdict, scores of each mode, the questions that cost most."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

from include.rag.golden import RULE
from include.rag.quality import Decision, ModeScores, QualityReport, QuestionRow, Verdict
from include.rag.report.comparison import comparison_section, found_first
from include.rag.report.plots import scores_plot
from include.rag.report.text import measure_name, mode_name, name_of, plural, short, short_path, table

SAYS: dict[Verdict, str] = {
    "passed": "Passed",
    "passed_in_doubt": "Passed, in doubt",
    "refused": "Refused",
    "not_judged": "Not judged",
}
_SHOWN_ANSWERS = 5
"""Documents that may answer a question; many copies of one text are that many answers."""


def verdict_box(decision: Decision | None) -> str:
    """What the gate says, and why; nothing if it was not asked."""
    if decision is None:
        return ""
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in decision.reasons)
    mode = (
        "" if decision.verdict == "not_judged" else f" <small>judged by mode {escape(mode_name(decision.mode))}</small>"
    )
    strong = f"<strong>{SAYS[decision.verdict]}</strong>"
    return f'<div class="verdict {decision.verdict}">{strong}{mode}<ul>{reasons}</ul></div>'


def retrieval_section(
    report: QualityReport, before: QualityReport | None, names: Mapping[str, str], max_drop: float | None
) -> str:
    """Scores, the comparison with the live version where there is one, and the questions that cost most."""
    if not report.num_questions or not report.modes:
        return "<p>There was no question to ask.</p>"
    mode = report.decision.mode if report.decision else report.modes[-1].mode
    parts = [_scores(report), f"<figure>{scores_plot(report)}</figure>"]
    if before is not None:
        parts.append(comparison_section(report, before, names, mode, max_drop))
    parts += ["<h3>Questions that cost most</h3>", _worst(report, mode, names)]
    return "\n".join(parts)


def origin(report: QualityReport) -> str:
    """Where the questions come from, as HTML."""
    if report.question_source != "made":
        return f"People's own, from {short_path(report.question_source)}."
    sample = plural(report.documents_sampled, "document")
    return f"Made by a rule, without a language model, from a sample of {sample}. {escape(RULE)}"


def _scores(report: QualityReport) -> str:
    names = list(report.modes[0].scores)
    rows = [_score_row(mode, names, report.num_questions) for mode in report.modes]
    return table(("Mode", *map(measure_name, names), "Answered"), rows, "figures")


def _score_row(mode: ModeScores, names: Iterable[str], num_questions: int) -> tuple[str, ...]:
    scores = (mode.scores[name] for name in names)
    cells = (f"{score.mean:.3f} <small>{score.low:.3f} to {score.high:.3f}</small>" for score in scores)
    unasked = f" <small>({num_questions - mode.asked} not asked)</small>" if mode.asked < num_questions else ""
    return escape(mode_name(mode.mode)), *cells, f"{mode.answered} of {num_questions}{unasked}"


def _worst(report: QualityReport, mode: str, names: Mapping[str, str]) -> str:
    """The questions that decided; where none did, those whose answer came last."""
    by_id = {row.id: row for row in report.questions}
    deciding = [by_id[key] for key in report.decision.deciding] if report.decision else []
    if not deciding:
        missed = [row for row in report.questions if row.values[mode]["mrr"] < 1]
        deciding = sorted(missed, key=lambda row: (row.values[mode]["mrr"], row.id))[:10]
    if not deciding:
        return "<p>Every question found its document first.</p>"
    rows = [_question_row(row, mode, names) for row in deciding]
    return table(("Question", "Expected", f"Found first ({mode_name(mode)})"), rows, "stacked even")


def _question_row(row: QuestionRow, mode: str, names: Mapping[str, str]) -> tuple[str, str, str]:
    expected = [name_of(one, names) for one in row.relevant[:_SHOWN_ANSWERS]]
    if len(row.relevant) > _SHOWN_ANSWERS:
        expected.append(f"and {len(row.relevant) - _SHOWN_ANSWERS} more")
    return short(row.text), "<br>".join(expected), found_first(row, mode, names)
