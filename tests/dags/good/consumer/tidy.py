"""A DAG that passes every guard: it uses what the guards look at, and does nothing.

    plan -> work (mapped) -> report -> echo (mapped), lane (mapped group)

In: nothing. Out: a count.
Costs nothing, needs nothing.
Mapped names, a nested template and a Param with a schema are here because each could be refused by mistake.
"""

from __future__ import annotations

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import Asset, Param, dag, get_current_context, task, task_group

from include.dag_defaults import default_args


@dag(
    schedule=[Asset("file:///planted/in")],
    catchup=False,
    max_active_runs=1,
    default_args=default_args(),
    tags=["consumer", "planted"],
    doc_md=__doc__,
    params={"limit": Param(10, type="integer", minimum=1, description="How many items.", section="Work")},
)
def tidy():
    @task
    def plan(limit: str, run: str) -> list[dict[str, str]]:
        return [{"name": f"{run}-{n}"} for n in range(int(limit))]

    @task(map_index_template="{{ item_name }} of {{ task.op_kwargs['part']['name'] }}")
    def work(part: dict[str, str], where: str) -> int:
        get_current_context()["item_name"] = part["name"]
        return len(where)

    @task(outlets=[Asset("file:///planted/out")])
    def report(counts: list[int]) -> int:
        return sum(counts)

    @task_group
    def lane(part: dict[str, str]) -> None:
        work.override(task_id="again")(part=part, where="{{ run_id }}")

    parts = plan("{{ params.limit }}", "{{ run_id }}")
    counts = work.partial(where="{{ run_id }}/{{ ti.xcom_pull(task_ids='plan')[0].name }}").expand(part=parts)
    echo = BashOperator.partial(task_id="echo").expand(bash_command=["echo {{ run_id }}", "echo {{ params.limit }}"])
    report(counts) >> [echo, lane.expand(part=parts)]


tidy()
