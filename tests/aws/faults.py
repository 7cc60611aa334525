"""Faults by plan, and the record of all calls: what a test tells the endpoint to do wrong, and what it was asked."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

REFUSALS: dict[str, tuple[str, str, int]] = {
    "throttle": ("ThrottlingException", "Rate exceeded", 400),
    "limit": (
        "ResourceLimitExceeded",
        "The account-level service limit is 0 Instances, with current utilization of 0 Instances and a request delta "
        "of 1 Instances. Please use AWS Service Quotas to request an increase for this quota.",
        400,
    ),
    "error": ("InternalServerError", "We encountered an internal error. Please try again.", 500),
    "denied": ("AccessDeniedException", "User is not authorized to perform this action", 400),
}
"""Answers instead of the service's: code, message, HTTP status."""

CONNECTION = {
    "down": "the connection is closed before anything is done",
    "lost": "what was asked is done, then the connection is closed without an answer",
    "lost_error": "what was asked is done, then the answer is a 500",
}
JOB = {
    "capacity": "no instance is found for the job",
    "interrupt": "the spot instance is taken away after `seconds` of training",
    "oom": "the container is killed for its memory after `seconds`",
    "stop": "somebody else stops the job after `seconds`",
}
KINDS = (*REFUSALS, *CONNECTION, *JOB, "slow")


@dataclass(kw_only=True)
class Fault:
    """One thing that goes wrong; patterns are those of file names, capitals count."""

    do: str
    operation: str = "*"
    """Of request faults, such as `Create*Job`; for S3 the HTTP method. A job fault needs none."""
    job: str = "*"
    """Name of the job in the request; a request that names none only meets `*`."""
    times: int | None = 1
    """How often; None: always."""
    after: int = 0
    """Matches that pass unharmed before."""
    seconds: float = 0.0
    """Of `slow`: before the answer; of a job fault: after the script's start, or after its `line`."""
    line: str = ""
    """A job fault waits until the script has printed a line with this in it; what it wrote before is in S3 then."""
    message: str = ""
    """Instead of the usual one."""

    def __post_init__(self) -> None:
        if self.do not in KINDS:
            raise ValueError(f"do={self.do!r} is none of {', '.join(KINDS)}")
        if self.times is not None and self.times < 1:
            raise ValueError(f"times={self.times!r} must be at least 1, or null for always")

    def meets(self, operation: str, job: str) -> bool:
        """Whether this request or job is hit; counts it."""
        if self.times == 0 or not fnmatchcase(operation, self.operation) or not fnmatchcase(job, self.job):
            return False
        if self.after:
            self.after -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


class Plan:
    """The faults that are still to come, in their order."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, faults: list[dict[str, Any]]) -> None:
        """ValueError or TypeError that names a wrong field; nothing is added then."""
        made = [Fault(**fault) for fault in faults]
        with self._lock:
            self._faults += made

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def left(self) -> list[dict[str, Any]]:
        """Those that have not been met as often as planned."""
        with self._lock:
            return [asdict(fault) for fault in self._faults if fault.times != 0]

    def for_request(self, operation: str, job: str) -> tuple[float, Fault | None]:
        """Seconds to wait before the answer, and what happens to it: at most one fault."""
        wait, met = 0.0, None
        with self._lock:
            for fault in self._faults:
                if fault.do in JOB or (met and fault.do != "slow") or not fault.meets(operation, job):
                    continue
                if fault.do == "slow":
                    wait += fault.seconds
                else:
                    met = fault
        return wait, met

    def for_job(self, name: str) -> list[Fault]:
        """What happens to one run of a job's script; a job that is started again asks again."""
        with self._lock:
            return [fault for fault in self._faults if fault.do in JOB and fault.meets(fault.operation, name)]


class Calls:
    """What was asked, in the order in which it came."""

    def __init__(self) -> None:
        self._calls: deque[dict[str, Any]] = deque(maxlen=100_000)

    def note(self, service: str, operation: str, job: str) -> dict[str, Any]:
        """A call that has come in; `status` and `fault` are set when it is answered. `at` is in seconds, Unix time."""
        call = {"service": service, "operation": operation, "job": job, "at": time.time(), "status": None, "fault": ""}
        self._calls.append(call)
        return call

    def all(self) -> list[dict[str, Any]]:
        return list(self._calls)

    def clear(self) -> None:
        self._calls.clear()
