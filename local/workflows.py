"""The workflows whose results the launcher prints: a new one joins by its entry in WORKFLOWS."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from local.client import Client
from local.results import print_results

_FAILED = re.compile(r"FAILED .*? task \S+, try \S+: (.*?)(; log: \S*)?")
"""The line of include/callbacks.py."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a run came to."""

    succeeded: bool
    seconds: float
    results: Mapping[str, Any] = field(default_factory=dict)
    """What those of the workflow's tasks handed on that succeeded."""
    failures: Mapping[str, str] = field(default_factory=dict)
    """Reason of each task that failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Workflow:
    """How to print what came out of a DAG."""

    tasks: tuple[str, ...]
    """Whose results are printed."""
    show: Callable[[Outcome], None]

    def outcome(self, client: Client, dag_id: str, run_id: str, *, succeeded: bool, seconds: float) -> Outcome:
        """Read from Airflow what is to be printed of a run that has ended."""
        failures: dict[str, str] = {}
        results: dict[str, Any] = {}
        for task in client.task_instances(dag_id, run_id):
            task_id = task["task_id"]
            if task["state"] == "failed" and task_id not in failures:
                failures[task_id] = _reason(client.log_end(task))
            elif task["state"] == "success" and task_id in self.tasks:
                results[task_id] = client.xcom(dag_id, run_id, task_id)
        return Outcome(succeeded=succeeded, seconds=seconds, results=results, failures=failures)


def _reason(log_end: list[str]) -> str:
    """Why a task failed, by the last lines of its log."""
    told = [found[1] for line in log_end if (found := _FAILED.fullmatch(line))]
    return told[-1] if told else "its log, whose end stands above, tells why"


def _show_ingestion(outcome: Outcome) -> None:
    if outcome.succeeded:
        print_results(outcome.results["index.check"]["manifest_uri"])


def _show_pretraining(outcome: Outcome) -> None:
    from local.pretraining_results import print_no_release, print_release  # the demo needs none of it

    released, evaluated = (outcome.results.get(task) for task in ("release.publish", "release.evaluate"))
    if released:  # whatever failed afterwards, it is there
        print_release(released["release_uri"], released["alias"], outcome.seconds, outcome.failures)
    else:
        print_no_release(outcome.failures, evaluated["output_uri"] if evaluated else None)


WORKFLOWS = {
    "rag_ingestion": Workflow(tasks=("index.check",), show=_show_ingestion),
    "pretraining": Workflow(tasks=("release.evaluate", "release.publish"), show=_show_pretraining),
}
"""By DAG, each of which runs with its defaults, in the order in which `make demo-all` runs them."""
