"""What waits in the triggerer for a job to end. It has only plugins/ on its path, so it imports nothing of include/.

A trigger tells no more than that it is time to look: the operator describes the job again, judges and decides. Limits
come as events too: Airflow's own time-out of a trigger would end it without a chance to stop the job.
"""

from __future__ import annotations

import asyncio
import re
import time
from abc import abstractmethod
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from airflow.triggers.base import BaseTrigger, TriggerEvent

from fmops_plugins.job_view import OVER, read_json, split_log

NOT_BEFORE_S = 5.0
"""After it was made: an event that comes before the worker has told that the task is deferred fails the task."""
FAILURES = 20
"""Looks in a row that may fail, until the operator is asked to look: it knows which errors may pass."""
UNKNOWN = re.compile(r"requested resource not found|could not find .*\bjob\b", re.IGNORECASE)
"""What SageMaker says of a job that is not there."""
PROGRESS_S = 30.0
"""How often a job on SageMaker is asked for its progress, in seconds."""


class JobTrigger(BaseTrigger):
    """Looks at a job again and again, and fires once when it is over, when its time is up, or when looking fails."""

    def __init__(self, *, name: str, owner: str, deadline: float, poll_s: float, made_at: float, **place: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.name, self.owner, self.deadline = name, owner, deadline
        self.poll_s, self.made_at, self.place = poll_s, made_at, place
        self._said = ""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """As Airflow stores it."""
        own = {name: getattr(self, name) for name in ("name", "owner", "deadline", "poll_s", "made_at")}
        return f"{__name__}.{type(self).__name__}", own | self.place

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event: {"why": "over" | "deadline" | "unreachable", "message": ...}."""
        why = await self._wait()
        await asyncio.sleep(max(0.0, self.made_at + NOT_BEFORE_S - time.time()))
        yield TriggerEvent(why)  # type: ignore[no-untyped-call]

    async def _wait(self) -> dict[str, str]:
        failures = 0
        while True:
            try:
                is_over, progress = await self._look()
                failures = 0
            except Exception as error:  # of any class: the operator finds out which
                failures += 1
                is_over, progress = False, ""
                self.log.warning("%s cannot be looked at (%d in a row): %s", self.name, failures, error)
                if failures == FAILURES:
                    return {"why": "unreachable", "message": f"{type(error).__name__}: {error}"}
            if progress and progress != self._said:
                self._said = progress
                self.log.info("%s: %s", self.name, progress)
            if is_over:
                return {"why": "over", "message": ""}
            left = self.deadline - time.time()
            if left <= 0:
                return {"why": "deadline", "message": ""}
            await asyncio.sleep(min(self.poll_s * min(2**failures, 8), left))

    async def on_kill(self) -> None:
        """Somebody cleared the task or marked it: stop the job, unless another attempt has taken it over.

        Airflow calls this too when it gives the trigger to another triggerer, since this one seemed dead: then the task
        is deferred still, and the job is left alone.
        """
        try:
            is_deferred = self.task_instance is not None and await task_state(self.task_instance) == "deferred"
        except Exception as error:  # of any class: who was killed is rather stopped than left to be billed
            self.log.warning("the task's state cannot be asked for: %s", error)
            is_deferred = False
        if is_deferred:
            self.log.info("%s is waited for by another triggerer: left alone", self.name)
            return
        owner = await self._owner()
        if owner != self.owner:
            self.log.info("%s belongs to another attempt by now: left alone", self.name)
            return
        await self._stop()
        self.log.info("asked %s to stop", self.name)

    @abstractmethod
    async def _look(self) -> tuple[bool, str]:
        """Whether the job is over, and what it told last."""

    @abstractmethod
    async def _owner(self) -> str | None:
        """The task attempt whose it is."""

    @abstractmethod
    async def _stop(self) -> None:
        """Ask it to end."""


async def task_state(task_instance: Any) -> str | None:
    """The state of a task instance now, asked from within the triggerer; None if it is cleared, or gone."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    found = await asyncio.to_thread(
        RuntimeTaskInstance.get_task_states,
        dag_id=task_instance.dag_id,
        task_ids=[task_instance.task_id],
        run_ids=[task_instance.run_id],
        map_index=task_instance.map_index,
    )
    return next(iter(found.get(task_instance.run_id, {}).values()), None)


