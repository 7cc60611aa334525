"""Model cards: what they tell, and that nothing which others wrote is read as anything but text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from include.contracts import ModelRelease
from include.storage import location, read_json
from include.training.card import Facts, fence, printable, span, write
from include.training.corpus_manifest import read_corpus
from include.training.gate import Thresholds, judge
from include.training.release import release
from tests.training.release_parts import an_order, evaluation, per_document, plant_corpus

HOSTILE = [
    "``` \n# Owned\n<script>alert(1)</script>",
    "`` ` ```` `````` ~~~",
    "</code></pre><img src=x onerror=alert(1)>",
    "[click](javascript:alert(1)) ![x](https://evil.example/x.png)",
    "| a | b |\n| --- | --- |\n| c | d |",
    "\u202eevil\u2066\x1b[31m\x00",
    "{{ var.value.secret }} {% raw %}",
    "    \n\n---\n\n1. x\n> y",
    "a\r\nb\u2028c\x85d\x0be",
]
HEADINGS = ["base, version 1", "How to load it", "Data", "Training", "Results", "Limits", "Where it comes from"]


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """Of a planted release."""
    root = tmp_path_factory.mktemp("card").as_uri()
    steps = [{"name": "filter", "kept": 1500, "dropped": {"short": 7}, "samples": ["a sample"]}]
    plant_corpus(f"{root}/corpus", ("Apache-2.0", "CC-BY-4.0"), steps=steps)
    found = release(root, an_order(root, corpus_uri=f"{root}/corpus"))
    model = tuple(file for file in found.files if file.path.startswith("model/"))
    return Facts(
        release=found.model_copy(update={"files": model}),
        evaluation=evaluation(),
        decision=judge(evaluation(), per_document()["documents"], Thresholds(ngram_margin=0.05)),
        corpus=read_corpus(f"{root}/corpus"),
        report=read_json(location(f"{root}/corpus") / "report.json"),
        flops=5.07e12,
        hardware="1 x ml.p5.4xlarge",
    )


def changed(facts: Facts, **changes: Any) -> Facts:
    values = {name: getattr(facts, name) for name in Facts.__dataclass_fields__}
    return Facts(**{**values, **changes})


def with_release(facts: Facts, **changes: Any) -> Facts:
    return changed(facts, release=ModelRelease(**{**facts.release.model_dump(), **changes}))


def test_a_card_tells_all_that_a_user_has_to_know(facts: Facts) -> None:
    text = write(with_release(facts, cost={"usd": 12.5, "instance_seconds": 7200}))
    for told in (
        "decoder-only (Llama-style), with 2,000,000 weights",
        "![Training curve: loss by step](curve.png)",
        "from_pretrained",
        "CC-BY-4.0",
        "- filter:\n    dropped:\n      short: 7\n    kept: 1,500",
        "| FLOPs | 5.07e+12 |",
        "| machine time, evaluation included | 2.00 h |",
        "| cost | 12.50 USD |",
        "`1 x ml.p5.4xlarge`",
        "| ngram | bits per byte | 1.5000 | 2.0000 | -0.4000 | -0.4000 to -0.4000 |",
        "| zlib | bits per byte | 1.5000 | 2.5000 | -1.0000 | not known |",
        "The gate: passed, by 10 documents.",
        "5% of ngram",
        "50.0% of 40 (95 % interval 35.0% to 65.0%, chance 25.0%)",
        "not aligned",
        "English technical documentation",
        f"{facts.release.files[1].sha256}  model/model.safetensors",
        "code_digest      abc123",
    ):
        assert told in text, told
    assert "a sample" not in text, "samples of what was dropped stay in the report"


def test_the_same_facts_give_the_same_card(facts: Facts) -> None:
    assert write(facts) == write(facts)


def test_an_unknown_price_is_not_told_as_free(facts: Facts) -> None:
    assert "| cost | no price is known |" in write(facts)
    assert "| cost | 0.00 USD |" in write(with_release(facts, cost={"usd": 0.0, "instance_seconds": 30}))
    assert "| 0.5 min |" in write(with_release(facts, cost={"usd": 0.0, "instance_seconds": 30}))


def test_a_base_model_is_named(facts: Facts) -> None:
    assert "pre-trained from scratch" in write(facts)
    assert "made from `base/3`" in write(with_release(facts, base_model="base/3"))


def test_a_card_of_an_encoder_decoder(facts: Facts) -> None:
    found = evaluation("encoder_decoder")
    decision = judge(found, per_document()["documents"], Thresholds())
    text = write(changed(with_release(facts, architecture="encoder_decoder"), evaluation=found, decision=decision))
    assert "AutoModelForSeq2SeqLM" in text and "<extra_id_0>" in text
    assert "| unigram | nats per token |" in text and "bits_per_byte" not in text


def test_what_could_not_be_measured_is_told(facts: Facts) -> None:
    nothing = {"task": "which of four", "items": 0, "accuracy": None, "low": 0.0, "high": 1.0, "chance": 0.25}
    few = judge(evaluation(), per_document()["documents"][:3], Thresholds())
    text = write(changed(facts, evaluation=evaluation(zero_shot=nothing, samples=[]), decision=few))
    assert "Zero-shot, `which of four`: no question could be made." in text
    assert "The gate: not judged, by 3 documents." in text


def test_a_long_report_is_cut_and_says_so(facts: Facts) -> None:
    steps = [{"name": f"step {number}", "kept": number} for number in range(200)]
    text = write(changed(facts, report={"schema_version": 1, "steps": steps, "packing": {"train": 1}}))
    assert "... 321 more lines in the corpus' report.json" in text
    assert "step 39" in text and "step 40" not in text
    assert "x" * 160 + "...\n" in write(changed(facts, report={"x" * 5000: 1}))


# What others wrote


def headings(tokens: list[Any]) -> list[str]:
    return [tokens[place + 1].content for place, one in enumerate(tokens) if one.type == "heading_open"]


def inner(tokens: list[Any]) -> list[Any]:
    return [*tokens, *(child for one in tokens for child in one.children or [])]


def expect_only_our_markup(text: str) -> None:
    """The card read as Markdown with tables and HTML has our headings, our image, and no other markup that acts."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    assert headings(tokens) == HEADINGS
    every = inner(tokens)
    assert not [one for one in every if one.type in ("html_block", "html_inline", "link_open", "blockquote_open")]
    assert [one.attrs["src"] for one in every if one.type == "image"] == ["curve.png"]
    assert sum(one.type == "table_open" for one in tokens) == 4
    assert sum(one.type == "hr" for one in tokens) == 0
    rows = [one for one in tokens if one.type == "tr_open"]
    cells = [one for one in tokens if one.type in ("td_open", "th_open")]
    assert len(cells) == 4 * 3 + 2 * 10 + 6 * 3 + 5 * 3 and len(rows) == 3 + 10 + 3 + 3
    assert not any(ord(one) < 32 and one != "\n" or one in "\u202e\u2066\u2028\x85" for one in text)


