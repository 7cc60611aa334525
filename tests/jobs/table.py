"""What follows what: the table of docs/jobs.md, as a test runs it. A line for each state of a task's newest job."""

from __future__ import annotations

EVENTS = (
    "a new attempt of the task begins",
    "the attempt waits for it",
    "the task is killed",
    "an older attempt is killed",
    "the time is up",
)
NOTHING = "nothing"
_ENDED = (NOTHING, "left alone")

TABLE: dict[str, tuple[str, ...]] = {
    "not there": ("starts it", "LostError, retried", NOTHING, NOTHING, "LostError, retried"),
    "starting": ("attaches", "waits on", "stops it", "left alone", "stops it, StoppedError, not retried"),
    "running": ("attaches", "waits on", "stops it", "left alone", "stops it, StoppedError, not retried"),
    "stopping": ("attaches, then starts the next", "waits on", NOTHING, "left alone", "StoppedError, not retried"),
    "succeeded": ("takes it", "takes it", *_ENDED, "takes it"),
    "succeeded, output not whole": (
        "starts the next", "OutputError, not retried", *_ENDED, "OutputError, not retried",
    ),
    "failed: user_code": ("starts the next", "UserCodeError, not retried", *_ENDED, "UserCodeError, not retried"),
    "failed: bad_input": ("starts the next", "BadInputError, not retried", *_ENDED, "BadInputError, not retried"),
    "failed: out_of_memory": (
        "starts the next", "OutOfMemoryError, not retried", *_ENDED, "OutOfMemoryError, not retried",
    ),
    "failed: capacity": ("starts the next", "CapacityError, retried", *_ENDED, "CapacityError, retried"),
    "failed: lost": ("starts the next", "LostError, retried", *_ENDED, "LostError, retried"),
    "stopped": ("starts the next", "StoppedError, not retried", *_ENDED, "StoppedError, not retried"),
    "stopped: timed_out": ("starts the next", "StoppedError, not retried", *_ENDED, "StoppedError, not retried"),
}  # fmt: skip
