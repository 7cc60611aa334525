"""Every template of a DAG, rendered as Airflow would: in a run with a logical date and in one that has none.

A run that an asset triggered has no ds, ts or logical_date, so a template that names one fails there.
"""

from __future__ import annotations

import ast
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.sdk import DAG
from airflow.sdk.api.datamodels._generated import DagRun, TIRunContext
from airflow.sdk.definitions._internal.mixins import ResolveMixin
from airflow.sdk.exceptions import ParamValidationError
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from jinja2 import StrictUndefined

from guards.load import load_dag

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

# These ask the database while rendering. Settings come from include/config.py, not from Variables; what the last
# good run did is in its manifest.
LOOKUPS = ("var", "conn", "prev_start_date_success", "prev_end_date_success")


class Pulled(dict[str, Any]):
    """Stands for what another task will have returned: any key and attribute of it exists."""

    def __missing__(self, key: object) -> Pulled:
        return Pulled()

    def __getattr__(self, name: str) -> Pulled:
        if name.startswith("__"):
            raise AttributeError(name)
        return Pulled()


class TaskInstance(RuntimeTaskInstance):
    """Airflow's own, without a supervisor to ask for XComs."""

    def xcom_pull(self, *args: Any, **kwargs: Any) -> Pulled:
        return Pulled()


class Expanded:
    """A task as a template sees it: the values of its fields, at one map index where it is mapped."""

    def __init__(self, task: Any, fields: dict[str, Any]) -> None:
        self.__dict__.update(fields)
        self._task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)


def templates_render(file: Path) -> list[str]:
    """Render every template field and map_index_template of every task of the file's DAG."""
    found: dict[str, None] = {}  # keeps the order; a message for each map index would say the same
    for dated in (False, True):
        when = f"{'with' if dated else 'without'} a logical date"
        dag = load_dag(file)  # afresh, since Airflow renders nested fields in place
        for task in dag.tasks:
            for index, mapped in enumerate(_expansions(task)):
                try:
                    context = _context(dag, task, dated, index)
                except ParamValidationError as error:
                    return [f"no template can be rendered: {str(error).splitlines()[0]}"]
                for field, error in _failures(dag, task, mapped, context, file):
                    why = f"{type(error).__name__}: {error}"
                    found[f"{task.task_id}.{field} does not render {when}: {why}"] = None
    return list(found)


def _failures(
    dag: DAG, task: Any, mapped: Mapping[str, Any], context: Any, file: Path
) -> Iterator[tuple[str, Exception]]:
    """The fields that do not render, each with why."""
    env = task.get_template_env(dag)
    env.undefined = StrictUndefined  # whatever the DAG asks for: a name that is not there is a mistake
    fields = _fields(task, mapped)
    context["task"] = context["ti"].task = Expanded(task, fields)
    for name, value in fields.items():
        try:
            if callable(value):
                value(context=context, jinja_env=env)
            else:
                task.render_template(value, context, env)
        except Exception as error:
            yield name, error
    if task.map_index_template:
        # Airflow renders it again after the task, which may have added names to the context.
        context |= {name: Pulled() for name in _names_that_tasks_set(file)}
        try:
            env.from_string(task.map_index_template).render(context)
        except Exception as error:
            yield "map_index_template", error


def _context(dag: DAG, task: Any, dated: bool, index: int) -> Any:
    """The context that Airflow itself builds, from a run as the API server describes one."""
    date = MOMENT if dated else None
    run = DagRun(
        dag_id=dag.dag_id,
        run_id="scheduled__2026-01-02T03:04:05+00:00" if dated else "asset_triggered__2026-01-02T03:04:05+00:00_abc",
        logical_date=date,
        data_interval_start=date,
        data_interval_end=date,
        run_after=MOMENT,
        start_date=MOMENT,
        end_date=None,
        run_type="scheduled" if dated else "asset_triggered",
        state="running",
        consumed_asset_events=[],
        partition_key=None,
    )
    in_map = task.is_mapped or task.get_closest_mapped_task_group() is not None
    ti = TaskInstance.model_construct(
        id=uuid.UUID(int=0),
        dag_id=dag.dag_id,
        task_id=task.task_id,
        run_id=run.run_id,
        try_number=1,
        map_index=index if in_map else -1,
        dag_version_id=uuid.UUID(int=0),
        task=task,
        start_date=MOMENT,
        _ti_context_from_server=TIRunContext(dag_run=run, max_tries=task.retries or 0),
    )
    context = ti.get_template_context()
    return {name: value for name, value in context.items() if name not in LOOKUPS}


def _expansions(task: Any) -> list[Mapping[str, Any]]:
    """The arguments that mapping adds, one dict for each map index that can be known before a run."""
    if not task.is_mapped:
        return [{}]
    value = task._get_specified_expand_input().value
    if isinstance(value, dict):  # expand(name=[...])
        lists = {name: list(v) for name, v in value.items() if isinstance(v, (list, tuple)) and v}
        count = max((len(v) for v in lists.values()), default=1)
        unknown = dict.fromkeys(value, Pulled())
        return [unknown | {name: v[i % len(v)] for name, v in lists.items()} for i in range(count)]
    if isinstance(value, (list, tuple)):  # expand_kwargs([{...}, ...])
        return [v if isinstance(v, Mapping) else Pulled() for v in value]
    return [Pulled()]  # expand_kwargs(what another task returns)


def _fields(task: Any, mapped: Mapping[str, Any]) -> dict[str, Any]:
    """Template fields that hold something, with stand-ins for what only a run can know."""
    if not task.is_mapped:
        values = {name: getattr(task, name) for name in task.template_fields}
    elif "op_kwargs" in task.partial_kwargs:  # @task functions are mapped over their own arguments
        values = {name: task.partial_kwargs.get(name) for name in task.template_fields}
        values["op_kwargs"] = Pulled({**task.partial_kwargs["op_kwargs"], **mapped})
    else:
        values = {name: mapped.get(name, task.partial_kwargs.get(name)) for name in task.template_fields}
        if isinstance(mapped, Pulled):
            values = {name: Pulled() if value is None else value for name, value in values.items()}
    return {name: _known(value) for name, value in values.items() if value}


def _known(value: Any) -> Any:
    if isinstance(value, ResolveMixin):  # an XCom, a Param or a mapped argument
        return Pulled()
    if isinstance(value, dict):
        return type(value)({key: _known(v) for key, v in value.items()})
    if type(value) in (list, tuple, set):
        return type(value)(_known(v) for v in value)
    return value


def _names_that_tasks_set(file: Path) -> set[str]:
    """Names that the file assigns by key, as `context["document"] = ...` does."""
    return {
        node.slice.value
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Subscript)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.slice, ast.Constant)
        and isinstance(node.slice.value, str)
    }
