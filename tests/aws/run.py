"""One job from its creation to its end, in a thread: what SageMaker does between Starting and Completed."""

from __future__ import annotations

import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.aws import keeper
from tests.aws.containers import Command, Container, Instance, failure
from tests.aws.faults import Fault, Plan
from tests.aws.machines import Machines, SourceError
from tests.aws.sagemaker import TRAINING, Job
from tests.aws.transfer import MissingInputError

NO_CAPACITY = (
    "CapacityError: Unable to provision requested ML compute capacity. Please retry using a different ML instance type."
)
TOO_LITTLE_MEMORY = (
    "ClientError: Please use an instance type with more memory, or reduce the size of job data processed on an "
    "instance."
)


@dataclass
class Pace:
    """How fast things go here; all of it can be set while the server runs."""

    phase_s: float = 0.02
    """Seconds that Starting, Downloading and Uploading take each, beside their work."""
    stop_grace_s: float = 5.0
    """Between SIGTERM and SIGKILL; 120 s at the service."""
    sync_s: float = 0.2
    """Between two looks for new checkpoints, and for outputs of a processing job in mode Continuous."""
    slots: int = 8
    """Jobs whose scripts run at once; the others stay in Starting."""
    python: str = sys.executable


@dataclass(frozen=True, kw_only=True)
class Site:
    """What all runs share."""

    pace: Pace
    plan: Plan
    client: Callable[[str, str], Any]
    """A boto3 client of the endpoint itself: of a service, in a region."""
    role_environment: Callable[[str, str], dict[str, str]]
    """Credentials of a role in a region, as environment variables."""
    folder: Path
    mark: str
    running: set[str] = field(default_factory=set)
    freed: threading.Condition = field(default_factory=threading.Condition)


