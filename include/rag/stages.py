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
    """Time the block and note what its meter counted, once it succeeds; the last attempt's record stands.

    `name` is the step's, or `embed shard-0001` for one of many. Seconds are of the wall clock.
    """
    started, clock = now(), time.monotonic()
    yield
    events = list(meter.events) if meter else []
    record = {
        "stage": name,
        "started_at": started.isoformat(timespec="milliseconds"),
        "seconds": round(time.monotonic() - clock, 3),
        "requests": sum(event.num_requests for event in events),
        "tokens": sum(event.tokens_in + event.tokens_out for event in events),
        "model": events[0].model if events else None,
    }
    write_json(config.run_home / "stages" / f"{name.replace(' ', '-')}.json", record)


def read_stages(config: IngestConfig) -> list[dict[str, object]]:
    """The records of a run's steps, in the order in which they started."""
    folder = config.run_home / "stages"
    files = folder.iterdir() if folder.is_dir() else ()
    return sorted((read_json(file) for file in files), key=lambda record: str(record["started_at"]))
