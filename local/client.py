"""Talk to a running Airflow by its REST API: find a DAG, trigger it, read states, logs and XComs."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx

from include.errors import UserError
from local.home import USER, AirflowError, Running

PARSED_TIMEOUT_S = 120.0
QUIET_S = 10.0
"""A DAG that has not shown this long after the last new one is not there."""

RETRY_S = 60.0
"""How long an API that does not answer is asked again: SQLite locks and busy machines pass."""

_PAGE = 100


class Client:
    """One login at one Airflow. Transport errors and 5xx are retried for RETRY_S seconds, then AirflowError.

    `transport` and `sleep` are for tests.
    """

    def __init__(
        self,
        url: str,
        password: str,
        *,
        started_at: datetime | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = url
        self._password = password
        self._started_at = started_at
        self._sleep = sleep
        # The proxies of the environment are not for a server on this machine.
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False, transport=transport)

    @classmethod
    def of(cls, running: Running, password: str) -> Client:
        """A client of a local Airflow."""
        return cls(running.url, password, started_at=datetime.fromisoformat(running.started_at))

    def close(self) -> None:
        """Close the connections; an open one holds up the server's end."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def get(self, path: str, **params: Any) -> Any:
        """GET below /api/v2; AirflowError for anything but 200."""
        return self._checked(self._send("GET", path, params=params))

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """POST below /api/v2; AirflowError for anything but success. Only for what is safe to repeat."""
        return self._checked(self._send("POST", path, json=body))

    def pages(self, path: str, key: str) -> list[dict[str, Any]]:
        """All items of a listing, page by page."""
        items: list[dict[str, Any]] = []
        while True:
            page = self.get(path, limit=_PAGE, offset=len(items))
            items += page[key]
            if not page[key] or len(items) >= page["total_entries"]:
                return items

    def dag(self, dag_id: str) -> dict[str, Any]:
        """A DAG's details, once this Airflow has parsed its file; UserError if it is unknown or cannot be imported."""
        deadline = time.monotonic() + PARSED_TIMEOUT_S
        seen: set[str] = set()
        last_news = time.monotonic()
        while True:
            dags = {d["dag_id"]: d for d in self.pages("/dags", "dags") if self._is_fresh(d)}
            if dag_id in dags and not dags[dag_id]["has_import_errors"]:
                return dict(self.get(f"/dags/{dag_id}/details"))
            errors = self.pages("/importErrors", "import_errors")
            news = {*dags, *(e["filename"] for e in errors)}
            now = time.monotonic()
            if news - seen:
                seen, last_news = news, now
            if (seen and now - last_news > QUIET_S) or now > deadline:
                raise UserError(_missing(dag_id, sorted(dags), errors))
            self._sleep(0.5)

    def _is_fresh(self, dag: dict[str, Any]) -> bool:
        parsed = dag["last_parsed_time"]
        return bool(self._started_at is None or (parsed and datetime.fromisoformat(parsed) >= self._started_at))

    def trigger(self, dag: dict[str, Any], conf: dict[str, Any]) -> str:
        """Start a run and return its id; UserError for a conf that the DAG's Params do not allow.

        Airflow takes unknown keys in silence, so they are refused here.
        """
        dag_id, allowed = dag["dag_id"], sorted(dag["params"])
        if unknown := sorted(set(conf) - set(allowed)):
            raise UserError(
                f"conf has no key {', '.join(unknown)} in DAG {dag_id}: allowed are {', '.join(allowed) or 'none'}"
            )
        if dag["is_paused"]:
            self._checked(self._send("PATCH", f"/dags/{dag_id}", json={"is_paused": False}))
        # Our own id makes the request safe to repeat: the second finds the run of the first (409).
        run_id = f"manual__{datetime.now(UTC).isoformat()}"
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf}
        response = self._send("POST", f"/dags/{dag_id}/dagRuns", json=body)
        if response.status_code == 400:
            raise UserError(f"conf of DAG {dag_id}: {_detail(response)}")
        if response.status_code != 409:
            self._checked(response)
        return run_id

    def run_state(self, dag_id: str, run_id: str) -> str:
        """The state of a run: queued, running, success or failed."""
        return str(self.get(f"/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """The task instances of a run, mapped ones one by one."""
        return self.pages(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances", "task_instances")

    def give_up(self, dag_id: str, run_id: str) -> None:
        """Mark a run as failed, so that it does not go on when Airflow starts the next time."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}"
        self._checked(self._send("PATCH", path, json={"state": "failed"}, retry_s=5))  # somebody waits for the end

    def log_end(self, task: dict[str, Any], num_lines: int = 12) -> list[str]:
        """The last lines that a task instance's latest try logged."""
        place = f"/dags/{task['dag_id']}/dagRuns/{task['dag_run_id']}/taskInstances/{task['task_id']}"
        log = self.get(f"{place}/logs/{max(task['try_number'], 1)}", map_index=task["map_index"], full_content=True)
        lines: list[str] = []
        for entry in log["content"]:
            lines += _readable(entry)
        return lines[-num_lines:]

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """What a task handed over."""
        return self.get(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}")["value"]

    def _send(self, method: str, path: str, *, retry_s: float = RETRY_S, **arguments: Any) -> httpx.Response:
        deadline = time.monotonic() + retry_s
        while True:
            problem = ""
            try:
                if "Authorization" not in self._http.headers:
                    self._log_in()
                response = self._http.request(method, f"/api/v2{path}", **arguments)
                if response.status_code == 401:
                    raise AirflowError(f"{self.url} refuses the login of user {USER}")
                if response.status_code < 500:
                    return response
                problem = _detail(response)
            except httpx.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
            if time.monotonic() > deadline:
                raise AirflowError(f"Airflow at {self.url} does not answer ({problem})")
            self._sleep(1.0)

    def _log_in(self) -> None:
        response = self._http.post("/auth/token", json={"username": USER, "password": self._password})
        if response.status_code >= 500:
            raise httpx.ReadError(_detail(response))
        self._http.headers["Authorization"] = f"Bearer {self._checked(response)['access_token']}"

    def _checked(self, response: httpx.Response) -> Any:
        if response.is_success:
            return response.json()
        raise AirflowError(f"{response.request.method} {response.request.url.path}: {_detail(response)}")


def _detail(response: httpx.Response) -> str:
    """What the server says is wrong, in one line."""
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = response.text
    return f"{response.status_code} {' '.join(str(detail).split())[:300]}"


def _missing(dag_id: str, known: list[str], errors: list[dict[str, Any]]) -> str:
    line = f"no DAG {dag_id}: known are {', '.join(known) or 'none'}"
    for error in errors:
        line += f"\n{error['filename']} cannot be imported:\n  " + "\n  ".join(error["stack_trace"].splitlines()[-8:])
    return line


def _readable(entry: Any) -> list[str]:
    """The lines of one log entry: its event, and the exceptions it carries from cause to effect."""
    if not isinstance(entry, dict):
        return [str(entry)]
    if str(entry["event"]).startswith("::"):  # marks of foldable groups in the UI
        return []
    lines = str(entry["event"]).splitlines()
    for error in reversed(entry.get("error_detail") or []):
        frame = (error.get("frames") or [{}])[-1]
        lines.append(f"{error['exc_type']}: {error['exc_value']}")
        lines.append(f"  at {frame.get('filename')}:{frame.get('lineno')} in {frame.get('name')}")
    return lines
