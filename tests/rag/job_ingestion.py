"""An ingestion whose shards a processing job embeds; it is started and waited for as the DAG's operator does."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from include.config import load_settings
from include.jobs.base import Backend, default_backend, open_backend
from include.jobs.ensure import ensure, named_spec, result
from include.jobs.output import JobOutput
from include.jobs.spec import Named, read_spec
from include.jobs.states import Status
from include.rag import pipeline
from tests.rag.ingestion import Ingestion

DEADLINE_S = 180.0
KIND = "processing"


@dataclass
class JobIngestion(Ingestion):
    """As Ingestion, with the Params of a job; a run embeds by a job on the settings' backend."""

    job: str = ""
    """The name of the last job."""

    def prepare(self, run_id: str) -> dict[str, Any]:
        self.params.setdefault("embed_on", "job")
        return super().prepare(run_id)

    def embed(self, config: dict[str, Any], shards: list[str]) -> list[dict[str, Any]]:
        assert shards == [], "no mapped task embeds where a job does"
        named = self.named(config)
        if named is None:
            return []
        self.start(named)
        self.end()
        return [self.result(named).metrics]

    @property
    def backend(self) -> Backend:
        settings = load_settings()
        return open_backend(default_backend(settings), settings)

    def named(self, config: dict[str, Any]) -> Named | None:
        """What is handed over to a job; None if nothing is."""
        spec = pipeline.hand_over(config, self.params, dag_id="test", task_id="embed.job")
        if spec is None:
            return None
        return named_spec(read_spec({**spec, "dag_id": "test", "run_id": config["run_id"], "task_id": "embed.job"}))

    def start(self, named: Named) -> str:
        """The name of the job that is started or attached to; empty if its output is there."""
        self.job = ensure(self.backend, named, root=self.root, owner="me").name
        return self.job

    def status(self) -> Status:
        status = self.backend.describe(KIND, self.job)
        assert status is not None
        return status

    def end(self) -> Status:
        """The job's status once it is over."""
        limit = time.monotonic() + DEADLINE_S
        while not (status := self.status()).is_over:
            assert time.monotonic() < limit, f"{self.job} is not over: {self.log()}"
            time.sleep(0.1)
        return status

    def result(self, named: Named) -> JobOutput:
        """Its output; its error with its log if it failed."""
        assert self.status().state == "succeeded", f"{self.status()}\n{self.log()}"
        return result(self.backend, named, self.job, self.status(), root=self.root)

    def log(self) -> str:
        """All lines of the job's log."""
        lines: list[str] = []
        place = None
        while (found := self.backend.log(KIND, self.job, place))[0]:
            lines += found[0]
            place = found[1]
        return "\n".join(lines)
