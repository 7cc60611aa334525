"""A version against the live one on the same questions: differences with intervals, and the questions that changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from include.rag.quality import MIN_QUESTIONS, QualityReport, QuestionRow
from include.rag.report.plots import forest_plot
from include.rag.report.text import measure_name, mode_name, name_of, plural, short, table
from include.rag.versions import version_name
from include.statistics import Interval, paired_difference

JUDGED = ("recall_at_5", "mrr")
"""What the gate compares, and what a question is better or worse by."""
SHOWN_QUESTIONS = 10
"""Of those that became worse, and of those that became better."""
SHOWN_DOCUMENTS = 3
_NO_CHANGE = 1e-9

_Pair = tuple[QuestionRow, QuestionRow]
"""A question as the run's version answered it, and as the live one did."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """The questions whose answer became worse or better, those that changed most first."""

    worse: list[_Pair]
    better: list[_Pair]
    same: int


def pairs(report: QualityReport, before: QualityReport) -> list[_Pair]:
    """The questions that both reports hold."""
    earlier = {row.id: row for row in before.questions}
    return [(row, earlier[row.id]) for row in report.questions if row.id in earlier]


def differences(common: Sequence[_Pair]) -> dict[str, dict[str, Interval]]:
    """Mode -> measure -> mean of the paired differences with its 95 % interval, of what both reports measured."""
    if not common:
        return {}
    after, before = common[0]
    return {
        mode: {
            name: paired_difference(
                [row.values[mode][name] for row, _ in common], [row.values[mode][name] for _, row in common]
            )
            for name in measures
            if name in before.values[mode]
        }
        for mode, measures in after.values.items()
        if mode in before.values
    }


def changes(common: Sequence[_Pair], mode: str) -> Changes:
    """Sort the questions by how much the judged measures of a mode changed, summed."""
    by_change = sorted(((_change(pair, mode), pair) for pair in common), key=lambda one: (one[0], one[1][0].id))
    worse = [pair for change, pair in by_change if change < -_NO_CHANGE]
    better = [pair for change, pair in reversed(by_change) if change > _NO_CHANGE]
    return Changes(worse=worse, better=better, same=len(common) - len(worse) - len(better))


def _change(pair: _Pair, mode: str) -> float:
    after, before = (row.values[mode] for row in pair)
    return sum(after[name] - before[name] for name in JUDGED if name in after and name in before)


def comparison_section(
    report: QualityReport, before: QualityReport, names: Mapping[str, str], mode: str, max_drop: float | None
) -> str:
    """Differences as a table and a plot, then the questions that changed, both answers side by side."""
    common = pairs(report, before)
    this, live = version_name(report.index_version), version_name(before.index_version)
    parts = [f"<h3>{this} against the live {live}</h3>"]
    if len(common) < MIN_QUESTIONS:
        parts.append(f"<p>{plural(len(common), 'question')} in common: too few to compare by.</p>")
    else:
        found = differences(common)
        drops = {} if max_drop is None else dict.fromkeys(JUDGED, max_drop)
        parts.append(_table(common, found[mode], mode, this, live))
        parts.append(f"<figure>{forest_plot(found, drops)}</figure>")
    changed, judged = changes(common, mode), " and ".join(map(measure_name, JUDGED))
    parts.append(
        f"<p>Of {plural(len(common), 'question')}, {len(changed.worse):,} found worse by {this}, "
        f"{len(changed.better):,} found better, {changed.same:,} alike, by {judged} ({mode_name(mode)}).</p>"
    )
    for title, rows in (("Found worse", changed.worse), ("Found better", changed.better)):
        if rows:
            shown = "" if len(rows) <= SHOWN_QUESTIONS else f", the first {SHOWN_QUESTIONS} of {len(rows):,}"
            cells = [_side_by_side(pair, mode, names) for pair in rows[:SHOWN_QUESTIONS]]
            parts.append(f"<h4>{title}{shown}</h4>" + table(("Question", f"{live}, live", this), cells, "stacked even"))
    return "\n".join(parts)


def _table(common: Sequence[_Pair], found: Mapping[str, Interval], mode: str, this: str, live: str) -> str:
    rows = []
    for name, change in found.items():
        after, before = (sum(pair[side].values[mode][name] for pair in common) / len(common) for side in (0, 1))
        interval = f"{change.mean:+.3f} <small>{change.low:+.3f} to {change.high:+.3f}</small>"
        rows.append((measure_name(name), f"{before:.3f}", f"{after:.3f}", interval))
    return table((f"Measure ({mode_name(mode)})", f"{live}, live", this, "Difference"), rows, "figures")


def _side_by_side(pair: _Pair, mode: str, names: Mapping[str, str]) -> tuple[str, str, str]:
    after, before = pair
    wanted = ", ".join(name_of(one, names) for one in after.relevant)
    question = f"{short(after.text)}<br><small>in {wanted}</small>"
    return question, found_first(before, mode, names), found_first(after, mode, names)


def found_first(row: QuestionRow, mode: str, names: Mapping[str, str]) -> str:
    """The first documents of an answer as a list, those that were wanted in bold."""
    marks = {True: ' class="hit"', False: ""}
    found = "".join(
        f"<li{marks[one in row.relevant]}>{name_of(one, names)}</li>" for one in row.found[mode][:SHOWN_DOCUMENTS]
    )
    return f"<ol>{found}</ol>" if found else "nothing"