def poisoned(facts: Facts, text: str) -> Facts:
    """Facts in which all that others may write is that text."""
    found = evaluation()
    found["samples"] = [{"kind": text, "prompt": text, "continuation": text}]
    found["zero_shot"]["task"] = text
    found["held_out"]["by_source"] = {text: found["held_out"]["by_source"]["docs"]}
    files = []
    for file in facts.corpus.files:
        data = file.model_dump()
        files.append(type(file).model_construct(**{**data, "licences": {text: file.tokens}, "sources": {text: 1}}))
    lineage = {**facts.release.lineage.model_dump(), "run_id": text, "jobs": (text,), "data_uri": text}
    release = facts.release.model_copy(
        update={
            "config": {text: text, "plain": text},
            "licences": (text,),
            "use_case": text,
            "size": text,
            "lineage": type(facts.release.lineage)(**lineage),
        }
    )
    return changed(
        facts,
        evaluation=found,
        release=release,
        corpus=facts.corpus.model_copy(update={"files": tuple(files)}),
        report={text: {text: [text, {"name": text, text: 1}]}},
        hardware=text,
    )


def test_our_own_card_is_as_it_should_be(facts: Facts) -> None:
    expect_only_our_markup(write(facts))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(facts: Facts, text: str) -> None:
    expect_only_our_markup(write(poisoned(facts, text)))


@given(text=st.text(st.characters(codec=None), max_size=40) | st.text("`~|<>\n#-[]() \\", max_size=40))
@example(text="")
@example(text="`")
@example(text="\\")
@example(text="\\`|\\")
def test_any_text_stays_text(facts: Facts, text: str) -> None:
    expect_only_our_markup(write(poisoned(facts, text)))


@given(st.text("`a\n ", max_size=30))
def test_a_fence_holds_what_is_put_in(text: str) -> None:
    (block,) = MarkdownIt("commonmark").parse(fence(text))
    assert block.type == "fence"
    assert block.content == "".join(f"{line}\n" for line in text.splitlines()) or not text.strip("\n")


@given(st.text(max_size=30))
def test_a_span_is_one_span_in_one_cell(text: str) -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse(f"| a | b |\n| --- | --- |\n| {span(text)} | x |\n")
    cells = [tokens[place + 1] for place, one in enumerate(tokens) if one.type == "td_open"]
    assert [child.type for child in cells[0].children or []] == ["code_inline"]
    assert cells[1].content == "x"


def test_what_cannot_be_printed_is_shown_by_its_number() -> None:
    assert printable("a\u202eb\x00\U000e0041") == "a\\u202eb\\u0000\\ue0041"
    assert printable("Zürich \u2603 \U0001f600") == "Zürich \u2603 \U0001f600"
