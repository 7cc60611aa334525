"""Follow a run to its end: a line whenever a task changes, one progress line per group of mapped tasks."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from local.client import Client

# States that a task passes within moments, and that tell a reader nothing.
_UNSAID = {None, "none", "scheduled", "queued"}
SHORTEST_S, LONGEST_S = 1.0, 4.0
"""Between two looks: longer while nothing happens, since each takes Airflow's API server 60 ms beside a training."""

_DONE = ("success", "failed", "upstream_failed", "skipped", "removed")


def summaries(tasks: list[dict[str, Any]]) -> dict[str, str]:
    """What to say about each task of a run that has something to say: `running`, or `3/8 done, 2 running` if mapped."""
    instances: dict[str, list[dict[str, Any]]] = {}
    for task in tasks:
        instances.setdefault(task["task_id"], []).append(task)
    lines = {}
    for task_id, group in instances.items():
        if len(group) == 1 and group[0]["map_index"] < 0:
            if group[0]["state"] not in _UNSAID:
                lines[task_id] = _one(group[0])
        else:
            lines[task_id] = _many(group)
    return lines


def _one(task: dict[str, Any]) -> str:
    repeated = f" (try {task['try_number']})" if (task["try_number"] or 0) > 1 else ""
    return f"{task['state']}{repeated}"


def _many(group: list[dict[str, Any]]) -> str:
    counts = Counter(task["state"] for task in group)
    num_done = sum(counts[state] for state in _DONE)
    rest = [f"{n} {state}" for state, n in sorted(counts.items(), key=str) if state not in {*_UNSAID, "success"}]
    return ", ".join([f"{num_done}/{len(group)} done", *rest])


def follow(
    client: Client,
    dag_id: str,
    run_id: str,
    *,
    say: Callable[[str], None] = print,
    check_alive: Callable[[], None] = lambda: None,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Say what happens in a run until it ends; returns `success` or `failed`. `check_alive` raises to end the wait."""
    started = time.monotonic()
    said: dict[str, str] = {}
    pause = SHORTEST_S
    while True:
        check_alive()
        # The run's state first: tasks read after it are at least as final.
        state = client.run_state(dag_id, run_id)
        tasks = client.task_instances(dag_id, run_id)
        pause = min(pause * 1.25, LONGEST_S)
        for task_id, line in summaries(tasks).items():
            if said.get(task_id) != line:
                say(f"{time.monotonic() - started:6.1f} s  {task_id:<32} {line}")
                said[task_id], pause = line, SHORTEST_S
        if state in ("success", "failed"):
            break
        sleep(pause)
    say(f"{time.monotonic() - started:6.1f} s  {dag_id} {state}")
    if state == "failed":
        say_failures(client, tasks, say)
    return state


def say_failures(client: Client, tasks: list[dict[str, Any]], say: Callable[[str], None]) -> None:
    """For each failed task: its last log lines, of the first failed instance where it is mapped."""
    failed: dict[str, list[dict[str, Any]]] = {}
    for task in tasks:
        if task["state"] == "failed":
            failed.setdefault(task["task_id"], []).append(task)
    for task_id, group in failed.items():
        first = min(group, key=lambda task: task["map_index"])
        which = f"[{first['map_index']}]" if first["map_index"] >= 0 else ""
        others = f" (and {len(group) - 1} more like it)" if len(group) > 1 else ""
        log_end = client.log_end(first)
        if told := [line for line in log_end if line.startswith("FAILED ") and " UserError: " in line]:
            say(told[-1])  # a wrong value: its one line says all
            continue
        say(f"{task_id}{which} failed at try {first['try_number']}{others}; its log ends:")
        for line in log_end:
            say(f"  {line}")
