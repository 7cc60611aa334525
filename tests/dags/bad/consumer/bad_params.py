"""Planted: Params that a form cannot be made of, or that the DAG's own defaults break."""

from airflow.sdk import DAG, Param, task

with DAG(
    "bad_params",
    schedule=None,
    params={
        "too_small": Param(0, type="integer", minimum=1, description="How many."),
        "required": Param(type="string", description="Where from."),
        "silent": Param("a", type="string"),
        "untyped": Param("a", description="Anything."),
        "bare": 5,
        "allowed": Param(None, type=["null", "string"], description="Empty: the target's own."),
    },
):

    @task
    def nothing() -> None: ...

    nothing()
