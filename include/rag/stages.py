"""What each step of a run took: a small record beside the run's results, for its report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from include.contracts import now
from include.models.metering import Meter
from include.rag.config import IngestConfig
from include.storage import read_json, write_json


@contextmanager
def stage(config: IngestConfig, name: str, meter: Meter | None = None) -> Iterator[None]:
    """Time the block and note what its meter counted by model, once it succeeds; the last attempt's record stands.

    `name` is the step's, or `embed shard-0001` for one of many. Seconds are of the wall clock.
    """
    started, clock = now(), time.monotonic()
    yield
    seconds, events = round(time.monotonic() - clock, 3), list(meter.events) if meter else []
    models: list[str | None] = list(dict.fromkeys(event.model for event in events)) or [None]
    for number, model in enumerate(models):
        mine = [event for event in events if event.model == model]
        record = {
            "stage": f"{name} {number}" if number else name,
            "started_at": started.isoformat(timespec="milliseconds"),
            "seconds": 0.0 if number else seconds,  # once, however many models it used
            "requests": sum(event.num_requests for event in mine),
            "tokens": sum(event.tokens_in + event.tokens_out for event in mine),
            "model": model,
        }
        write_json(config.run_home / "stages" / f"{record['stage']}.json".replace(" ", "-"), record)


def read_stages(config: IngestConfig) -> list[dict[str, object]]:
    """The records of a run's steps, in the order in which they started."""
    folder = config.run_home / "stages"
    files = folder.iterdir() if folder.is_dir() else ()
    return sorted((read_json(file) for file in files), key=lambda record: str(record["started_at"]))
