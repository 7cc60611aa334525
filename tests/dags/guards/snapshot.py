"""The graph of a DAG as text under version control, so that every change of it shows in review."""

from __future__ import annotations

import difflib
import json
import os
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, TriggerRule
from airflow.serialization.serialized_objects import DagSerialization

SNAPSHOTS = Path(__file__).parents[1] / "snapshots"


def structure(dag: DAG) -> dict[str, Any]:
    """What a change of the DAG's shape can be seen in; nothing that a run or a machine could change."""
    serialized = DagSerialization.serialize_dag(dag)  # fails if the scheduler could not read the DAG
    return {
        "dag_id": dag.dag_id,
        "schedule": serialized["timetable"],
        "tags": sorted(dag.tags),
        "max_active_runs": dag.max_active_runs,
        "params": {name: _param(param) for name, param in dag.params.items()},
        "tasks": {task.task_id: _task(task) for task in dag.tasks},
        "edges": sorted(f"{task.task_id} -> {after}" for task in dag.tasks for after in task.downstream_task_ids),
    }


def _param(param: Any) -> dict[str, Any]:
    return {"default": param.value if param.has_value else None, "schema": param.schema}


def _task(task: Any) -> dict[str, Any]:
    return {
        "type": task.task_type,
        "mapped": task.is_mapped,
        "in_mapped_group": task.get_closest_mapped_task_group() is not None,
        "trigger_rule": TriggerRule(task.trigger_rule).value,
        "retries": task.retries,
        "pool": task.pool,
        "setup": task.is_setup,
        "teardown": task.is_teardown,
        "inlets": sorted(_asset(asset) for asset in task.inlets),
        "outlets": sorted(_asset(asset) for asset in task.outlets),
    }


def _asset(asset: Any) -> str:
    return f"{type(asset).__name__} {getattr(asset, 'uri', None) or asset.name}"


def equals_snapshot(dag: DAG, folder: Path = SNAPSHOTS) -> list[str]:
    """UPDATE_SNAPSHOTS=1 writes the snapshot instead of comparing with it."""
    file = folder / f"{dag.dag_id}.json"
    now = json.dumps(structure(dag), indent=1, sort_keys=True) + "\n"
    if os.environ.get("UPDATE_SNAPSHOTS") == "1":
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(now)
        return []
    advice = "run the test again with UPDATE_SNAPSHOTS=1 and commit the file"
    if not file.exists():
        return [f"has no snapshot {file.name}; {advice}"]
    diff = difflib.unified_diff(file.read_text().splitlines(), now.splitlines(), "snapshot", "DAG", n=2, lineterm="")
    text = "\n".join(diff)
    return [f"the graph is not that of {file.name}; if that is meant, {advice}:\n{text}"] if text else []


def orphans(dag_ids: set[str], folder: Path = SNAPSHOTS) -> list[str]:
    """Snapshots of DAGs that are no more."""
    return [f"{file.name} is the snapshot of no DAG" for file in folder.glob("*.json") if file.stem not in dag_ids]
