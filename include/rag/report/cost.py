"""What a run took: seconds, requests, tokens and dollars of each stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any

from pydantic import BaseModel, ConfigDict

from include.models.prices import Price, load_prices
from include.rag.report.plots import stages_plot
from include.rag.report.text import table, usd

_HEAD = ("Stage", "Tasks", "Seconds", "By the clock", "Requests", "Tokens", "Cost")


class _Record(BaseModel):
    """What include.rag.stages writes for one task."""

    model_config = ConfigDict(frozen=True)

    stage: str
    started_at: datetime
    seconds: float
    requests: int = 0
    tokens: int = 0
    model: str | None = None

    def price(self) -> Price | None:
        return load_prices().price_of(self.model, self.started_at.date()) if self.model else None


@dataclass(frozen=True, kw_only=True, slots=True)
class StageSum:
    """A stage over all of its tasks."""

    name: str
    tasks: int
    seconds: float
    """Of all tasks together, which may run side by side."""
    elapsed: float
    """Seconds from the first start to the last end."""
    requests: int
    tokens: int
    usd: float
    """Of the tokens whose price is known."""
    unpriced: tuple[str, ...]
    """Models that no price is known for."""


def sum_up(records: Iterable[Mapping[str, Any]]) -> list[StageSum]:
    """The stages in the order in which they started; shards of one, `embed shard-0001` and so on, are one stage."""
    by_stage: dict[str, list[_Record]] = {}
    for task in _tasks(records):
        by_stage.setdefault(task.stage.split(" ")[0], []).append(task)
    return [_sum(name, found) for name, found in by_stage.items()]


def _tasks(records: Iterable[Mapping[str, Any]]) -> list[_Record]:
    return sorted((_Record.model_validate(record) for record in records), key=lambda task: task.started_at)


def _sum(name: str, tasks: Sequence[_Record]) -> StageSum:
    priced = [(task, task.price()) for task in tasks]
    return StageSum(
        name=name,
        tasks=len(tasks),
        seconds=sum(task.seconds for task in tasks),
        elapsed=max(task.started_at.timestamp() + task.seconds for task in tasks) - tasks[0].started_at.timestamp(),
        requests=sum(task.requests for task in tasks),
        tokens=sum(task.tokens for task in tasks),
        usd=sum(price.usd(task.tokens) for task, price in priced if price),
        unpriced=tuple(sorted({task.model or "unnamed" for task, price in priced if task.requests and price is None})),
    )


def cost_section(records: Sequence[Mapping[str, Any]]) -> str:
    """The table, the plot, and where the prices are from."""
    stages = sum_up(records)
    if not stages:
        return "<p>No stage was timed.</p>"
    rows = [_row(stage) for stage in stages]
    if len(stages) > 1:
        rows.append(_row(_sum("all", _tasks(records))))
    about = (
        "Of each task its last attempt. Seconds are summed over the tasks of a stage, which may run side by side; by "
        "the clock is from the first start to the last end."
    )
    parts = [
        table(_HEAD, rows, "figures"),
        f"<figure>{stages_plot({one.name: (one.seconds, one.elapsed) for one in stages})}</figure>",
        f"<p><small>{about} {escape(_prices(records))}</small></p>",
    ]
    return "\n".join(parts)


def _row(stage: StageSum) -> tuple[str, ...]:
    used = (f"{stage.requests:,}", f"{stage.tokens:,}") if stage.requests else ("", "")
    cost = _cost(stage.usd, stage.unpriced) if stage.requests else ""
    return (escape(stage.name), f"{stage.tasks:,}", f"{stage.seconds:,.1f}", f"{stage.elapsed:,.1f}", *used, cost)


def _cost(amount: float, unpriced: Sequence[str]) -> str:
    if not unpriced:
        return usd(amount)
    return f"{usd(amount)} and what has no known price" if amount else "no price is known"


def _prices(records: Iterable[Mapping[str, Any]]) -> str:
    """Each model's price, who says so, and which list that is."""
    said = {}
    for task in _tasks(records):
        if not task.model:
            continue
        if price := task.price():
            rate = f"{usd(price.usd_per_1000_input_tokens)} per 1,000 tokens from {price.valid_from} on"
            said[task.model] = f"{task.model}: {rate} ({price.source})."
        else:
            said[task.model] = f"{task.model}: no price is known; include/catalog/prices.yaml is where to add it."
    listed = " ".join(said[model] for model in sorted(said))
    return f"{listed} Price list {load_prices().version[:12]}." if listed else ""
