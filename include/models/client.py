"""One policy for the calls to every remote model: how many at once, how fast, how often again, and until when.

A call is tried again with full jitter (a random wait between nothing and a bound that doubles), as
https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ found best, and never before the server's
own Retry-After. What is tried again is what `connection_errors`, `aws_errors` and `refusal` turn into TransientError.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from include.config import Settings
from include.errors import BusyError, UserError

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

FIRST_WAIT_S = 0.5
"""Bound of the wait before the second attempt; it doubles with each further one."""
LONGEST_WAIT_S = 30.0
"""Where the bound stops doubling: quotas are per minute, so a wait need not be longer to see the next one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """How a remote model may be called; the settings model_* say what each value is for."""

    deadline_s: float
    concurrency: int
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None

    @classmethod
    def of(cls, settings: Settings) -> Policy:
        """The deployment's policy."""
        return cls(
            deadline_s=settings.model_deadline_s,
            concurrency=settings.model_concurrency,
            requests_per_minute=settings.model_requests_per_minute,
            tokens_per_minute=settings.model_tokens_per_minute,
        )

    @property
    def attempt_s(self) -> float:
        """Longest wait for one attempt: a connection that died in silence leaves time for two more."""
        return self.deadline_s / 3


class TransientError(Exception):
    """A call failed in a way that may pass; only the policy sees it."""

    def __init__(
        self, reason: str, kind: Literal["busy", "timeout", "network"], retry_after_s: float | None = None
    ) -> None:
        super().__init__(reason)
        self.kind = kind
        self.retry_after_s = retry_after_s


class Pace:
    """A token bucket that holds one call: each waits until the share of a minute that those before it took is over.

    It can hold no more, so no burst doubles the rate of the first minute; and it is emptied by any amount, so one call
    may take more than a minute's share. It belongs to no event loop: all loops of a process read one clock.
    """

    def __init__(self, per_minute: float | None) -> None:
        self._per_minute = per_minute
        self._free_at = 0.0

    def reserve(self, amount: float, now: float) -> float:
        """Take an amount; returns how long to wait before using it, in seconds."""
        if self._per_minute is None:
            return 0.0
        start = max(now, self._free_at)
        self._free_at = start + amount * 60 / self._per_minute
        return start - now


class Client:
    """Calls one remote model under a policy; its pace holds across calls of map()."""

    def __init__(self, name: str, policy: Policy, *, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self.name = name
        self.policy = policy
        self._uniform = uniform
        self._requests = Pace(policy.requests_per_minute)
        self._tokens = Pace(policy.tokens_per_minute)

    def map(
        self,
        connect: Callable[[], AbstractAsyncContextManager[Callable[[T], Awaitable[R]]]],
        items: Sequence[T],
        *,
        tokens: Callable[[T], int] = lambda _: 0,
    ) -> list[R]:
        """gather() for code that is not asynchronous, also where an event loop is running."""
        work = self.gather(connect, items, tokens=tokens)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return _run(work)
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(_run, work).result()

    async def gather(
        self,
        connect: Callable[[], AbstractAsyncContextManager[Callable[[T], Awaitable[R]]]],
        items: Sequence[T],
        *,
        tokens: Callable[[T], int] = lambda _: 0,
    ) -> list[R]:
        """The results of all items in their order; `connect` is entered once and yields what makes one call.

        A call that raises TransientError is made again until its deadline: then BusyError, TimeoutError or
        ConnectionError. Whatever else it raises ends all at once: calls in flight are cancelled, no more are made.
        `tokens` is what an item counts for tokens_per_minute.
        """
        results: dict[int, R] = {}
        left = iter(enumerate(items))
        async with connect() as call:

            async def work() -> None:
                for number, item in left:
                    results[number] = await self._persist(call, item, tokens(item))

            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self.policy.concurrency, len(items))):
                        group.create_task(work())
            except BaseExceptionGroup as errors:
                failure = errors.exceptions[0]
            else:
                return [results[number] for number in range(len(items))]
        raise failure

    async def _persist(self, call: Callable[[T], Awaitable[R]], item: T, tokens: int) -> R:
        """Make one call until it succeeds, its deadline passes, or it fails for good."""
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(self._turn(tokens, clock()))
        end = clock() + self.policy.deadline_s

        async def attempt() -> R:
            limit = min(end - clock(), self.policy.attempt_s)
            try:
                async with asyncio.timeout(limit):
                    return await call(item)
            except TimeoutError as error:
                raise TransientError(f"no answer in {limit:.3g} s", "timeout") from error

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(TransientError),
            # Another attempt takes its turn like any call.
            wait=lambda state: max(self._wait(state), self._turn(tokens, clock())),
            stop=lambda state: clock() + state.upcoming_sleep >= end,
            sleep=asyncio.sleep,
            before_sleep=self._log,
            reraise=True,
        )
        try:
            return await retrying(attempt)
        except TransientError as error:
            raise self._gave_up(error, retrying.statistics["attempt_number"]) from error

    def _turn(self, tokens: int, now: float) -> float:
        return max(self._requests.reserve(1, now), self._tokens.reserve(tokens, now))

    def _wait(self, state: RetryCallState) -> float:
        """Full jitter, counted from Retry-After if there is one: others were told the same time."""
        error = _failure(state)
        bound = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(state.attempt_number - 1, 30))
        return (error.retry_after_s or 0.0) + self._uniform(0.0, bound)

    def _log(self, state: RetryCallState) -> None:
        again = state.upcoming_sleep
        log.warning("%s: %s (attempt %d); again in %.1f s", self.name, _failure(state), state.attempt_number, again)

    def _gave_up(self, error: TransientError, attempts: int) -> Exception:
        kinds: dict[str, type[Exception]] = {"busy": BusyError, "timeout": TimeoutError, "network": ConnectionError}
        tried = f"{attempts} attempt{'s' if attempts > 1 else ''} within model_deadline_s={self.policy.deadline_s:g}"
        return kinds[error.kind](f"{self.name}: {error}; gave up after {tried}")


