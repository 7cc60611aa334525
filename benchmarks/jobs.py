"""What a job costs beside its own work: many of one second, mapped, in a real Airflow, on two cores.

On this machine two at once, against the same scripts without Airflow and against mapped tasks that do nothing. On the
AWS endpoint of the tests all at once, each waited for without a slot: how often the service is asked, and the memory of
the triggerer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.measuring import row
from local.home import PROJECT
from tests.aws.endpoint import AwsEndpoint, aws_endpoint
from tests.jobs.airflow_scene import Scene, scene

SLOTS = 2
BARE = 20
"""Scripts of the baseline; each takes as long as the next."""
RATE = 20.0
"""Describe calls a second that are borne: four workers start and end tasks as fast as they can, the triggerer keeps to
five. The service tells no limit; what it refuses is tried again, ever more slowly."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What was seen of many jobs on the endpoint."""

    state: str
    num_succeeded: int
    busiest_second: int
    """Most describe calls within one second."""
    triggerer_mb: tuple[float, float]
    """Peak memory of the triggerer in MiB: in the second quarter, when all clients are made, and at the end."""


def measure_jobs(scratch: Path, num_jobs: int) -> None:
    """Print the tables."""
    print(f"\n{num_jobs} mapped jobs of one second, {SLOTS} at once\n")
    bare_s = bare(scratch / "bare") / BARE * SLOTS
    with scene(scratch / "local", AIRFLOW__FMOPS__JOB_SLOTS=str(SLOTS), FMOPS_JOB_INLINE_S="15") as stage:
        nothing_s = wall(stage, "nothing", num_jobs) / num_jobs * SLOTS
        job_s = wall(stage, "many", num_jobs) / num_jobs * SLOTS
    row("the script alone", bare_s, "s a job", f"baseline 1: {SLOTS} processes at once, no Airflow")
    row("a mapped task that does nothing", nothing_s, "s a task", f"baseline 2: {SLOTS} slots")
    row("a mapped job", job_s, "s a job", f"{job_s - bare_s:.2f} s beside its work; {job_s - bare_s - nothing_s:+.2f}")
    with aws_endpoint() as aws:
        found = watch_many(scratch / "aws", aws, num_jobs)
    row("green on the AWS endpoint", found.num_succeeded, "jobs", f"of {num_jobs}, all waited for at once")
    row("describe calls", found.busiest_second, "a second", f"in the busiest one; {RATE:g} are borne")
    first, last = found.triggerer_mb
    row("the triggerer's memory", last, "MiB", f"at the end; {first:.1f} MiB in the second quarter")


def bare(folder: Path) -> float:
    """Wall seconds of BARE scripts of one second, SLOTS at once, as a supervisor starts them."""

    def run(number: int) -> None:
        place = folder / str(number)
        (place / "input" / "config").mkdir(parents=True)
        values = {"fmops_script": "include.jobs.scripts.smoke", "seconds": 1}
        (place / "input" / "config" / "hyperparameters.json").write_text(json.dumps(values))
        command = [sys.executable, "-c", "from include.jobs.harness import main; main()"]
        environment = os.environ | {"FMOPS_ML_ROOT": str(place), "PYTHONPATH": str(PROJECT)}
        subprocess.run(command, env=environment, check=True, capture_output=True)

    started = time.perf_counter()
    with ThreadPoolExecutor(SLOTS) as pool:
        list(pool.map(run, range(BARE)))
    return time.perf_counter() - started


def wall(stage: Scene, dag_id: str, num_tasks: int) -> float:
    """Wall seconds of a run, from its start to its end; RuntimeError if it is not green."""
    started = time.perf_counter()
    run = stage.start(dag_id, num_jobs=num_tasks)
    if run.end(deadline_s=3600) != "success":
        raise RuntimeError(f"{dag_id} is not green")
    return time.perf_counter() - started


def watch_many(folder: Path, aws: AwsEndpoint, num_jobs: int) -> Watched:
    """Run many jobs on the endpoint, all waited for at once, and look on."""
    aws.client("s3").create_bucket(Bucket="many")
    options = {
        **aws.deployment("s3://many/root"),
        "FMOPS_JOB_INLINE_S": "0",
        "AIRFLOW__FMOPS__JOB_SLOTS": str(num_jobs),
    }
    with scene(folder, **options) as stage, sampled(stage) as samples:
        run = stage.start("many", num_jobs=num_jobs)
        state = run.end(deadline_s=3600)
        tasks = stage.client.task_instances("many", run.run_id)
    quarter, end = len(samples) // 4, max(1, len(samples) // 10)
    return Watched(
        state=state,
        num_succeeded=sum(task["task_id"] == "job" and task["state"] == "success" for task in tasks),
        busiest_second=busiest(sorted(call["at"] for call in aws.calls("DescribeTrainingJob"))),
        triggerer_mb=(max(samples[quarter : 2 * quarter]), max(samples[-end:])),
    )


@contextmanager
def sampled(stage: Scene) -> Iterator[list[float]]:
    """The triggerer's memory in MiB, each second of the block."""
    samples: list[float] = []
    ended = threading.Event()
    triggerer = psutil.Process(stage.airflow._components["triggerer"].pid)

    def look() -> None:
        while not ended.wait(1.0):
            family = [triggerer, *triggerer.children(recursive=True)]
            samples.append(sum(one.memory_full_info().uss for one in family) / 2**20)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


def busiest(times: list[float]) -> int:
    """Most calls within any second."""
    first, most = 0, 0
    for last, at in enumerate(times):
        while at - times[first] > 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most
