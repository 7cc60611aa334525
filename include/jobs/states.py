"""What can become of a job, and the errors that say so: by cause, each with what to do next."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from include.errors import BusyError, PermanentError, UserError

State = Literal["starting", "running", "stopping", "succeeded", "failed", "stopped"]
ENDED: frozenset[str] = frozenset({"succeeded", "failed", "stopped"})

Cause = Literal[
    "capacity",  # no instance to be had, or the account's quota is spent
    "throttled",  # the service refuses for the rate of calls
    "bad_input",  # the spec or the data cannot be used
    "user_code",  # the script failed
    "out_of_memory",
    "stopped",  # by a person, or by a task that was killed
    "timed_out",  # max_runtime_s was over
    "lost",  # whoever ran it is gone, or the service failed
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """What a backend knows of a job now."""

    name: str
    state: State
    cause: Cause | None = None
    """Why it ended, if not well."""
    message: str = ""
    """One line: the service's reason, or the last line of the script's error."""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    stop_asked_at: datetime | None = None
    """Of one that was stopped: when, or as early as it may have been."""
    billed_s: float = 0.0
    """Instance seconds; of a spot job those that are paid for."""
    instance_type: str = ""
    output_uri: str = ""
    """Folder of what the script wrote; with manifest.json once the job succeeded."""
    progress: dict[str, Any] = field(default_factory=dict)
    """What the script told last: `step`, `of` and figures such as `loss`."""

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in ENDED


class JobError(RuntimeError):
    """A job did not end well; the message names the job, the reason and what to do next.

    The other base of each class below is what include/dag_defaults.py goes by: whether a second try may help.
    """

    advice = ""

    def __init__(self, message: str) -> None:
        super().__init__(f"{message.rstrip('.')}. {self.advice}" if self.advice else message)


class CapacityError(JobError, BusyError):
    """No machine to run on; a later try may get one."""

    advice = "It is tried again; if that does not help, ask for a quota, or choose another instance_type or region"


class ThrottledError(JobError, BusyError):
    """The service refused for the rate of calls; a later try may pass."""

    advice = "It is tried again; fewer tasks at once (the pool's slots) make fewer calls"


class BadInputError(JobError, UserError):
    """The service or the harness refused what the job was given; a second try cannot help."""

    advice = "Correct the spec or the data it names, and run the task again"


class UserCodeError(JobError, PermanentError):
    """The script failed; a second try would most likely fail as well."""

    advice = "The last lines of its log stand above; mend the script, then clear the task"


class OutOfMemoryError(JobError, PermanentError):
    """The script took more memory than it had; a second try would too."""

    advice = "Give it more (resources.instance_type or resources.memory_mb) or a smaller batch, then clear the task"


class StoppedError(JobError, PermanentError):
    """Somebody stopped the job, or its maximum runtime did; it is not started again by itself."""

    advice = "Clear the task to go on from its last checkpoint; raise max_runtime_s if the time was up"


class LostError(JobError):
    """Whoever ran the job is gone; a next generation goes on from its last checkpoint."""

    advice = "It is tried again, from the last checkpoint"


class OutputError(JobError, PermanentError):
    """The job ended well, but what it should have left is not there, or not whole."""

    advice = "Its generation counts as unusable: clear the task to run the next one"


class JobExistsError(RuntimeError):
    """A job of that name is there already, perhaps from a call whose answer was lost; describe it."""


ERRORS: dict[Cause, type[JobError]] = {
    "capacity": CapacityError,
    "throttled": ThrottledError,
    "bad_input": BadInputError,
    "user_code": UserCodeError,
    "out_of_memory": OutOfMemoryError,
    "stopped": StoppedError,
    "timed_out": StoppedError,
    "lost": LostError,
}
