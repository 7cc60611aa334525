"""One step of an ingestion in a process of its own, as Airflow runs it: `python -m benchmarks.step STEP CONFIG SHARD`.

CONFIG is what pipeline.prepare() returned, as JSON; SHARD is for the step `embed` alone. Prints what the step returned,
its seconds and its peak memory.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from functools import partial
from typing import Any

from benchmarks.measuring import timed
from benchmarks.peers.common import peak_mb
from include.rag import pipeline


def run(step: str, config: dict[str, Any], shard: str = "") -> dict[str, Any]:
    """Run a step in a process: its `result`, `cpu_s`, `wall_s`, `peak_mb`; CalledProcessError if it fails."""
    command = [sys.executable, "-m", "benchmarks.step", step, json.dumps(config), shard]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(step: str, config: str, shard: str = "") -> None:
    """Do it here."""
    logging.disable(logging.WARNING)
    steps = {
        "plan": pipeline.plan,
        "embed": partial(pipeline.embed, shard=shard, dag_id="bench", task_id="embed"),
        "commit": pipeline.commit,
        "check": pipeline.check,
        "evaluate": partial(pipeline.evaluate, dag_id="bench", task_id="evaluate"),
    }
    cpu, wall, result = timed(lambda: steps[step](json.loads(config)))
    print(json.dumps({"result": result, "cpu_s": cpu, "wall_s": wall, "peak_mb": peak_mb()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
