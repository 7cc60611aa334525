"""What tests ask of a real Airflow by its REST API, beside what the launcher's client does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from local.airflow import database_mark
from local.client import Client
from tests.shared import made_once

QUIET_S = 3.0
"""How long a question waits for its answer here: Airflow fails many attempts that are answered within two seconds."""


def home_with_database(home: Path) -> Path:
    """A new home whose database is made already, which takes Airflow as long as half its start.

    With the configuration that was written with it, since that holds the secrets which Airflow's parts share.
    """
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = made_once("database", _migrate)
    shutil.copy(made / "airflow.db", home)
    configuration = home / "airflow.cfg"
    configuration.touch(mode=0o600)
    configuration.write_text((made / "airflow.cfg").read_text().replace(str(made), str(home)))
    database_mark(home).touch()
    return home


def _migrate(folder: Path) -> None:
    command = [str(Path(sys.executable).with_name("airflow")), "db", "migrate"]
    subprocess.run(command, env=os.environ | {"AIRFLOW_HOME": str(folder)}, check=True, capture_output=True)


def question_place(dag_id: str, run_id: str, task_id: str) -> str:
    """Where the question that a task puts to a person is read and answered."""
    return f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/-1/hitlDetails"


def answer(client: Client, place: str, option: str, **more: Any) -> None:
    """Choose one of a question's options."""
    client._checked(client._send("PATCH", place, json={"chosen_options": [option], **more}))


def clear(client: Client, dag_id: str, run_id: str, *task_ids: str, downstream: bool) -> None:
    """Let tasks of a run be done again."""
    body = {"dag_run_id": run_id, "task_ids": list(task_ids), "include_downstream": downstream}
    client.post(f"/dags/{dag_id}/clearTaskInstances", body | {"dry_run": False, "only_failed": False})


def asset_news(client: Client) -> list[dict[str, Any]]:
    """What the events of all assets told, oldest first."""
    events = client.pages("/assets/events", "asset_events")
    return [event["extra"] for event in sorted(events, key=lambda event: event["timestamp"])]


def job_name(client: Client, dag_id: str, run_id: str, task_id: str) -> str:
    """Of the job that a task waits for; empty as long as there is none."""
    place = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries"
    if not any(entry["key"] == "fmops_job" for entry in client.get(place)["xcom_entries"]):
        return ""
    return str(client.xcom(dag_id, run_id, task_id, "fmops_job")["name"])