class LocalTrigger(JobTrigger):
    """Waits for a local job, whose folder (`folder`) its supervisor keeps; silent for `lost_after_s`, it is over."""

    def __init__(self, *, folder: str, lost_after_s: float, **rest: Any) -> None:
        super().__init__(folder=folder, lost_after_s=lost_after_s, **rest)
        self._folder = Path(folder)
        self._lost_after_s = lost_after_s
        self._beat: tuple[float, float] | None = None
        """The heartbeat that was seen last, and when, by this process's own clock."""

    async def _look(self) -> tuple[bool, str]:
        return await asyncio.to_thread(self._read)

    def _read(self) -> tuple[bool, str]:
        if not self._folder.is_dir():
            return True, ""
        status = _json(self._folder / "status.json")
        if status.get("state") in OVER:
            return True, ""
        try:
            beat = (self._folder / "heartbeat").stat().st_mtime
        except FileNotFoundError:
            beat = 0.0
        if self._beat is None or self._beat[0] != beat:
            self._beat = (beat, time.monotonic())
        is_silent = time.monotonic() - self._beat[1] > self._lost_after_s
        return is_silent, _line(_json(self._folder / "progress.json"))

    async def _owner(self) -> str | None:
        return await asyncio.to_thread(self._read_owner)

    def _read_owner(self) -> str | None:
        try:
            return (self._folder / "owner").read_text()
        except FileNotFoundError:
            return None

    async def _stop(self) -> None:
        await asyncio.to_thread((self._folder / "stop").touch)


