"""DAGs that tests of a real Airflow run: a job each, waited for in different ways, and what a triggerer can import."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import BaseOperator, Param, dag, task

from include.dag_defaults import default_args
from include.jobs.operator import JobOperator

AGAIN = {**default_args(), "retry_delay": timedelta(seconds=1), "retry_exponential_backoff": 0}
PARAMS = {"seconds": Param(20, type="integer"), "note": Param("", type="string")}


@task
def spec(*, params: dict[str, Any] | None = None) -> dict[str, Any]:
    assert params is not None
    return {
        "name": "trial",
        "script": "include.jobs.scripts.smoke",
        "hyperparameters": {"seconds": params["seconds"], "note": params["note"]},
        "max_runtime_s": params["seconds"] + 300,
        "force": True,
    }


def job_dag(dag_id: str, run_timeout_s: float | None = None, **arguments: Any) -> Any:
    timeout = timedelta(seconds=run_timeout_s) if run_timeout_s else None

    @dag(dag_id=dag_id, schedule=None, params=PARAMS, default_args=AGAIN, dagrun_timeout=timeout)
    def one_job() -> None:
        JobOperator(task_id="job", spec=spec(), pool="jobs", **arguments)

    return one_job()


deferred = job_dag("deferred")
inline = job_dag("inline", deferrable=False)
run_timeout = job_dag("run_timeout", run_timeout_s=12)
timeout_inline = job_dag("timeout_inline", deferrable=False, execution_timeout=timedelta(seconds=6))


@dag(schedule=None, default_args=AGAIN)
def probe() -> None:
    class Probe(BaseOperator):
        """What a triggerer can import."""

        def execute(self, context: Any) -> None:
            from fmops_plugins.probe import ProbeTrigger  # the test puts it there

            self.defer(trigger=ProbeTrigger(), method_name="tell")

        def tell(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
            return event

    Probe(task_id="probe")


probe()


@dag(schedule=None, params={"num_jobs": Param(200, type="integer")}, default_args=AGAIN)
def many() -> None:
    @task
    def specs(*, params: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        assert params is not None
        common = {"name": "many", "script": "include.jobs.scripts.smoke", "max_runtime_s": 300}
        return [{**common, "hyperparameters": {"seconds": 1, "number": number}} for number in range(params["num_jobs"])]

    JobOperator.partial(task_id="job", pool="jobs").expand(spec=specs())


many()


@dag(schedule=None, params={"num_jobs": Param(200, type="integer")}, default_args=AGAIN)
def nothing() -> None:
    @task
    def numbers(*, params: dict[str, Any] | None = None) -> list[int]:
        assert params is not None
        return list(range(params["num_jobs"]))

    @task(pool="jobs")
    def pass_by(number: int) -> None: ...

    pass_by.expand(number=numbers())


nothing()
