"""Embeds shards of a run inside a processing job, one process for each core, as the DAG's mapped tasks do.

include/rag/hand_over.py writes what it is given. It takes no checkpoint: parts that a killed job had finished lie in
storage, where the next one finds them.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from include.errors import UserError
from include.jobs.harness import BadInput, Job
from include.models.metering import Caller, Meter
from include.rag.config import IngestConfig
from include.rag.embed import embed_shard
from include.rag.stages import stage

if TYPE_CHECKING:  # opened by their names: a job's source is what its script imports
    from include.rag.stores import lance as lance
    from include.rag.stores import opensearch as opensearch

log = logging.getLogger(__name__)

RUN_CHANNEL, SHARDS_CHANNEL = "run", "shards"
RUN_FILE = "run.json"
TRIES, PAUSE_S = 3, 20.0
"""Of one shard, as a mapped task has them: a job that fails for a hiccup of storage would start machines anew."""


def main(job: Job) -> dict[str, Any]:
    """Embed the shards of this host; its numbers of documents and chunks. The task hands on those of the first host."""
    run = json.loads((job.channel(RUN_CHANNEL) / RUN_FILE).read_bytes())
    files = sorted(job.channel(SHARDS_CHANNEL).glob("*.json"))
    of = sum(json.loads(file.read_bytes())["documents"] for file in files)
    os.environ.update(run["environment"])  # which the processes of the pool inherit
    started, done = time.monotonic(), Counter[str]()
    job.progress(step=0, of=of)
    processes = max(1, min(os.cpu_count() or 1, len(files)))
    # Not forked: connections and native threads do not survive it.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=log_to_stdout) as pool:
        tasks = [pool.submit(embed, run, file.stem) for file in files]
        try:
            for task in as_completed(tasks):
                done.update(task.result())
                rate = round(done["chunks"] / (time.monotonic() - started), 1)
                job.progress(step=done["documents"], of=of, quarantined=done["quarantined"], chunks_per_s=rate)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # shards that are begun come to their end
            raise
    return {**done, "shards": len(files), "hosts": len(job.hosts)}


def log_to_stdout() -> None:
    """Show what a process of the pool logs in the job's own log."""
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")


def embed(run: dict[str, Any], shard: str, tries: int = TRIES) -> dict[str, int]:
    """Embed one shard, metered; its counts. What fails is tried again, unless a second try cannot help."""
    try:
        return _embed(run, shard)
    except MemoryError:
        raise
    except UserError as error:
        raise BadInput(f"{shard}: {error}") from None
    except Exception as error:
        log.exception("%s failed; %d tries are left", shard, tries - 1)
        if tries == 1 or isinstance(error, PermissionError):
            # In words: not every error comes whole out of another process.
            raise RuntimeError(f"{shard}: {type(error).__name__}: {error}") from None
    time.sleep(PAUSE_S)
    return embed(run, shard, tries - 1)


def _embed(run: dict[str, Any], shard: str) -> dict[str, int]:
    config, who = IngestConfig(**run["config"]), run["caller"]
    caller = Caller(tenant=config.tenant, use_case=config.use_case, run_id=config.run_id, **who)
    with Meter(root=config.root, caller=caller) as meter, stage(config, f"embed {shard}", meter):
        counts = embed_shard(config, shard, meter)
    return {name: count for name, count in counts.items() if name != "shard"}
