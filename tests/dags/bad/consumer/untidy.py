"""Planted: nobody looks after it."""

from airflow.sdk import DAG, task

with DAG("another_name", schedule=None, catchup=True, tags=["consumer", "provider"], doc_md=__doc__):

    @task(retries=0)
    def lonely() -> None: ...

    lonely()