class SageMakerTrigger(JobTrigger):
    """Waits for a SageMaker job of a `kind` (training, processing) in a `region`; described by name only."""

    def __init__(self, *, kind: str, region: str | None, **rest: Any) -> None:
        super().__init__(kind=kind, region=region, **rest)
        self._kind, self._region = kind, region
        self._arn = self._stream = self._progress = ""
        self._read_at = -PROGRESS_S

    async def _look(self) -> tuple[bool, str]:
        from botocore.exceptions import ClientError

        try:
            found = await self._describe()
        except ClientError as error:
            if UNKNOWN.match(str(error.response["Error"].get("Message", ""))):
                return True, ""
            raise
        state = str(found[f"{self._kind.capitalize()}JobStatus"])
        if state in ("Completed", "Failed", "Stopped"):
            return True, ""
        if time.monotonic() - self._read_at >= PROGRESS_S:
            self._read_at = time.monotonic()
            self._progress = await self._read_log() or self._progress
        transitions = found.get("SecondaryStatusTransitions") or [{}]
        return False, self._progress or str(transitions[-1].get("StatusMessage") or state)

    async def _read_log(self) -> str:
        """The last progress among the last lines of the first host's log; nothing until there are any."""
        from botocore.exceptions import BotoCoreError, ClientError

        group = f"/aws/sagemaker/{self._kind.capitalize()}Jobs"
        try:
            if not self._stream:
                found = await self._ask(
                    _LOGS_PACE,
                    "logs",
                    "describe_log_streams",
                    logGroupName=group,
                    logStreamNamePrefix=f"{self.name}/",
                    limit=1,
                )
                self._stream = next((str(one["logStreamName"]) for one in found["logStreams"]), "")
            if not self._stream:
                return ""
            found = await self._ask(
                _LOGS_PACE,
                "logs",
                "get_log_events",
                logGroupName=group,
                logStreamName=self._stream,
                startFromHead=False,
                limit=100,
            )
        except (BotoCoreError, ClientError) as error:  # progress is a courtesy: the job is looked at all the same
            self.log.debug("%s: its log cannot be read: %s", self.name, error)
            return ""
        return _line(split_log(event["message"] for event in found["events"])[2])

    async def _owner(self) -> str | None:
        if not self._arn and (await self._look())[0]:
            return None
        found = await self._ask(_KILL_PACE, "sagemaker", "list_tags", ResourceArn=self._arn)
        return next((str(tag["Value"]) for tag in found["Tags"] if tag["Key"] == "fmops:owner"), None)

    async def _stop(self) -> None:
        from botocore.exceptions import ClientError

        try:
            await self._ask(_KILL_PACE, "sagemaker", f"stop_{self._kind}_job", **self._job)
        except ClientError as error:
            if error.response["Error"].get("Code") != "ValidationException":
                raise
            self.log.info("%s is over: %s", self.name, error)  # the only reason why the service refuses to stop a job

    @property
    def _job(self) -> dict[str, str]:
        return {f"{self._kind.capitalize()}JobName": self.name}

    async def _describe(self) -> dict[str, Any]:
        found = await self._ask(_PACE, "sagemaker", f"describe_{self._kind}_job", **self._job)
        self._arn = str(found[f"{self._kind.capitalize()}JobArn"])
        return found

    async def _ask(self, pace: _Pace, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        await pace.wait()
        client = await _client(service, self._region)
        answer: dict[str, Any] = await getattr(client, operation)(**arguments)
        return answer


class _Pace:
    """Keeps all triggers of this process together below the service's rate."""

    def __init__(self, per_second: float) -> None:
        self._gap = 1 / per_second
        self._next = 0.0

    async def wait(self) -> None:
        now = time.monotonic()
        turn = max(now, self._next)
        self._next = turn + self._gap
        await asyncio.sleep(turn - now)


_PACE = _Pace(per_second=5)
_LOGS_PACE = _Pace(per_second=5)
_KILL_PACE = _Pace(per_second=20)
"""Of its own: Airflow gives a kill half a minute, and hundreds of tasks may be killed at once."""
_CLIENTS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str | None], asyncio.Task[Any]]]
_CLIENTS = WeakKeyDictionary()
"""Of each event loop, of which a triggerer has one: a client takes a tenth of a second to make, and megabytes."""


async def _client(service: str, region: str | None) -> Any:
    """The loop's client of a service, open as long as the process."""
    clients, key = _CLIENTS.setdefault(asyncio.get_running_loop(), {}), (service, region)
    if key not in clients:  # a task: hundreds of triggers may begin at once, and any of them be cancelled
        clients[key] = asyncio.create_task(_make_client(*key))
    try:
        return await asyncio.shield(clients[key])
    except Exception:
        clients.pop(key, None)  # the next one tries again
        raise


async def _make_client(service: str, region: str | None) -> Any:
    from aiobotocore.config import AioConfig  # type: ignore[import-untyped]
    from aiobotocore.session import get_session  # type: ignore[import-untyped]

    retries = {"mode": "adaptive", "total_max_attempts": 5}
    config = AioConfig(connect_timeout=10, read_timeout=30, retries=retries, user_agent_extra="fmops-airflow")
    return await get_session().create_client(service, region_name=region, config=config).__aenter__()


def _json(file: Path) -> dict[str, Any]:
    """What a file holds; nothing if it is not there. Its writers replace it whole."""
    try:
        return read_json(file.read_bytes())
    except FileNotFoundError:
        return {}


def _line(progress: dict[str, Any]) -> str:
    """A progress record in one line, as include/jobs/progress.py writes it."""
    rest = {name: value for name, value in progress.items() if name not in ("step", "of", "left_s")}
    step = f"step {progress['step']}" if "step" in progress else ""
    step += f" of {progress['of']}" if step and "of" in progress else ""
    figures = [f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in rest.items()]
    left = f"{progress['left_s']} s left" if "left_s" in progress else ""
    return ", ".join(part for part in (step, *figures, left) if part)[:500]
