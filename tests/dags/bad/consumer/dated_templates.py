"""Planted: one template in each place that Airflow renders, each wrong in a way of its own."""

from __future__ import annotations

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import dag, task


@dag(schedule=None)
def dated_templates():
    @task
    def plain(day: str) -> list[str]:
        return [day]

    @task(map_index_template="{{ ts_nodash }}")
    def named(part: str, key: dict[str, list[str]]) -> str:
        return part + str(key)

    days = plain("{{ ds }}")
    named.partial(key={"nested": ["{{ logical_date }}"]}).expand(part=days)
    BashOperator(task_id="misspelt", bash_command="echo {{ parms.limit }}")
    BashOperator(task_id="settings", bash_command="echo {{ var.value.bucket }}")
    BashOperator(task_id="broken", bash_command="echo {{ run_id }")
    commands = ["echo {{ run_id }}", "echo {{ data_interval_start }}"]
    BashOperator.partial(task_id="literals").expand(bash_command=commands)
    unknown = days.map(lambda day: {"bash_command": day})
    BashOperator.partial(task_id="kwargs", cwd="/{{ ds_nodash }}").expand_kwargs(unknown)


dated_templates()
