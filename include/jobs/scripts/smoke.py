"""A job that shows that jobs work: it hashes for `seconds`, tells its progress and goes on from its checkpoints.

Each step hashes the digest before it for a second, so what it has done by then is real work that a checkpoint saves.
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

from include.jobs.harness import BadInput, Job

CHECKPOINT_S = 3.0
PART = 2000
"""Hashes between two looks at the clock."""


def main(job: Job) -> dict[str, Any]:
    """Hash for `seconds` (20), over all generations together; the digest lies in result.json."""
    seconds = job.parameter("seconds", 20)
    if not 0 < seconds <= 3600:
        raise BadInput(f"hyper-parameter seconds={seconds} must be from 1 to 3600")
    value, hashes, done, resumed = b"smoke", 0, 0, 0
    if last := job.last_checkpoint():
        state = json.loads((last[1] / "state.json").read_bytes())
        value, hashes, done = bytes.fromhex(state["value"]), state["hashes"], last[0]
        resumed = done
    for step in range(done + 1, seconds + 1):
        until = time.monotonic() + 1
        while time.monotonic() < until:
            for _ in range(PART):
                value = hashlib.sha256(value).digest()
            hashes += PART
        job.progress(step=step, of=seconds, hashes=hashes)
        if job.checkpoint_due(CHECKPOINT_S):
            with job.checkpoint(step) as folder:
                (folder / "state.json").write_text(json.dumps({"value": value.hex(), "hashes": hashes}))
    (job.model_dir / "result.json").write_text(json.dumps({"digest": value.hex(), "hashes": hashes}))
    return {"seconds": seconds, "hashes": hashes, "resumed_from_step": resumed}
