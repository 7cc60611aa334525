"""The steps of a pre-training run as its DAG's tasks do them: what one hands on goes through JSON, as an XCom does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from include.training import pipeline

XCOM_BYTES = 4096


def handed_on(value: Any) -> Any:
    """A step's result as the next one gets it; AssertionError if it is no small plain value."""
    text = json.dumps(value, allow_nan=False)
    assert len(text) < XCOM_BYTES
    return json.loads(text)


class Steps:
    """One run, its Params resolved."""

    def __init__(self, run_id: str = "run-1", **params: Any) -> None:
        self.config: dict[str, Any] = handed_on(pipeline.prepare(params, run_id))
        self.listed: dict[str, Any] = {}
        self.packed: dict[str, Any] = {}

    def plan(self, answer: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """List, plan and settle; the decision."""
        self.listed = handed_on(pipeline.list_documents(self.config))
        found = handed_on(pipeline.plan(self.config, self.listed))
        decision: dict[str, Any] = handed_on(pipeline.settle(self.config, found, answer))
        return decision

    def curate(self) -> dict[str, Any]:
        """Curate all shards, the last one first, and deduplicate; the counts."""
        for shard in reversed(self.listed["shards"]):
            handed_on(pipeline.curate(self.config, self.listed, shard))
        counts: dict[str, Any] = handed_on(pipeline.deduplicate(self.config, self.listed))
        return counts

    def pack(self) -> None:
        """Train the tokenizer and pack all shards."""
        handed_on(pipeline.make_tokenizer(self.config, self.listed))
        for shard in reversed(self.listed["shards"]):
            handed_on(pipeline.pack(self.listed, shard))

    def finish(self) -> dict[str, Any]:
        """The packed corpus."""
        self.packed = handed_on(pipeline.finish(self.config, self.listed))
        return self.packed

    def order(self) -> dict[str, dict[str, Any]]:
        """The jobs' specs, each of which is an XCom of its own."""
        return {name: handed_on(spec) for name, spec in pipeline.order(self.config, self.packed).items()}

    def run(self) -> dict[str, dict[str, Any]]:
        """All steps before training; the jobs' specs."""
        self.plan()
        self.curate()
        self.pack()
        self.finish()
        return self.order()
