"""Measures against values worked out by hand, and each outcome of the gate with planted rankings."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from include.errors import UserError
from include.rag.golden import Question
from include.rag.quality import MIN_QUESTIONS, SHOWN, QualityReport, judge, measure
from include.storage import read_record, write_record

ABOUT: dict[str, Any] = {
    "tenant": "t",
    "use_case": "u",
    "index": "docs",
    "run_id": "run-1",
    "ledger_version": 3,
    "documents_sampled": 40,
}
THRESHOLDS = {"recall_at_5": 0.8, "mrr": 0.6}


def asked(number: int, *relevant: str) -> Question:
    return Question(id=f"q{number:03d}", text=f"text {number}", relevant=frozenset(relevant or (f"doc{number}",)))


def planted(hits: int, misses: int, mode: str = "hybrid") -> QualityReport:
    """A report in which the first `hits` questions find their document first, and the others something else."""
    questions = [asked(number) for number in range(hits + misses)]
    rankings = {one.id: [f"doc{n}" if n < hits else "wrong", "other"] for n, one in enumerate(questions)}
    return measure(questions, {mode: rankings}, **ABOUT)


def values(ranking: list[str], *relevant: str, k: int = 5) -> dict[str, float]:
    report = measure([asked(0, *relevant)], {"dense": {"q000": ranking}}, k=k, **ABOUT)
    return report.questions[0].values["dense"]


def test_measures_are_those_of_the_formula() -> None:
    found = values(["x", "a", "y", "b", "z", "c"], "a", "b", "c", "d")
    dcg = sum(1 / math.log2(rank + 1) for rank in (2, 4, 6))
    ideal = sum(1 / math.log2(rank + 1) for rank in (1, 2, 3, 4))
    assert found == {
        "recall_at_5": pytest.approx(2 / 4),
        "precision_at_5": pytest.approx(2 / 5),
        "mrr": pytest.approx(1 / 2),
        "ndcg_at_10": pytest.approx(dcg / ideal, abs=1e-8),
    }
    assert values(["x", "a"], "a", k=1)["recall_at_1"] == 0
    assert values(["a", "x"], "a", k=1)["recall_at_1"] == 1


def test_the_order_is_the_ranking_s_and_not_that_of_names() -> None:
    assert values(["z", "a"], "z")["mrr"] == 1
    assert values(["a", "z"], "z")["mrr"] == 0.5
    assert values([f"d{n}" for n in range(99)] + ["z"], "z")["mrr"] == pytest.approx(0.01)


def test_several_passages_of_a_document_count_once_where_the_first_stands() -> None:
    assert values(["x", "x", "x", "a", "a", "y", "b"], "a", "b") == values(["x", "a", "y", "b"], "a", "b")


def test_what_was_not_found_or_not_asked_counts_as_nothing_and_is_counted() -> None:
    questions = [asked(0), asked(1), asked(2), asked(3)]
    rankings = {"q000": ["doc0"], "q001": [], "q002": ["x"]}
    report = measure(questions, {"dense": rankings, "hybrid": {}}, **ABOUT)
    dense, hybrid = report.modes
    assert (dense.asked, dense.answered, hybrid.asked, hybrid.answered) == (3, 2, 0, 0)
    assert dense.scores["mrr"].mean == 0.25
    assert hybrid.scores["mrr"].mean == hybrid.scores["mrr"].high == 0
    assert [row.values["dense"]["mrr"] for row in report.questions] == [1, 0, 0, 0]


rankings = st.lists(st.sampled_from("abcdefgh"), max_size=12)


@settings(deadline=None, max_examples=50)
@given(rankings, st.sets(st.sampled_from("abcdefgh"), min_size=1))
def test_measures_lie_within_0_and_1_and_agree_with_a_plain_count(ranking: list[str], relevant: set[str]) -> None:
    found = values(ranking, *relevant)
    unique = list(dict.fromkeys(ranking))
    assert all(0 <= value <= 1 for value in found.values())
    assert found["recall_at_5"] == pytest.approx(len(relevant & set(unique[:5])) / len(relevant))
    assert found["precision_at_5"] == pytest.approx(len(relevant & set(unique[:5])) / 5)
    first = next((rank for rank, one in enumerate(unique, start=1) if one in relevant), None)
    assert found["mrr"] == pytest.approx(1 / first if first else 0)


def test_a_report_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    report = planted(15, 10)
    report = report.model_copy(update={"decision": judge(report, THRESHOLDS)})
    path = UPath(tmp_path / "quality.json")
    write_record(path, report)
    assert read_record(path, QualityReport) == report


def test_a_good_index_passes() -> None:
    decision = judge(planted(30, 0), THRESHOLDS)
    assert decision.verdict == "passed"
    assert decision.reasons[0] == "recall_at_5 1.000 (95 % interval 1.000 to 1.000) reaches 0.8"
    assert decision.deciding == ()


def test_a_bad_index_is_refused_and_the_questions_that_cost_most_are_named() -> None:
    decision = judge(planted(10, 20), THRESHOLDS)
    assert decision.verdict == "refused"
    assert "lies below 0.8 entirely" in decision.reasons[0]
    assert decision.deciding == tuple(f"q{number:03d}" for number in range(10, 10 + SHOWN))


def test_an_index_whose_interval_holds_the_threshold_passes_in_doubt() -> None:
    report = planted(23, 7)
    decision = judge(report, {"recall_at_5": 0.8, "mrr": 0.5})
    assert decision.verdict == "passed_in_doubt"
    assert "is below 0.8, but its interval reaches it" in decision.reasons[0]
    assert "reaches 0.5" in decision.reasons[1]
    assert len(decision.deciding) == 7
    assert judge(report, {"recall_at_5": 0.95, "mrr": 0.5}).verdict == "refused"


def test_a_mean_on_its_threshold_passes() -> None:
    assert judge(planted(24, 6), {"recall_at_5": 0.8}).verdict == "passed"


@pytest.mark.parametrize(("count", "verdict"), [(0, "not_judged"), (MIN_QUESTIONS - 1, "not_judged"), (20, "refused")])
def test_too_few_questions_are_not_judged_and_it_is_said(count: int, verdict: str) -> None:
    decision = judge(planted(0, count), THRESHOLDS)
    assert decision.verdict == verdict
    if verdict == "not_judged":
        assert decision.reasons == (f"{count} questions are too few to judge by; at least 20 are needed",)


def test_without_a_threshold_nothing_is_judged() -> None:
    assert judge(planted(0, 30), {}).reasons == ("no threshold is set",)


@pytest.mark.parametrize(
    ("thresholds", "mode", "says"),
    [
        (
            {"recall_at_7": 0.5},
            "hybrid",
            "threshold 'recall_at_7' is of no measure; measures: recall_at_5, precision_at_5",
        ),
        ({"mrr": 1.5}, "hybrid", "threshold mrr=1.5 is not within 0 to 1"),
        ({"mrr": float("nan")}, "hybrid", "threshold mrr=nan is not within 0 to 1"),
        ({"mrr": 0.5}, "dense", "mode='dense' was not measured; measured: hybrid"),
    ],
)
def test_a_gate_that_cannot_be_is_a_user_s_error(thresholds: dict[str, float], mode: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        judge(planted(30, 0), thresholds, mode=mode)


@pytest.mark.parametrize(
    ("hits", "verdict", "says"),
    [
        (40, "passed", "within the allowed drop of 0.02"),
        (39, "passed_in_doubt", "more than the allowed drop of 0.02, but not surely"),
        (28, "refused", "more than the allowed drop of 0.02, entirely"),
    ],
)
def test_a_drop_since_the_run_before_is_judged_on_the_same_questions(hits: int, verdict: str, says: str) -> None:
    before, after = planted(40, 0), planted(hits, 40 - hits)
    decision = judge(after, {"mrr": 0.1}, before=before, max_drop=0.02)
    assert decision.verdict == verdict
    assert says in decision.reasons[1]
    assert judge(after, {"mrr": 0.1}).verdict == "passed"
    assert (
        set(decision.deciding) == {f"q{n:03d}" for n in range(hits, 40)}
        if hits > 28
        else len(decision.deciding) == SHOWN
    )


def test_too_few_questions_in_common_are_not_compared() -> None:
    decision = judge(planted(25, 0), {"mrr": 0.1}, before=planted(5, 0), max_drop=0.0)
    assert decision.verdict == "passed"
    assert decision.reasons[2] == "mrr is not compared with the live version 1: 5 questions in common"
    decision = judge(planted(25, 0), {"mrr": 0.1}, before=planted(25, 0, mode="dense"), max_drop=0.0)
    assert "0 questions in common" in decision.reasons[1]
