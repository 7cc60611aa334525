"""
# Janitor

Finds what other DAGs left behind and nobody needs any more, and ends it. Today: jobs (locally processes, on AWS
SageMaker jobs) whose task is over or gone.

```
 sweep_jobs
 each active job of ours -> its tags name a task -> the task waits for it: left
                                                 -> it is over, or gone:   stopped
```

A task that is killed, cleared, marked or timed out stops its job by itself. This DAG is for the rest: a task that was
marked while no triggerer looked at its job, a DAG run that was deleted.

**Inputs.** None. **Outputs.** What was stopped and why, in the log and as the task's result. **Cost.** On AWS one call
for each hundred jobs and one for each active job. **Run it.** It runs every ten minutes; at once by
`make dag DAG=janitor`, with `CONF='{"dry_run": true}'` to see only what it would do.
"""

from __future__ import annotations

from airflow.sdk import Param, dag, task

from include.dag_defaults import default_args

PARAMS = {
    "dry_run": Param(False, type="boolean", description="Only tell what would be stopped."),
}


@task
def sweep_jobs(*, params: dict | None = None, ti=None) -> list[str]:
    """Stop the jobs that nobody waits for; their names, with the reason of each."""
    from include.config import load_settings
    from include.jobs.spec import deployment_id
    from include.jobs.sweep import backends, sweep

    def task_state(dag_id: str, run_id: str, task_id: str, map_index: int) -> str | None:
        states = ti.get_task_states(dag_id=dag_id, run_ids=[run_id], task_ids=[task_id], map_index=map_index)
        of_run = states.get(run_id, {})
        return next(iter(of_run.values())) or "cleared" if of_run else None

    settings = load_settings()
    deployment = deployment_id(settings.root)
    found = [sweep(one, deployment, task_state, dry_run=params["dry_run"]) for one in backends(settings)]
    left = [job for of_backend in found for job in of_backend]
    return [f"{job.name}: {job.reason}" for job in left[:20]]


@dag(
    schedule="*/10 * * * *",
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,  # a net that nobody has to hang up
    default_args=default_args(),
    params=PARAMS,
    tags=["operations"],
    doc_md=__doc__,
)
def janitor():
    sweep_jobs()


janitor()
