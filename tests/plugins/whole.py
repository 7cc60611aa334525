"""A whole Airflow, and what the tests of the pages ask of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import httpx

from local.airflow import LocalAirflow
from local.client import Client


@dataclass
class Whole:
    """An Airflow that runs, and its storage's folder."""

    airflow: LocalAirflow
    client: Client
    storage: Path

    def token(self, user: str) -> str:
        """A login as this user."""
        password = json.loads(self.airflow.home.password_file.read_text())[user]
        login = {"username": user, "password": password}
        response = httpx.post(f"{self.airflow.running.url}/auth/token", json=login, trust_env=False)
        return str(response.raise_for_status().json()["access_token"])

    def page(self, path: str, user: str | None = "admin") -> httpx.Response:
        """What this user's browser gets at a path; None for one that is not logged in."""
        cookies = {"_token": self.token(user)} if user else {}
        return httpx.get(f"{self.airflow.running.url}{path}", cookies=cookies, timeout=60, trust_env=False)


@dataclass
class Run:
    """A run of a DAG there."""

    whole: Whole
    dag_id: str
    run_id: str

    def links(self, task_id: str, map_index: int = -1) -> dict[str, str | None]:
        """The buttons of a task instance."""
        place = f"/dags/{self.dag_id}/dagRuns/{self.run_id}/taskInstances/{task_id}/links"
        return dict(self.whole.client.get(place, map_index=map_index)["extra_links"])

    def state(self, task_id: str) -> str | None:
        """Of a task instance."""
        place = f"/dags/{self.dag_id}/dagRuns/{self.run_id}/taskInstances/{task_id}"
        return str(self.whole.client.get(place)["state"])

    def address(self, page: str, task_id: str) -> str:
        """The page of a task instance, as the button would name it."""
        path = f"/fmops/{page}?dag_id={self.dag_id}&task_id={task_id}&map_index=-1"
        return str(httpx.URL(path).copy_merge_params({"run_id": self.run_id}))
