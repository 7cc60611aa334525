"""The page's plots as SVG elements: the same bytes for the same figures, no outside font, no script."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from include.rag.quality import ModeScores, QualityReport
from include.rag.report.text import measure_name, mode_name
from include.statistics import Interval

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
_MARKERS = ("o", "s", "D", "^")
"""Colours that the colour-blind tell apart (Okabe and Ito, 2008), and shapes for print without any."""
_INK, _GRID = "#1f2328", "#d0d7de"
_WIDTH = 6.6
"""Inches; the letters stay legible where a narrow screen shrinks the plot."""

_Points = Mapping[str, tuple[float, float, float]]
"""Measure -> mean, low and high end of its interval."""


def scores_plot(report: QualityReport) -> str:
    """Each measure's mean and interval for each mode, with the thresholds."""
    thresholds = report.decision.thresholds if report.decision else {}

    def draw(axes: Any) -> None:
        _intervals(axes, {mode.mode: _points(mode) for mode in report.modes})
        _limits(axes, list(report.modes[0].scores), thresholds, "threshold")
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("mean over all questions, with its 95 % bootstrap interval")

    return _svg("scores", draw, rows=len(report.modes[0].scores))


def forest_plot(differences: Mapping[str, Mapping[str, Interval]], drops: Mapping[str, float]) -> str:
    """Mode -> measure -> paired difference, against 0 and, where a measure is judged, the drop that is allowed."""
    measures = list(next(iter(differences.values())))

    def draw(axes: Any) -> None:
        axes.axvline(0, color=_INK, lw=1)
        points = {
            mode: {name: (found.mean, found.low, found.high) for name, found in by_measure.items()}
            for mode, by_measure in differences.items()
        }
        _intervals(axes, points)
        _limits(axes, measures, {name: -drop for name, drop in drops.items()}, "allowed drop")
        axes.margins(x=0.08)
        axes.set_xlabel("difference from the live version, with its 95 % interval; right of 0 is better")

    return _svg("differences", draw, rows=len(measures))


def stages_plot(stages: Mapping[str, tuple[float, float]]) -> str:
    """Seconds of each stage by its name: summed over its tasks, and by the clock."""

    def draw(axes: Any) -> None:
        heights = range(len(stages))
        worked, elapsed = zip(*stages.values(), strict=True)
        axes.barh(heights, worked, height=0.62, color="#a6cbe3", label="summed over tasks")
        axes.barh(heights, elapsed, height=0.3, color=_COLOURS[0], label="by the clock")
        longest = max(*worked, *elapsed, 0.001)
        for height, (seconds, by_clock) in enumerate(stages.values()):
            end = max(seconds, by_clock)
            axes.text(end + longest / 100, height, f"{seconds:,.1f} s", va="center", fontsize=9)
        axes.set_xlim(0, longest * 1.15)
        axes.set_yticks(heights, list(stages))
        axes.set_xlabel("seconds")

    return _svg("stages", draw, rows=len(stages), row_height=0.42)


def _points(scores: ModeScores) -> dict[str, tuple[float, float, float]]:
    return {name: (score.mean, score.low, score.high) for name, score in scores.scores.items()}


def _intervals(axes: Any, points: Mapping[str, _Points]) -> None:
    """One row for each measure, one mark in it for each mode."""
    measures = list(next(iter(points.values())))
    for place, ((mode, by_measure), colour, marker) in enumerate(zip(points.items(), _COLOURS, _MARKERS, strict=False)):
        shift = 0.22 * (place - (len(points) - 1) / 2)
        heights = [row + shift for row in range(len(measures))]
        means = [mean for mean, _, _ in by_measure.values()]
        # Not below 0: a mean that is summed otherwise than the interval may lie a rounding error beside it.
        below = [max(0.0, mean - low) for mean, low, _ in by_measure.values()]
        above = [max(0.0, high - mean) for mean, _, high in by_measure.values()]
        axes.errorbar(means, heights, xerr=[below, above], capsize=3, label=mode_name(mode), color=colour, fmt=marker)
    axes.set_yticks(range(len(measures)), [measure_name(name) for name in measures])


def _limits(axes: Any, measures: Sequence[str], limits: Mapping[str, float], label: str) -> None:
    """A broken line across the rows of the measures that have a limit."""
    style: Any = {"color": _INK, "ls": "--", "lw": 1.5}
    rows = [(row, limits[name]) for row, name in enumerate(measures) if name in limits]
    for number, (row, limit) in enumerate(rows):
        axes.plot([limit] * 2, [row - 0.42, row + 0.42], label=label if number == 0 else None, **style)


def _svg(name: str, draw: Callable[[Any], None], *, rows: int, row_height: float = 0.62) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # The salt makes ids that are the same every time, and another plot's on the same page differ.
    style: Any = {"svg.hashsalt": name, "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10}
    with rc_context(style):
        figure = Figure(figsize=(_WIDTH, row_height * rows + 1.3), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        axes.set_ylim(rows - 0.5, -0.5)
        axes.grid(axis="x", color=_GRID, lw=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(left=False)
        axes.spines[["top", "right", "left"]].set_visible(False)
        figure.legend(loc="outside upper left", ncols=5, frameon=False)
        buffer = io.StringIO()
        # The metadata hold the time of drawing, and addresses.
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = buffer.getvalue()
    svg = re.sub(r"\s+$", "", svg[svg.index("<svg") :], flags=re.MULTILINE)
    # Names of groups, such as figure_1: nothing refers to them, and each plot would have the same.
    return re.sub(r'<g id="[^"]*"(/?)>', r"<g\1>", svg)
