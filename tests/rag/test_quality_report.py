"""The page says the verdict first, escapes what documents hold, loads nothing, and is the same every time."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from include.rag.golden import RULE, Question
from include.rag.quality import QualityReport, judge, measure
from include.rag.quality_report import page, plot, summary

EVIL = "<script>alert(1)</script>{{ 7*7 }}<img src=https://evil.example/x onerror=y>\" ' &"
NAMES = {f"doc{number}": f"folder/{number}.md" for number in range(40)}


def report(hits: int, misses: int, *, text: str = "how many", **about: Any) -> QualityReport:
    questions = [
        Question(id=f"q{n:03d}", text=f"{text} {n}", relevant=frozenset({f"doc{n}"})) for n in range(hits + misses)
    ]
    found = {one.id: [f"doc{n}" if n < hits else "gone"] for n, one in enumerate(questions)}
    given = {"tenant": "t", "use_case": "u", "index": "docs", "run_id": "run-1", "ledger_version": 1, **about}
    rankings = {"full_text": {}, "dense": {key: ["x", *ids] for key, ids in found.items()}, "hybrid": found}
    made = measure(questions, rankings, documents_sampled=50, **given)
    return made.model_copy(update={"decision": judge(made, {"recall_at_5": 0.8, "mrr": 0.6})})


class Elements(HTMLParser):
    """Every element with its attributes, and whether each that was opened was closed."""

    VOID = frozenset({"meta", "br", "path", "use"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.mark.parametrize(
    ("hits", "misses", "shown", "head"),
    [
        (30, 0, "Passed", "PASSED (30 questions)"),
        (23, 7, "Passed, in doubt", "PASSED, IN DOUBT (30 questions)"),
        (5, 25, "Refused", "REFUSED (30 questions)"),
        (1, 0, "Not judged", "NOT JUDGED (1 question)"),
        (0, 0, "Not judged", "NOT JUDGED (0 questions)"),
    ],
)
def test_the_verdict_comes_first_on_the_page_and_in_the_terminal(hits: int, misses: int, shown: str, head: str) -> None:
    made = report(hits, misses)
    text = page(made, NAMES)
    assert re.findall(r"<strong>(.*?)</strong>", text) == [shown]
    assert text.index("<strong>") < text.index("<h2>")
    lines = summary(made).split("\n")
    assert lines[0] == f"Retrieval quality of index docs: {head}"
    assert 4 <= len(lines) <= 5
    assert made.decision is not None
    assert all(reason in text for reason in made.decision.reasons)


def test_a_report_without_a_decision_is_shown_without_one() -> None:
    made = report(30, 0).model_copy(update={"decision": None})
    assert "<strong>" not in page(made, NAMES)
    assert summary(made).startswith("Retrieval quality of index docs: MEASURED (30 questions)\n  full text")


def test_the_table_gives_means_intervals_and_coverage() -> None:
    text = page(report(23, 7), NAMES)
    assert '<td>hybrid</td><td class="score">0.767 <small>' in text
    assert "<td>30 of 30</td>" in text
    assert "<td>0 of 30 <small>(30 not asked)</small></td>" in text


def test_the_worst_questions_show_what_was_expected_and_found() -> None:
    text = page(report(5, 25), NAMES)
    row = "<td>how many 5</td><td>folder/5.md</td><td><ol><li>gone (not in the index)</li></ol></td>"
    assert row in text
    assert "<td>how many 4</td>" not in text
    assert "Every question found its document first." in page(report(30, 0), NAMES)


def test_text_of_documents_is_escaped_and_nothing_is_loaded() -> None:
    made = report(0, 25, text=EVIL, index="docs", run_id=EVIL, question_source=EVIL)
    text = page(made, {key: EVIL + name for key, name in NAMES.items()})
    elements = Elements(text)
    assert elements.open == []
    assert {"script", "img", "link", "iframe", "object", "image"}.isdisjoint(tag for tag, _ in elements.seen)
    for _, attributes in elements.seen:
        assert not any(name.startswith("on") or name in ("src", "action") for name in attributes)
        for name in ("href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert "url(http" not in text
    assert "@import" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;{{ 7*7 }}" in text


def test_long_text_is_cut() -> None:
    assert "y" * 200 not in page(report(0, 25, text="y" * 5000), NAMES)


def test_the_rule_is_told_or_where_people_s_questions_lie() -> None:
    assert RULE.replace("'", "&#x27;") in page(report(1, 0), NAMES)
    text = page(report(1, 0, question_source="file:///golden.jsonl"), NAMES)
    assert "from file:///golden.jsonl" in text
    assert "Made by a rule" not in text


def test_the_plot_shows_each_mode_and_measure_and_is_the_same_every_time() -> None:
    made = report(23, 7)
    drawn = plot(made)
    for label in ("recall@5", "precision@5", "MRR", "nDCG@10", "full text", "dense", "hybrid", "threshold"):
        assert label in drawn
    assert "threshold" not in plot(made.model_copy(update={"decision": None}))
    assert drawn == plot(made)
    assert page(made, NAMES) == page(made, NAMES)
