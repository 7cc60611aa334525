"""Time and cost: shards are one stage, unknown prices are said to be unknown, each task is priced by its own day."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from include.models import prices
from include.rag.report.cost import cost_section, sum_up
from tests.rag.report_records import stage

TITAN = "amazon.titan-embed-text-v2:0-1024"


def rows(text: str) -> dict[str, list[str]]:
    """Stage -> the other cells of its row."""
    found = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(<td.*?)</tr>", text)]
    return {cells[0]: cells[1:] for cells in found}


def test_shards_are_summed_and_the_clock_runs_from_the_first_start_to_the_last_end() -> None:
    records = [
        stage("commit", 20, 1),
        stage("embed shard-0001", 2, 10, requests=2, tokens=3000, model="hashing-1"),
        stage("embed shard-0000", 1, 4, requests=1, tokens=2000, model="hashing-1"),
        stage("plan", 0, 0.5),
    ]
    assert [one.name for one in sum_up(records)] == ["plan", "embed", "commit"]
    table = rows(cost_section(records))
    assert table == {
        "plan": ["1", "0.5", "0.5", "", "", ""],
        "embed": ["2", "14.0", "11.0", "3", "5,000", "$0"],
        "commit": ["1", "1.0", "1.0", "", "", ""],
        "all": ["4", "15.5", "21.0", "3", "5,000", "$0"],
    }


def test_tokens_are_priced_and_the_source_of_the_price_is_told() -> None:
    text = cost_section([stage("embed a", requests=9, tokens=1_500_000, model=TITAN), stage("evaluate", 5)])
    assert rows(text)["embed"][-1] == rows(text)["all"][-1] == "$0.03"
    assert f"{TITAN}: $0.00002 per 1,000 tokens from 2024-04-30 on (list price of Amazon Bedrock" in text
    assert f"Price list {prices.load_prices().version[:12]}." in text


def test_a_model_without_a_price_is_not_free() -> None:
    unknown = stage("embed a", requests=1, tokens=100, model="openai-<b>x</b>-8")
    text = cost_section([unknown, stage("evaluate", 5, requests=1, tokens=1_000_000, model=TITAN)])
    assert rows(text)["embed"][-1] == "no price is known"
    assert rows(text)["all"][-1] == "$0.02 and what has no known price"
    assert "openai-&lt;b&gt;x&lt;/b&gt;-8: no price is known; include/catalog/prices.yaml" in text
    nameless = cost_section([stage("embed a", requests=1, tokens=100)])
    assert rows(nameless)["embed"][-1] == "no price is known"


@pytest.mark.parametrize(("tokens", "cost"), [(1, "under $0.000001"), (123_456, "$0.002469"), (10**12, "$20,000.00")])
def test_small_and_large_amounts(tokens: int, cost: str) -> None:
    assert rows(cost_section([stage("embed a", requests=1, tokens=tokens, model=TITAN)]))["embed"][-1] == cost


def test_each_task_is_priced_by_the_day_it_ran_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = "  - {{model: m, valid_from: {}, usd_per_1000_input_tokens: {}, source: s}}\n"
    file = tmp_path / "prices.yaml"
    file.write_text("prices:\n" + entry.format("2025-01-01", 1) + entry.format("2025-06-01", 5))
    dated = prices.load_prices(file)
    monkeypatch.setattr("include.rag.report.cost.load_prices", lambda: dated)
    first = stage("embed a", requests=1, tokens=1000, model="m") | {"started_at": "2025-05-31T23:59:59+00:00"}
    (embed,) = sum_up([first, stage("embed b", requests=1, tokens=1000, model="m")])
    assert embed.usd == 6


def test_one_stage_is_its_own_sum_and_none_is_said() -> None:
    assert list(rows(cost_section([stage("plan")]))) == ["plan"]
    assert cost_section([]) == "<p>No stage was timed.</p>"


def test_the_plot_has_a_bar_for_each_stage() -> None:
    text = cost_section([stage(f"embed shard-{n:04d}", n) for n in range(200)] + [stage("commit", 300, 0)])
    assert "200.0 s" in text and ">commit<" in text
    assert text.count("<svg") == 1 and "shard-" not in text