def _run(work: Coroutine[Any, Any, R]) -> R:
    # With a factory, Runner leaves the thread's own event loop as it is: it may be somebody else's.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(work)


def _failure(state: RetryCallState) -> TransientError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, TransientError)
    return error


_BUSY_CODES = (
    "ModelNotReadyException",
    "ServiceUnavailableException",
    "SlowDown",
    "ThrottledException",
    "ThrottlingException",
    "TooManyRequestsException",
)
"""AWS sends some of these with a status of 400."""
_BUSY_STATUSES = (429, 503, 529)
_PASSING_STATUSES = (408, 409, 424, 425)
"""A time-out, a conflict, a model that failed on this request, too early; and all from 500 on."""
_OUT_OF_CREDIT = "insufficient_quota"
"""A 429 of OpenAI-compatible servers that no waiting helps."""
_FIXES = {
    401: "check the credentials",
    403: "check the credentials and that they may use this model",
    404: "check the model's name and the server's address",
    413: "send less at once",
}
_MESSAGE_CHARACTERS = 300


def refusal(name: str, status: int, reason: str, headers: Mapping[str, str], code: str = "") -> Exception:
    """What an answer that refuses means: TransientError if it may pass, else UserError that names model and fix.

    The names of `headers` are in lower case; `code` is the service's own name for the refusal, where it has one.
    """
    said = " ".join(f"{status} {code} {reason}".split())[:_MESSAGE_CHARACTERS]
    after = retry_after_s(headers)
    if code in _BUSY_CODES or (status in _BUSY_STATUSES and _OUT_OF_CREDIT not in reason):
        return TransientError(said, "busy", after)
    if status >= 500 or status in _PASSING_STATUSES:
        return TransientError(said, "network", after)
    return UserError(f"{name} refused: {said}: {_FIXES.get(status, 'check what is sent to it')}")


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, given as seconds or as a date; None if it does not say.

    A date is read against the answer's own Date where there is one, as the two machines' clocks may differ.
    """
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.replace(".", "", 1).isdigit():
        return float(value)
    until = _date(value)
    if until is None:
        return None
    return max(0.0, (until - (_date(headers.get("date", "")) or datetime.now(UTC))).total_seconds())


def _date(value: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(value)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


@contextmanager
def connection_errors(name: str) -> Iterator[None]:
    """httpx's errors: a connection that failed may pass; a URL that cannot be asked is the user's."""
    import httpx

    try:
        yield
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
        raise UserError(f"{name} cannot be asked: {error}") from error
    except httpx.TimeoutException as error:
        raise TransientError(type(error).__name__, "timeout") from error
    except (httpx.TransportError, httpx.DecodingError) as error:
        raise TransientError(f"{type(error).__name__}: {error}", "network") from error


@contextmanager
def aws_errors(name: str) -> Iterator[None]:
    """botocore's errors: as connection_errors; no region and no credentials are the user's too."""
    from aiohttp import ClientError as BrokenAnswer
    from botocore import exceptions

    broken = (
        exceptions.ConnectionError,
        exceptions.HTTPClientError,
        exceptions.IncompleteReadError,
        exceptions.ResponseStreamingError,
        BrokenAnswer,
        ConnectionError,
    )
    try:
        yield
    except exceptions.ClientError as error:
        what: Mapping[str, Any] = error.response
        meta, said = what.get("ResponseMetadata", {}), what.get("Error", {})
        status, headers = meta.get("HTTPStatusCode", 0), meta.get("HTTPHeaders", {})
        raise refusal(name, status, said.get("Message", ""), headers, said.get("Code", "")) from error
    except (exceptions.ConnectTimeoutError, exceptions.ReadTimeoutError) as error:
        raise TransientError(type(error).__name__, "timeout") from error
    except broken as error:
        raise TransientError(f"{type(error).__name__}: {error}", "network") from error
    except exceptions.BotoCoreError as error:
        raise UserError(f"{name} cannot be asked: {error}: check AWS_DEFAULT_REGION and the credentials") from error
