"""A version against the live one: the gate's own differences, and the questions that changed, side by side."""

from __future__ import annotations

import re

import pytest

from include.rag.quality import QualityReport
from include.rag.report.comparison import changes, comparison_section, differences, pairs
from include.rag.report.plots import forest_plot
from tests.rag.report_records import NAMES, answered, judged, questions

MODES = ("full_text", "dense", "hybrid")


def found(ranks: list[int], version: int, first: int = 0) -> QualityReport:
    """Question n's document stands at the rank given for it, 0 for nowhere."""
    asked = questions(first + len(ranks))[first:]
    rankings = {}
    for one, rank in zip(asked, ranks, strict=True):
        (doc,) = one.relevant
        others = [f"other{n}" for n in range(9)]
        rankings[one.id] = [*others[: rank - 1], doc] if rank else others
    return answered(dict.fromkeys(MODES, rankings), asked, index_version=version)


def section(after: QualityReport, before: QualityReport, max_drop: float | None = 0.02) -> str:
    return comparison_section(after, before, NAMES, "hybrid", max_drop)


def test_the_difference_is_the_one_that_the_gate_judged_by() -> None:
    before, after = found([1] * 30, 1), found([1] * 10 + [4] * 10 + [0] * 10, 2)
    decision = judged(after, before=before, live=1).decision
    assert decision is not None and decision.verdict == "refused"
    change = differences(pairs(after, before))["hybrid"]["mrr"]
    assert any(
        f"mrr changed by {change.mean:+.3f} ({change.low:+.3f} to {change.high:+.3f})" in r for r in decision.reasons
    )
    text = section(after, before)
    assert f"{change.mean:+.3f} <small>{change.low:+.3f} to {change.high:+.3f}</small>" in text
    row = re.search(r">recall@5</td>(.*?)</tr>", text)
    assert row is not None
    assert re.findall(r">([+-]?\d\.\d{3})", row[1])[:3] == ["1.000", "0.667", "-0.333"]


def test_questions_are_worse_better_or_alike_and_the_greatest_change_comes_first() -> None:
    before, after = found([1, 2, 1, 0, 3, 1], 1), found([1, 1, 0, 1, 3, 2], 2)
    changed = changes(pairs(after, before), "hybrid")
    assert [after.id for after, _ in changed.worse] == ["q002", "q005"]
    assert [after.id for after, _ in changed.better] == ["q003", "q001"]
    assert changed.same == 2


def test_both_answers_stand_side_by_side() -> None:
    before, after = found([1] * 25, 1), found([0, *[1] * 24], 2)
    text = section(after, before)
    assert "Of 25 questions, 1 found worse by v0002, 0 found better, 24 alike, by recall@5 and MRR (hybrid)." in text
    assert "<h4>Found worse</h4>" in text and "Found better" not in text
    assert (
        '<td data-title="Question">how many 0<br><small>in folder/0.md</small></td>'
        '<td data-title="v0001, live"><ol><li class="hit">folder/0.md</li></ol></td>'
        '<td data-title="v0002"><ol><li>other0 (not in the index)</li><li>other1 (not in the index)</li>'
    ) in text


def test_of_many_that_changed_the_first_are_shown() -> None:
    text = section(found([1] * 30, 2), found([0] * 30, 1))
    assert "<h4>Found better, the first 10 of 30</h4>" in text
    assert text.count("how many") == 10


@pytest.mark.parametrize(("common", "plotted"), [(19, False), (20, True)])
def test_as_few_questions_as_the_gate_does_not_compare_are_not_plotted(common: int, plotted: bool) -> None:
    before, after = found([1] * 40, 1), found([2] * 40, 2, first=40 - common)
    text = section(after, before)
    assert ("<svg" in text) == plotted
    assert (f"{common} questions in common: too few to compare by." in text) == (not plotted)
    assert f"Of {common} questions, {common} found worse" in text


def test_versions_without_a_common_question_are_not_compared() -> None:
    before, after = found([1] * 30, 1), found([1] * 30, 2, first=30)
    assert differences(pairs(after, before)) == {}
    assert "0 questions in common: too few" in section(after, before)


def test_a_mode_that_only_one_version_was_asked_in_is_left_out() -> None:
    before = answered({"hybrid": {}}, questions(25))
    after = found([1] * 25, 2)
    assert list(differences(pairs(after, before))) == ["hybrid"]
    assert "dense" not in section(after, before)


def test_the_plot_shows_zero_and_the_drop_that_is_allowed_where_it_is_judged() -> None:
    before, after = found([1] * 30, 1), found([1] * 15 + [3] * 15, 2)
    made = differences(pairs(after, before))
    drawn = forest_plot(made, {"recall_at_5": 0.02, "mrr": 0.02})
    for label in ("recall@5", "precision@5", "MRR", "nDCG@10", "full text", "hybrid", "allowed drop", "right of 0"):
        assert label in drawn
    assert "allowed drop" not in forest_plot(made, {})
    assert "allowed drop" not in section(after, before, max_drop=None)
    dashed = drawn.count("stroke-dasharray: 5.55"), forest_plot(made, {"mrr": 0.02}).count("stroke-dasharray: 5.55")
    assert dashed == (3, 2), "one for each judged measure, one in the legend"
