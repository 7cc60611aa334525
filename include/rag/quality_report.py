"""The page and the few lines that say how well an index finds what it holds.

Questions and names of documents come from untrusted files: all text is escaped, and the page may load nothing.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from include.rag.golden import RULE
from include.rag.quality import Decision, ModeScores, QualityReport, QuestionRow, Verdict

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
_MARKERS = ("o", "s", "D", "^")
"""Colours that the colour-blind tell apart (Okabe and Ito, 2008), and shapes for print without any."""
_SAYS: dict[Verdict, str] = {
    "passed": "Passed",
    "passed_in_doubt": "Passed, in doubt",
    "refused": "Refused",
    "not_judged": "Not judged",
}
_MODES = {"full_text": "full text", "dense": "dense", "hybrid": "hybrid"}
_SHOWN_TEXT = 160
"""Characters of a question or of a document's name that are shown."""

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Liberation Sans", Arial, sans-serif; color: #1f2328; background: #fff;
  max-width: 62rem; margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .6rem; }
.about { color: #57606a; margin: 0 0 1.2rem; overflow-wrap: anywhere; }
.verdict { border-left: 6px solid; padding: .7rem 1rem; background: #f6f8fa; }
.verdict strong { font-size: 1.2rem; } .verdict ul { margin: .4rem 0 0; padding-left: 1.2rem; }
.passed { border-color: #0072b2; } .passed_in_doubt, .not_judged { border-color: #e69f00; }
.refused { border-color: #d55e00; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; vertical-align: top;
  padding: .4rem .7rem; border-bottom: 1px solid #d0d7de; overflow-wrap: anywhere; }
th { white-space: nowrap; border-bottom-width: 2px; }
td.score { white-space: nowrap; font-variant-numeric: tabular-nums; }
small { color: #57606a; } ol { margin: 0; padding-left: 1.3rem; } .hit { font-weight: 600; }
.scroll { overflow-x: auto; } .worst { font-size: .9em; } figure { margin: 1.2rem 0; }
svg { max-width: 100%; height: auto; }
"""


def summary(report: QualityReport) -> str:
    """Three to five lines for a terminal: the verdict first, then the scores of each mode."""
    decision = report.decision
    says = _SAYS[decision.verdict].upper() if decision else "MEASURED"
    lines = [f"Retrieval quality of index {report.index}: {says} ({_plural(report.num_questions, 'question')})"]
    if decision and decision.verdict != "passed":
        lines.append("  " + "; ".join(decision.reasons))
    for mode in report.modes:
        scores = "  ".join(f"{_label(name)} {score.mean:.3f}" for name, score in mode.scores.items())
        lines.append(f"  {_MODES.get(mode.mode, mode.mode):<10} {scores or 'nothing was asked'}")
    return "\n".join(lines)


def page(report: QualityReport, names: Mapping[str, str]) -> str:
    """A self-contained HTML page; `names` says what to call a document id, such as its path."""
    about = f"run {report.run_id}, ledger version {report.ledger_version}, tenant {report.tenant}"
    about += f", use case {report.use_case}, {report.created_at:%Y-%m-%d %H:%M} UTC"
    parts = [
        f"<h1>Retrieval quality of index {escape(report.index)}</h1>",
        f'<p class="about">{escape(about)}</p>',
        _verdict(report.decision),
        "<h2>Scores</h2>",
        _scores(report),
        f"<figure>{plot(report)}</figure>" if report.num_questions else "",
        "<h2>Questions that cost most</h2>",
        _worst(report, names),
        "<h2>Where the questions come from</h2>",
        f"<p>{escape(_origin(report))}</p>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Retrieval quality of {escape(report.index)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )


def plot(report: QualityReport) -> str:
    """Each measure's mean and interval for each mode, with the thresholds, as an SVG element; the same every time."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    thresholds = report.decision.thresholds if report.decision else {}
    measures = list(report.modes[0].scores)
    style: Any = {"svg.hashsalt": "quality", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10}
    with rc_context(style):
        figure = Figure(figsize=(9, 0.62 * len(measures) + 1.3), layout="constrained")
        axes = figure.subplots()
        for place, (scores, colour, marker) in enumerate(zip(report.modes, _COLOURS, _MARKERS, strict=False)):
            shift = 0.22 * (place - (len(report.modes) - 1) / 2)
            _draw(axes, scores, [row + shift for row in range(len(measures))], color=colour, fmt=marker)
        for row, name in enumerate(measures):
            if name in thresholds:
                axes.plot([thresholds[name]] * 2, [row - 0.42, row + 0.42], color="#1f2328", ls="--", lw=1.5)
        if thresholds:
            axes.plot([], [], color="#1f2328", ls="--", lw=1.5, label="threshold")
        axes.set(xlim=(-0.02, 1.02), ylim=(len(measures) - 0.5, -0.5))
        axes.set_yticks(range(len(measures)), [_label(name) for name in measures])
        axes.set_xlabel("mean over all questions, with its 95 % bootstrap interval")
        axes.grid(axis="x", color="#d0d7de", lw=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(left=False)
        axes.spines[["top", "right", "left"]].set_visible(False)
        figure.legend(loc="outside upper left", ncols=5, frameon=False)
        buffer = io.StringIO()
        # The metadata hold the time of drawing, and addresses.
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = buffer.getvalue()
    return re.sub(r"\s+$", "", svg[svg.index("<svg") :], flags=re.MULTILINE)


def _draw(axes: Any, mode: ModeScores, heights: list[float], **style: str) -> None:
    """A mode's means, one below the other, with their intervals."""
    means = [score.mean for score in mode.scores.values()]
    below = [score.mean - score.low for score in mode.scores.values()]
    above = [score.high - score.mean for score in mode.scores.values()]
    label = _MODES.get(mode.mode, mode.mode)
    axes.errorbar(means, heights, xerr=[below, above], capsize=3, label=label, **style)


def _verdict(decision: Decision | None) -> str:
    if decision is None:
        return ""
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in decision.reasons)
    judged = f"judged by mode {_MODES.get(decision.mode, decision.mode)}"
    return (
        f'<div class="verdict {decision.verdict}"><strong>{_SAYS[decision.verdict]}</strong> '
        f"<small>{escape(judged)}</small><ul>{reasons}</ul></div>"
    )


def _scores(report: QualityReport) -> str:
    if not report.num_questions:
        return "<p>There was no question to ask.</p>"
    names = list(report.modes[0].scores)
    head = "".join(f"<th>{escape(_label(name))}</th>" for name in names)
    rows = "".join(_score_row(mode, names, report.num_questions) for mode in report.modes)
    return f'<div class="scroll"><table><tr><th>Mode</th>{head}<th>Answered</th></tr>{rows}</table></div>'


def _score_row(mode: ModeScores, names: Iterable[str], num_questions: int) -> str:
    cells = "".join(
        f'<td class="score">{score.mean:.3f} <small>{score.low:.3f} to {score.high:.3f}</small></td>'
        for score in (mode.scores[name] for name in names)
    )
    unasked = f" <small>({num_questions - mode.asked} not asked)</small>" if mode.asked < num_questions else ""
    name = escape(_MODES.get(mode.mode, mode.mode))
    return f"<tr><td>{name}</td>{cells}<td>{mode.answered} of {num_questions}{unasked}</td></tr>"


def _worst(report: QualityReport, names: Mapping[str, str]) -> str:
    """The questions that decided; where none did, those whose answer came last."""
    if not report.modes or not report.questions:
        return "<p>None was asked.</p>"
    mode = report.decision.mode if report.decision else report.modes[-1].mode
    by_id = {row.id: row for row in report.questions}
    deciding = [by_id[key] for key in report.decision.deciding] if report.decision else []
    if not deciding:
        missed = [row for row in report.questions if row.values[mode]["mrr"] < 1]
        deciding = sorted(missed, key=lambda row: (row.values[mode]["mrr"], row.id))[:10]
    if not deciding:
        return "<p>Every question found its document first.</p>"
    rows = "".join(_question_row(row, mode, names) for row in deciding)
    return (
        f'<div class="scroll worst"><table><tr><th>Question</th><th>Expected</th>'
        f"<th>Found first ({escape(_MODES.get(mode, mode))})</th></tr>{rows}</table></div>"
    )


def _question_row(row: QuestionRow, mode: str, names: Mapping[str, str]) -> str:
    expected = "<br>".join(_name(one, names) for one in row.relevant)
    marks = {True: ' class="hit"', False: ""}
    found = "".join(f"<li{marks[one in row.relevant]}>{_name(one, names)}</li>" for one in row.found[mode][:5])
    listed = f"<ol>{found}</ol>" if found else "nothing"
    return f"<tr><td>{_short(row.text)}</td><td>{expected}</td><td>{listed}</td></tr>"


def _origin(report: QualityReport) -> str:
    if report.question_source != "made":
        return f"People's own, from {report.question_source}."
    sample = _plural(report.documents_sampled, "document")
    return f"Made by a rule, without a language model, from a sample of {sample}. {RULE}"


def _name(doc_id: str, names: Mapping[str, str]) -> str:
    return _short(names.get(doc_id, f"{doc_id} (not in the index)"))


def _short(text: str) -> str:
    return escape(text if len(text) <= _SHOWN_TEXT else text[: _SHOWN_TEXT - 3] + "...")


def _label(name: str) -> str:
    known = {"mrr": "MRR", "ndcg_at_10": "nDCG@10"}
    return known.get(name, name.replace("_at_", "@"))


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
