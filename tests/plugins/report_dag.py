"""A DAG for the tests of the report page: tasks that return a report's URI, one that is not below the root, or none."""

from __future__ import annotations

import os
from pathlib import Path

from airflow.sdk import dag, task, task_group


@dag(dag_id="reports", schedule=None)
def reports():
    @task
    def evaluate(*, run_id=None):
        # The name is as a run's may be: it has to survive the link.
        folder = Path(os.environ["FMOPS_STORAGE_ROOT"].removeprefix("file://")) / "runs" / run_id
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "retrieval.html").write_text(
            f"<!doctype html><title>Retrieval</title><h1>Retrieval of {run_id}</h1>"
            "<p style='color: teal'>nDCG@10 0.81</p><script>document.title = 'ran'</script>"
        )
        return {"report_uri": f"file://{folder}/retrieval.html", "ndcg_at_10": 0.81}

    @task
    def part(number: int):
        folder = Path(os.environ["FMOPS_STORAGE_ROOT"].removeprefix("file://"))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"part{number}.html").write_text(f"part {number}")
        return {"report_uri": f"file://{folder}/part{number}.html"}

    @task
    def outside():
        return {"report_uri": "file:///etc/hostname.html"}

    @task
    def other():
        return "https://example.org/report.html"

    @task_group(group_id="quality")
    def quality():
        evaluate()
        part.expand(number=[1, 2])
        outside()
        other()

    quality()


reports()
