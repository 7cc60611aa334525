"""
# Smoke

Shows within a minute whether long jobs can run here: checks what they need, then runs one of 20 seconds. Run it first
after every deployment.

```
 preflight -> job
 role, bucket,  a script that works, tells
 quota, image,  its progress and leaves
 disk, budget   a small output
```

**Inputs.** None. **Outputs.** Preflight's report in the log of `preflight`; of `job` the URI of what the script left,
its figures, and the seconds that are billed. **Cost.** Locally none. On SageMaker one small instance for the time it
takes to start, run and end: a few cents. **Run it.** Trigger it as it is, or `make dag DAG=smoke`. It runs anew each
time; with `force` off, a second run takes the first one's output.
"""

from __future__ import annotations

from airflow.sdk import Param, dag, task

from include.dag_defaults import default_args
from include.jobs.operator import JobOperator

PARAMS = {
    "seconds": Param(20, type="integer", minimum=1, maximum=3600, description="How long the script works."),
    "kind": Param(
        "training",
        enum=["training", "processing"],
        description="On SageMaker the two are different services, with quotas of their own.",
    ),
    "instance_type": Param(
        None,
        type=["null", "string"],
        description="Such as ml.m5.large. Empty: the catalog's default; locally there is one machine.",
    ),
    "spot": Param(False, type="boolean", description="Take spare capacity, which can be taken away; training only."),
    "budget_usd": Param(
        None,
        type=["null", "number"],
        exclusiveMinimum=0,
        description="Refuse to start if the job could cost more, should it run as long as it may. Needs usd_per_hour.",
    ),
    "usd_per_hour": Param(
        None, type=["null", "number"], minimum=0, description="Price of one instance-hour in your region."
    ),
    "force": Param(True, type="boolean", description="Run the job although an earlier one left the same output."),
}


@task
def preflight(*, params: dict | None = None) -> dict:
    """Check what the job needs; fails with a report of what is missing. Hands on the job's spec."""
    from include.jobs.preflight import check_spec

    spec = {
        "name": "smoke",
        "kind": params["kind"],
        "script": "include.jobs.scripts.smoke",
        "hyperparameters": {"seconds": params["seconds"]},
        "resources": {"instance_type": params["instance_type"], "spot": params["spot"]},
        "max_runtime_s": params["seconds"] + 600,
        "force": params["force"],
    }
    check_spec(spec, budget_usd=params["budget_usd"], usd_per_hour=params["usd_per_hour"])
    return spec


@dag(
    schedule=None,
    catchup=False,
    max_active_runs=4,
    default_args=default_args(),
    params=PARAMS,
    tags=["operations"],
    doc_md=__doc__,
)
def smoke():
    JobOperator(task_id="job", spec=preflight(), pool="jobs")


smoke()
