"""A fake of the part of Airflow's REST API that the client uses; answers as Airflow 3.3.1 does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from local.client import Client

PARSED = "2026-01-02T00:00:00+00:00"


def dag(
    dag_id: str, *, parsed: str = PARSED, broken: bool = False, paused: bool = False, **params: Any
) -> dict[str, Any]:
    """A DAG as the API shows it."""
    return {
        "dag_id": dag_id,
        "last_parsed_time": parsed,
        "has_import_errors": broken,
        "is_paused": paused,
        "params": {name: {"value": value} for name, value in params.items()},
    }


def task(task_id: str, state: str | None, *, map_index: int = -1, try_number: int = 1) -> dict[str, Any]:
    """A task instance as the API shows it."""
    return {
        "dag_id": "d",
        "dag_run_id": "r",
        "task_id": task_id,
        "state": state,
        "map_index": map_index,
        "try_number": try_number,
    }


@dataclass
class FakeApi:
    """The server's state. It moves on by itself: each look at a run begins the next of `moments`."""

    dags: list[dict[str, Any]] = field(default_factory=list)
    import_errors: list[dict[str, Any]] = field(default_factory=list)
    moments: list[tuple[str, list[dict[str, Any]]]] = field(default_factory=list)
    """Pairs of a run's state and its task instances, first to last; the last one stays."""

    logs: list[dict[str, Any]] = field(default_factory=list)
    xcoms: dict[str, Any] = field(default_factory=dict)
    faults: list[httpx.Response | httpx.TransportError] = field(default_factory=list)
    """What the next requests meet instead of an answer."""

    lose_answer_to: str = ""
    """Method whose next request is carried out, but its answer is lost."""

    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    tasks: list[dict[str, Any]] = field(default_factory=list)

    def client(self, **arguments: Any) -> Client:
        """A client of this server that never sleeps."""
        return Client(
            "http://airflow", "secret", transport=httpx.MockTransport(self), sleep=lambda _s: None, **arguments
        )

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(f"{request.method} {request.url.path}")
        if self.faults:
            fault = self.faults.pop(0)
            if isinstance(fault, httpx.TransportError):
                raise fault
            return fault
        if request.url.path == "/auth/token":
            right = json.loads(request.content) == {"username": "admin", "password": "secret"}
            return httpx.Response(201, json={"access_token": "t"}) if right else httpx.Response(401)
        if request.headers.get("Authorization") != "Bearer t":
            return httpx.Response(401, json={"detail": "Not authenticated"})
        status, body = self._answer(request, request.url.path.removeprefix("/api/v2/").split("/"))
        if request.method == self.lose_answer_to:
            self.lose_answer_to = ""
            raise httpx.ReadTimeout("the answer was lost")
        return httpx.Response(status, json=body)

    def _answer(self, request: httpx.Request, path: list[str]) -> tuple[int, Any]:
        match request.method, path:
            case "GET", ["dags"]:
                return 200, self._page(request, "dags", self.dags)
            case "GET", ["dags", dag_id, "details"]:
                return 200, next(d for d in self.dags if d["dag_id"] == dag_id)
            case "GET", ["importErrors"]:
                return 200, self._page(request, "import_errors", self.import_errors)
            case "GET", ["dags", _, "dagRuns", _]:
                state, self.tasks = self.moments.pop(0) if len(self.moments) > 1 else self.moments[0]
                return 200, {"state": state}
            case "GET", [*_, "taskInstances"]:
                return 200, self._page(request, "task_instances", self.tasks)
            case "GET", [*_, "logs", _]:
                return 200, {"content": self.logs}
            case "GET", [*_, task_id, "xcomEntries", "return_value"] if task_id in self.xcoms:
                return 200, {"value": self.xcoms[task_id]}
            case "POST", ["dags", _, "dagRuns"]:
                return self._trigger(json.loads(request.content))
            case "PATCH", _:
                return self._change(path, json.loads(request.content))
        return 404, {"detail": f"nothing at {request.url.path}"}

    def _change(self, path: list[str], values: dict[str, Any]) -> tuple[int, Any]:
        changed = self.runs[path[3]] if path[2:] else next(d for d in self.dags if d["dag_id"] == path[1])
        changed.update(values)
        return 200, {}

    def _trigger(self, body: dict[str, Any]) -> tuple[int, Any]:
        if body["conf"].get("n") == "x":
            return 400, {"detail": "Invalid input for param n: 'x' is not of type 'integer'\n\nFailed validating"}
        if body["dag_run_id"] in self.runs:
            return 409, {"detail": "The run exists"}
        self.runs[body["dag_run_id"]] = body
        return 200, body

    def _page(self, request: httpx.Request, key: str, items: list[dict[str, Any]]) -> dict[str, Any]:
        offset, limit = int(request.url.params["offset"]), int(request.url.params["limit"])
        return {key: items[offset : offset + limit], "total_entries": len(items)}


def ticking(step_s: float) -> Iterator[float]:
    """A clock that moves on by step_s seconds whenever it is read."""
    now = 0.0
    while True:
        yield now
        now += step_s
