"""A DAG that asks before it deletes what a file lists; test_deletion_guard.py answers it."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

from airflow.sdk import Param, dag, task

from include.approval import ask_a_person
from include.dag_defaults import default_args
from include.rag.deletions import KEEP

AT_ONCE = {"retry_delay": timedelta(0), "retry_exponential_backoff": 0}


def config_of(params: dict, run_id: str):
    from include.rag.config import IngestConfig

    fixed = {"tenant": "default", "use_case": "test", "index": "handbook", "source": "file:///handbook"}
    fixed |= {"embedder": "hashing", "store": "lancedb", "chunk_tokens": 32, "overlap_tokens": 4}
    return IngestConfig(
        **fixed, documents_per_shard=3, run_id=run_id, root=params["root"], answer_hours=params["hours"]
    )


@dag(
    schedule=None,
    default_args=default_args() | AT_ONCE,
    params={
        "root": Param("memory://none", type="string"),
        "listing": Param("none", type="string", description='JSON: [["id", "path"], ...] of what is to be deleted'),
        "hours": Param(1.0, type="number"),
    },
)
def approval_dag():
    @task
    def guard(*, params: dict, run_id: str):
        from include.rag import deletions

        listed = json.loads(Path(params["listing"]).read_text())
        return deletions.evidence(config_of(params, run_id), listed, indexed=20, list_uri=f"file://{params['listing']}")

    @task(trigger_rule="none_failed")
    def settle(found: dict, answer: dict | None, *, params: dict, run_id: str):
        from include.rag import deletions

        return deletions.settle(config_of(params, run_id), found, answer)

    @task
    def commit(*, params: dict, run_id: str):
        from include.rag import deletions

        ids = [doc_id for doc_id, _ in json.loads(Path(params["listing"]).read_text())]
        return ids if deletions.approved(config_of(params, run_id), ids) else []

    found = guard()
    answer = ask_a_person(found, task_id="approve", unanswered=KEEP)
    settle(found, answer.output) >> commit()


approval_dag()
