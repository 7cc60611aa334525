"""What a platform team may rely on in every DAG: docs, owner, persona, retries, alarms, typed Params."""

from __future__ import annotations

import re
from pathlib import Path

from airflow.sdk import DAG
from airflow.sdk.bases.operator import DEFAULT_RETRY_DELAY
from airflow.sdk.definitions.param import Param
from airflow.sdk.exceptions import ParamValidationError

from guards.load import UNSET_RUNS, load_dags

PERSONA_OF_FOLDER = {
    "consumer": "consumer",
    "fine_tuner": "fine-tuner",
    "provider": "provider",
    "operations": "operations",
}
FEWEST_LINES_OF_DOCS = 5
ARROW = re.compile(r"->|>>")


def one_dag(file: Path) -> list[str]:
    """One DAG in each file, named as the file, in the folder of its persona."""
    ids = [dag.dag_id for dag in load_dags(file)]
    if ids != [file.stem]:
        return [f"holds the DAGs {ids}; must hold exactly one, with dag_id {file.stem!r}"]
    return []


def documented(dag: DAG) -> list[str]:
    lines = [line for line in (dag.doc_md or "").splitlines() if line.strip()]
    found = []
    if len(lines) < FEWEST_LINES_OF_DOCS:
        found.append(f"doc_md has {len(lines)} lines of text; needs {FEWEST_LINES_OF_DOCS} (doc_md=__doc__)")
    if not any(ARROW.search(line) for line in lines):
        found.append("doc_md shows no graph of the tasks (a line with -> between them)")
    return found


def tagged(dag: DAG, folder: str) -> list[str]:
    """Exactly one persona's tag, that of the folder."""
    persona = PERSONA_OF_FOLDER.get(folder)
    if persona is None:
        return [f"lies in {folder}/; allowed: {', '.join(sorted(PERSONA_OF_FOLDER))}"]
    tags = sorted(set(dag.tags) & set(PERSONA_OF_FOLDER.values()))
    return [] if tags == [persona] else [f"has the persona tags {tags}; in {folder}/ must have [{persona!r}]"]


def runs_are_bounded(dag: DAG) -> list[str]:
    found = []
    if dag.catchup:
        found.append("catchup is on")
    if dag.max_active_runs == UNSET_RUNS:
        found.append("max_active_runs is not set")
    return found


def tasks_are_looked_after(dag: DAG) -> list[str]:
    """Owner, retries, what to retry, and who hears of a failure, on every task."""
    found = []
    for task in dag.tasks:
        if task.owner in ("airflow", ""):
            found.append(f"task {task.task_id} has no owner")
        if (task.retries or 0) < 1:
            found.append(f"task {task.task_id} has retries={task.retries}; needs 1 or more")
        if task.retry_policy is None and task.retry_delay == DEFAULT_RETRY_DELAY:
            found.append(f"task {task.task_id} has neither retry_policy nor retry_delay")
        if not task.on_failure_callback:
            found.append(f"task {task.task_id} has no on_failure_callback")
    return found


def params_are_typed(dag: DAG) -> list[str]:
    """Every Param has a description, a type and a default that its own schema allows."""
    return [f"Param {name} {wrong}" for name, param in dag.params.items() for wrong in _param(param)]


def _param(param: Param) -> list[str]:
    found = []
    if not (param.description or param.schema.get("description_md")):
        found.append("has no description")
    if not {"type", "enum", "const"} & param.schema.keys():
        found.append("has no type")
    try:
        param.resolve()
    except ParamValidationError as error:
        reason = str(error).splitlines()[0]
        found.append(f"cannot run with its default: {reason}")
    return found
