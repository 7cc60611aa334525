"""The page says the verdict first, escapes what documents hold, loads nothing, and is the same every time."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from include.rag.golden import RULE
from include.rag.quality import QualityReport
from include.rag.quality_report import page, summary
from include.rag.report.plots import scores_plot
from tests.rag.report_records import NAMES, answered, judged, letter, manifest, questions, report, stage

EVIL = "<script>alert(1)</script>{{ 7*7 }}<img src=https://evil.example/x onerror=y>\" ' & \ud800"


def shown(made: QualityReport, **more: Any) -> str:
    given = {"names": NAMES, "manifest": manifest(), "letters": [], "stages": [stage("plan")], "before": None, **more}
    return page(made, **given)


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
    ("hits", "misses", "verdict", "head"),
    [
        (30, 0, "Passed", "PASSED (30 questions)"),
        (23, 7, "Passed, in doubt", "PASSED, IN DOUBT (30 questions)"),
        (5, 25, "Refused", "REFUSED (30 questions)"),
        (1, 0, "Not judged", "NOT JUDGED (1 question)"),
        (0, 0, "Not judged", "NOT JUDGED (0 questions)"),
    ],
)
def test_the_verdict_comes_first_on_the_page_and_in_the_terminal(
    hits: int, misses: int, verdict: str, head: str
) -> None:
    made = report(hits, misses)
    text = shown(made)
    assert re.findall(r"<strong>(.*?)</strong>", text) == [verdict]
    assert text.index("<strong>") < text.index("<h2>")
    assert ("judged by mode hybrid" in text) == (verdict != "Not judged")
    lines = summary(made).split("\n")
    assert lines[0] == f"Retrieval quality of index docs: {head}"
    assert made.decision is not None
    reasons = [] if verdict == "Passed" else [f"  {reason}" for reason in made.decision.reasons]
    assert lines[1:-3] == reasons
    assert all(reason in text for reason in made.decision.reasons)


def test_a_comparison_with_the_live_version_is_told_in_the_terminal_even_if_it_passed() -> None:
    before = report(30, 0)
    made = judged(report(30, 0, index_version=2), before=before, live=1)
    assert "mrr changed by +0.000" in summary(made)
    assert "changed by" not in summary(judged(report(30, 0), live=1))


def test_a_report_without_a_decision_is_shown_without_one() -> None:
    made = report(30, 0).model_copy(update={"decision": None})
    assert "<strong>" not in shown(made)
    assert summary(made).startswith("Retrieval quality of index docs: MEASURED (30 questions)\n  full text")


def test_the_parts_come_in_this_order() -> None:
    before = report(30, 0)
    text = shown(judged(report(30, 0, index_version=2), before=before, live=1), before=before, letters=[letter()])
    heads = re.findall(r"<h[123]>(.*?)</h[123]>", text)
    assert heads == [
        "Index docs, version v0002",
        "What this run did",
        "Set aside",
        "The index",
        "Retrieval quality of index docs",
        "v0002 against the live v0001",
        "Questions that cost most",
        "Time and cost",
        "Where the questions come from",
    ]
    assert text.count("<svg") == 3


def test_the_table_gives_means_intervals_and_coverage() -> None:
    text = shown(report(23, 7))
    assert re.search(r'>hybrid</td><td data-title="recall@5">0\.767 <small>0\.\d{3} to 0\.\d{3}</small></td>', text)
    assert ">30 of 30</td>" in text
    assert ">0 of 30 <small>(30 not asked)</small></td>" in text


def test_the_worst_questions_show_what_was_expected_and_found() -> None:
    text = shown(report(5, 25))
    row = (
        '<tr><td data-title="Question">how many 5</td><td data-title="Expected">folder/5.md</td>'
        '<td data-title="Found first (hybrid)"><ol><li>gone (not in the index)</li></ol></td></tr>'
    )
    assert row in text
    assert ">how many 4</td>" not in text
    assert "Every question found its document first." in shown(report(30, 0))


def test_of_many_documents_that_answer_a_question_the_first_are_named() -> None:
    asked = [replace(one, relevant=frozenset(NAMES)) for one in questions(1)]
    text = shown(answered({"hybrid": {"q000": ["other"]}}, asked))
    assert "folder/0.md<br>" in text and "and 35 more" in text


def test_text_of_documents_is_escaped_and_nothing_is_loaded() -> None:
    before = report(0, 25, text=EVIL)
    rankings = {mode: {one.id: ["doc0"] for one in questions(25)} for mode in ("full_text", "dense", "hybrid")}
    made = answered(rankings, questions(25, EVIL), run_id=EVIL[:-1], question_source=EVIL, index_version=2)
    names = {key: EVIL + name for key, name in NAMES.items()}
    evil = letter(path=EVIL, reason=EVIL, locator=EVIL)
    made = judged(made, before=before, live=1)
    text = shown(made, names=names, manifest=manifest(source_uri=EVIL, store_uri=EVIL), letters=[evil], before=before)
    elements = Elements(text)
    assert elements.open == []
    assert {"script", "img", "link", "iframe", "object", "image"}.isdisjoint(tag for tag, _ in elements.seen)
    for _, attributes in elements.seen:
        assert not any(name.startswith("on") or name in ("src", "action") for name in attributes)
        for name in ("href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    ids = Counter(attributes["id"] for _, attributes in elements.seen if "id" in attributes)
    assert ids and max(ids.values()) == 1, "two plots share a name that one of them refers to"
    assert "url(http" not in text
    assert "@import" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;{{ 7*7 }}" in text
    assert b"alert(1)" in text.encode(), "half of a surrogate pair has no encoding"
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    assert policy in [attributes.get("content") for _, attributes in elements.seen]


def test_long_text_is_cut_and_long_paths_keep_their_ends() -> None:
    text = shown(report(0, 25, text="y" * 5000), letters=[letter(path="z" * 5000 + "/end.pdf")])
    assert "y" * 200 not in text and "z" * 200 not in text
    assert "...yyy" not in text and "zzz/end.pdf" in text


def test_a_page_of_a_large_run_stays_small() -> None:
    faults = ["malformed", "not_text", "encrypted"]
    letters = [letter(n, path=f"{'folder/' * 60}{n}", fault=faults[n % 3], reason="r" * 900) for n in range(10_000)]
    stages = [stage(f"embed shard-{n:04d}", n, model="hashing-1", requests=1) for n in range(200)]
    before = report(100, 0, text="word " * 300)
    made = judged(report(0, 100, text="word " * 300, index_version=2), before=before, live=1)
    assert len(shown(made, letters=letters, stages=stages, before=before)) < 200_000


def test_the_rule_is_told_or_where_people_s_questions_lie() -> None:
    assert RULE.replace("'", "&#x27;") in shown(report(1, 0))
    text = shown(report(1, 0, question_source="file:///golden.jsonl"))
    assert "from file:///golden.jsonl" in text
    assert "Made by a rule" not in text


def test_the_plot_shows_each_mode_and_measure_and_is_the_same_every_time() -> None:
    made = report(23, 7)
    drawn = scores_plot(made)
    for label in ("recall@5", "precision@5", "MRR", "nDCG@10", "full text", "dense", "hybrid", "threshold"):
        assert label in drawn
    assert "threshold" not in scores_plot(made.model_copy(update={"decision": None}))
    assert drawn == scores_plot(made)
    once = manifest()
    assert shown(made, manifest=once) == shown(made, manifest=once)