class EndedError(Exception):
    """The job is over, for this reason: its last status, secondary status, message and failure reason."""

    def __init__(self, status: str, secondary: str, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.status, self.secondary, self.message, self.reason = status, secondary, message, reason


def stopped() -> EndedError:
    return EndedError("Stopped", "Stopped", "Training job stopped")


def failed(reason: str) -> EndedError:
    return EndedError("Failed", "Failed", "Training job failed", reason)


ENDS = {
    "stop": stopped(),
    "runtime": EndedError(
        "Stopped", "MaxRuntimeExceeded", "Training job runtime exceeded MaxRuntimeInSeconds provided"
    ),
    "wait": EndedError("Stopped", "MaxWaitTimeExceeded", "Training job exceeded MaxWaitTimeInSeconds provided"),
}


class Run:
    """Runs one job; nothing of it is left on disk afterwards."""

    def __init__(self, job: Job, site: Site) -> None:
        self.job = job
        self.site = site
        self.pace = site.pace
        self.logs = site.client("logs", job.region)
        folder = site.folder / job.kind.arn / job.region / job.name
        self.machines = Machines(job, site.client("s3", job.region), folder, site.pace.python)
        self.seconds = 0.0
        """The script's time, of all its starts."""
        self._deadlines: list[tuple[float, str]] = []
        """When something ends the script, by the monotonic clock, and what."""
        self._armed: list[Fault] = []
        """Faults that wait for a line of the script."""

    def __call__(self) -> None:
        exit_message: dict[str, str] = {}
        try:
            end = self._to_the_end()
        except EndedError as ended:
            end = ended
        except MissingInputError as error:
            end = failed(f"ClientError: {error}")
        except SourceError as error:
            end = failed(f"AlgorithmError: {error}, exit code: 1")
        except Exception:
            traceback.print_exc()
            end = failed("InternalServerError: We encountered an internal error. Please try again.")
        if self.job.kind is not TRAINING and (told := self.machines.exit_message()):
            exit_message["ExitMessage"] = told
        self.machines.remove()
        fields = {"FailureReason": end.reason} if end.reason else {}
        self.job.end(end.status, end.secondary, end.message, seconds=self.seconds, **fields, **exit_message)

    def _to_the_end(self) -> EndedError:
        self._pause()
        with self._slot():
            while True:
                faults = self.site.plan.for_job(self.job.name)
                if refused := next((fault for fault in faults if fault.do == "capacity"), None):
                    raise failed(refused.message or NO_CAPACITY)
                if (end := self._attempt(faults)) is not None:
                    return end
                self.job.move("Interrupted", "Spot capacity was interrupted")
                self._pause()
                self.job.move("Starting", "Preparing the instances for training")
                self._pause()

    def _pause(self) -> None:
        """As long as a phase takes; EndedError if the job is stopped meanwhile."""
        until = time.monotonic() + self.pace.phase_s
        while not self.job.stop_asked and (left := until - time.monotonic()) > 0:
            self.job.wake.wait(left)
            self.job.wake.clear()
        if self.job.stop_asked:
            raise stopped()

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """A place among the jobs whose scripts run."""
        freed, running = self.site.freed, self.site.running
        with freed:
            while len(running) >= self.pace.slots:
                freed.wait(0.5)  # a stop is seen so
                if self.job.stop_asked:
                    raise stopped()
            running.add(self.job.arn)
        try:
            yield
        finally:
            with freed:
                running.discard(self.job.arn)
                freed.notify_all()

    def _attempt(self, faults: list[Fault]) -> EndedError | None:
        """One start of the script on fresh machines; None if they were taken away."""
        self.job.move("Downloading", "Downloading input data")
        commands = self.machines.prepare()
        self._pause()
        self.job.move("Training", "Training image download completed. Training in progress.")
        self.job.begin()
        containers = [
            self._container(instance, command)
            for instance, command in zip(self.machines.instances, commands, strict=True)
        ]
        began = time.monotonic()
        self._arm(began, faults)
        try:
            for container in containers:
                container.start()
            cause = self._watch(containers)
        except OSError as error:
            raise failed(f"AlgorithmError: {error}, exit code: 127") from None
        finally:
            self._end(containers, 0)
            self.seconds += time.monotonic() - began
        return self._after(cause, containers)

    def _after(self, cause: str, containers: list[Container]) -> EndedError | None:
        if cause == "interrupt":
            return None
        self.machines.sync()
        bad = next((one for one in zip(self.machines.instances, containers, strict=True) if one[1].code), None)
        if cause == "exit" and bad is None:
            self.job.move("Uploading", "Uploading generated training model")
            end = EndedError("Completed", "Completed", "Training job completed")
            self.machines.upload(model=True)
            self._pause()
        elif cause in ENDS:
            end = ENDS[cause]
            self.machines.upload(model=True)
        else:
            end = failed(self._reason(cause, bad))
            self.machines.upload(model=False)
        return end

    def _reason(self, cause: str, bad: tuple[Instance, Container] | None) -> str:
        if self.job.kind is not TRAINING:
            return TOO_LITTLE_MEMORY if cause == "oom" else "AlgorithmError: See job logs for more information"
        text, code = ("", 137) if cause == "oom" or bad is None else failure(*bad)
        return f"AlgorithmError: {text}, exit code: {code}"

    def _container(self, instance: Instance, command: Command) -> Container:
        job, word = self.job, self.job.kind.word
        group = f"/aws/sagemaker/{word}Jobs"
        stream = f"{job.name}/{instance.host}-{int(time.time() * 1000)}"
        try:
            self.logs.create_log_group(logGroupName=group)
        except self.logs.exceptions.ResourceAlreadyExistsException:
            pass  # by the first job of all
        self.logs.create_log_stream(logGroupName=group, logStreamName=stream)

        def say(lines: list[str]) -> None:
            at = int(time.time() * 1000)
            events = [{"timestamp": at, "message": line} for line in lines]
            self.logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)
            self._hear(lines)

        scratch = instance.ml / "tmp"
        scratch.mkdir()
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(scratch),
            "TMPDIR": str(scratch),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "FMOPS_ML_ROOT": str(instance.ml),
            f"{word.upper()}_JOB_NAME": job.name,
            f"{word.upper()}_JOB_ARN": job.arn,
            **self.site.role_environment(job.request["RoleArn"], job.region),
            **job.request.get("Environment", {}),
            keeper.MARK: self.site.mark,
            keeper.JOB: job.name,
        }
        return Container(command, environment, say, job.wake.set)

    def _arm(self, began: float, faults: list[Fault]) -> None:
        """Before the scripts start: what will end them if they do not end themselves."""
        limits = self.job.request.get("StoppingCondition", {})
        self._armed = [fault for fault in faults if fault.line]
        self._deadlines = [(began + fault.seconds, fault.do) for fault in faults if not fault.line]
        self._deadlines.append((began - self.seconds + limits.get("MaxRuntimeInSeconds", 86_400), "runtime"))
        if "MaxWaitTimeInSeconds" in limits:
            spent = time.time() - self.job.created
            self._deadlines.append((began - spent + limits["MaxWaitTimeInSeconds"], "wait"))

    def _hear(self, lines: list[str]) -> None:
        for fault in list(self._armed):
            if any(fault.line in line for line in lines):
                self._armed.remove(fault)
                self._deadlines.append((time.monotonic() + fault.seconds, fault.do))
                self.job.wake.set()

    def _watch(self, containers: list[Container]) -> str:
        """Wait for the scripts' end; what ended them: exit, stop, runtime, wait, interrupt, oom. They are over then."""
        while True:
            codes = [container.code for container in containers]
            if any(codes) or None not in codes:
                return "exit"
            deadline, cause = min(self._deadlines)
            if self.job.stop_asked:
                deadline, cause = 0.0, "stop"
            left = deadline - time.monotonic()
            if left > 0:
                self.job.wake.wait(min(left, self.pace.sync_s) if self.machines.syncs else left)
                self.job.wake.clear()
                self.machines.sync()
                continue
            if cause == "stop":
                self.job.ask_stop()  # by a fault nobody has asked yet
            if cause in ("interrupt", "oom"):
                self.machines.sync()
                for container in containers:
                    container.signal(signal.SIGKILL)
            self._end(containers, self.pace.stop_grace_s)
            return cause

    def _end(self, containers: list[Container], grace_s: float) -> None:
        for container in containers:
            container.signal(signal.SIGTERM)
        until = time.monotonic() + grace_s
        for container in containers:
            container.end(max(0.0, until - time.monotonic()))
