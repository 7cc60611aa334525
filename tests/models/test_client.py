"""The policy for remote models, on an event loop whose clock jumps: hours of waiting in no time, always the same."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.config import load_settings
from include.errors import BusyError, EmbeddingError, UserError
from include.models import client as client_module
from include.models.client import Client, Pace, Policy, TransientError, refusal, retry_after_s


class JumpingLoop(asyncio.SelectorEventLoop):
    """Where nothing is ready, the time of the next timer is now."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 1000.0
        self._select = self._selector.select  # type: ignore[attr-defined]
        self._selector.select = self._jump  # type: ignore[attr-defined]

    def time(self) -> float:
        return self._now

    def _jump(self, timeout: float | None) -> Any:
        if timeout:
            self._now += timeout
        return self._select(0 if timeout is not None else None)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(work)


def now() -> float:
    return asyncio.get_running_loop().time() - 1000.0


def connected(call: Callable[[Any], Awaitable[Any]]) -> Any:
    @asynccontextmanager
    async def connect() -> AsyncIterator[Callable[[Any], Awaitable[Any]]]:
        yield call

    return connect


def make(**values: Any) -> Client:
    """A client whose waits are always the longest that they can be."""
    return Client("model m", Policy(**{"deadline_s": 300, "concurrency": 4} | values), uniform=lambda _, high: high)


class Failing:
    """Raises its errors one after the other, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.times: list[float] = []

    async def __call__(self, item: Any) -> Any:
        self.times.append(now())
        if self.errors:
            raise self.errors.pop(0)
        return item


def busy(after: float | None = None) -> TransientError:
    return TransientError("429", "busy", after)


def test_the_settings_make_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMOPS_MODEL_DEADLINE_S", "30")
    monkeypatch.setenv("FMOPS_MODEL_CONCURRENCY", "2")
    monkeypatch.setenv("FMOPS_MODEL_TOKENS_PER_MINUTE", "5000")
    policy = Policy.of(load_settings())
    assert policy == Policy(deadline_s=30, concurrency=2, requests_per_minute=None, tokens_per_minute=5000)
    assert policy.attempt_s == 10


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 50)), st.integers(1, 9))
def test_results_come_in_the_order_of_the_items_and_no_more_are_in_flight_than_allowed(
    seconds: list[float], concurrency: int
) -> None:
    flying, most = 0, 0

    async def call(item: tuple[int, float]) -> int:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        await asyncio.sleep(item[1])
        flying -= 1
        return item[0]

    items = list(enumerate(seconds))
    assert run(make(concurrency=concurrency).gather(connected(call), items)) == list(range(len(seconds)))
    assert most == min(concurrency, len(seconds))


def test_the_waits_double_up_to_a_bound() -> None:
    call = Failing(*[busy()] * 9)
    run(make().gather(connected(call), ["x"]))
    waits = [after - before for before, after in zip(call.times, call.times[1:], strict=False)]
    assert waits == pytest.approx([0.5, 1, 2, 4, 8, 16, 30, 30, 30])


def test_jitter_is_full_and_comes_from_the_given_source() -> None:
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return 0.25 * high

    call = Failing(busy(), busy(), TransientError("reset", "network"))
    client = Client("model m", Policy(deadline_s=300, concurrency=1), uniform=uniform)
    run(client.gather(connected(call), ["x"]))
    assert asked == [(0.0, 0.5), (0.0, 1.0), (0.0, 2.0)]
    assert call.times == pytest.approx([0, 0.125, 0.375, 0.875])


def test_the_waits_of_many_clients_spread_over_all_of_the_range() -> None:
    waits = []
    for _ in range(300):
        call = Failing(busy())
        run(Client("model m", Policy(deadline_s=300, concurrency=1)).gather(connected(call), ["x"]))
        waits.append(call.times[1] / 0.5)
    # Each tenth expects 30 of 300; fewer than 5 comes less than once in ten million times.
    assert all(sum(low <= 10 * wait < low + 1 for wait in waits) >= 5 for low in range(10))


def test_retry_after_is_waited_out_before_the_jitter() -> None:
    call = Failing(busy(20), busy(7))
    run(make().gather(connected(call), ["x"]))
    assert call.times == pytest.approx([0, 20.5, 28.5])


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (busy(), BusyError),
        (TransientError("500", "network"), ConnectionError),
        (TransientError("", "timeout"), TimeoutError),
    ],
)
def test_at_the_deadline_the_last_failure_decides_the_error(error: TransientError, raised: type[Exception]) -> None:
    call = Failing(*[error] * 99)
    with pytest.raises(raised, match=r"model m: .*; gave up after 6 attempts within model_deadline_s=20") as found:
        run(make(deadline_s=20).gather(connected(call), ["x"]))
    assert call.times == pytest.approx([0, 0.5, 1.5, 3.5, 7.5, 15.5])
    assert found.value.__cause__ is error


def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    async def work() -> float:
        with pytest.raises(BusyError, match="gave up after 1 attempt within"):
            await make(deadline_s=60).gather(connected(Failing(busy(60))), ["x"])
        return now()

    assert run(work()) == 0


def test_an_attempt_without_an_answer_is_cut_off_and_tried_again() -> None:
    starts: list[float] = []

    async def call(item: str) -> str:
        starts.append(now())
        if len(starts) < 3:
            await asyncio.Event().wait()
        return item

    assert run(make(deadline_s=30).gather(connected(call), ["x"])) == ["x"]
    assert starts == pytest.approx([0, 10.5, 21.5])


def test_no_attempt_outlives_the_deadline() -> None:
    ends: list[float] = []

    async def call(item: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ends.append(now())

    with pytest.raises(TimeoutError, match="no answer in 8.5 s; gave up after 3 attempts"):
        run(make(deadline_s=30).gather(connected(call), ["x"]))
    assert ends == pytest.approx([10, 20.5, 30])


@pytest.mark.parametrize("error", [UserError("wrong"), EmbeddingError("lies"), KeyError("bug")])
def test_what_no_retry_helps_is_raised_at_once_and_ends_the_rest(error: Exception) -> None:
    started: list[int] = []
    cancelled: list[int] = []

    async def call(item: int) -> None:
        started.append(item)
        if item == 2:
            raise error
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(item)
            raise

    async def work() -> float:
        with pytest.raises(type(error)) as found:
            await make(concurrency=3).gather(connected(call), range(100))
        assert found.value is error
        return now()

    assert run(work()) == 0
    assert started == [0, 1, 2], "no other item is begun"
    assert sorted(cancelled) == [0, 1]


def test_one_that_waits_for_its_next_attempt_is_cancelled_too() -> None:
    async def call(item: int) -> None:
        if item == 0:
            raise busy(250)
        await asyncio.sleep(1)
        raise UserError("wrong")

    async def work() -> float:
        with pytest.raises(UserError):
            await make().gather(connected(call), range(2))
        return now()

    assert run(work()) == 1


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.floats(1, 600), st.integers(1, 8))
def test_calls_start_at_the_pace_and_no_minute_holds_more(number: int, per_minute: float, concurrency: int) -> None:
    call = Failing()
    client = make(concurrency=concurrency, requests_per_minute=per_minute)
    run(client.gather(connected(call), range(number)))
    assert call.times == pytest.approx([n * 60 / per_minute for n in range(number)])
    assert all(sum(start <= t < start + 59.999 for t in call.times) <= per_minute + 1 for start in call.times)


def test_tokens_are_paced_and_one_call_may_take_more_than_a_minutes_share() -> None:
    call = Failing()
    client = make(concurrency=1, tokens_per_minute=100)
    run(client.gather(connected(call), [50, 300, 10, 10], tokens=lambda item: item))
    assert call.times == pytest.approx([0, 30, 210, 216])


def test_another_attempt_takes_its_turn_and_a_turn_beyond_the_deadline_ends_the_call() -> None:
    call = Failing(busy())
    run(make(requests_per_minute=2).gather(connected(call), ["x"]))
    assert call.times == pytest.approx([0, 30])
    with pytest.raises(BusyError):
        run(make(requests_per_minute=2, deadline_s=20).gather(connected(Failing(busy())), ["x"]))


def test_the_deadline_of_a_call_begins_with_its_turn() -> None:
    call = Failing()
    assert run(make(deadline_s=10, requests_per_minute=1).gather(connected(call), range(30))) == list(range(30))


def test_the_pace_holds_from_one_loop_to_the_next() -> None:
    pace = Pace(60)
    assert [pace.reserve(1, 5.0), pace.reserve(1, 5.0), pace.reserve(1, 5.5), pace.reserve(1, 99.0)] == [0, 1, 1.5, 0]
    assert [Pace(None).reserve(1000, 0.0) for _ in range(3)] == [0, 0, 0]
    client = make(requests_per_minute=60)
    calls = [Failing(), Failing()]
    for call in calls:
        run(client.gather(connected(call), range(2)))
    assert [call.times for call in calls] == [pytest.approx([0, 1]), pytest.approx([2, 3])]


def test_it_works_where_an_event_loop_runs_and_leaves_no_thread_behind() -> None:
    threads: set[threading.Thread] = set()

    async def call(item: int) -> int:
        threads.add(threading.current_thread())
        return item * 2

    client = make()
    before = threading.active_count()
    assert client.map(connected(call), range(5)) == [0, 2, 4, 6, 8]
    assert threads == {threading.current_thread()}

    async def task() -> list[int]:
        return client.map(connected(call), range(5))

    assert asyncio.run(task()) == [0, 2, 4, 6, 8]
    assert threading.active_count() == before


def test_the_threads_own_event_loop_is_left_alone() -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        make().map(connected(Failing()), [])
        assert asyncio.get_event_loop() is loop
    finally:
        asyncio.set_event_loop(None)
        loop.close()


@pytest.mark.parametrize("code", client_module._BUSY_CODES)
def test_a_throttle_by_name_is_one_whatever_its_status(code: str) -> None:
    error = refusal("m", 400, "slow down", {}, code)
    assert isinstance(error, TransientError)
    assert error.kind == "busy"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(429, "busy"), (503, "busy"), (529, "busy"), (500, "network"), (502, "network"), (504, "network"),
     (408, "network"), (409, "network"), (424, "network"), (425, "network")],
)  # fmt: skip
def test_a_status_that_may_pass(status: int, kind: str) -> None:
    error = refusal("m", status, "x", {"retry-after": "3"})
    assert isinstance(error, TransientError)
    assert (error.kind, error.retry_after_s) == (kind, 3)


@pytest.mark.parametrize(
    ("status", "fix"),
    [(400, "what is sent"), (401, "credentials"), (403, "may use this model"), (404, "the model's name"),
     (413, "less at once"), (422, "what is sent"), (301, "what is sent")],
)  # fmt: skip
def test_a_status_that_stays_names_model_and_fix_in_one_line(status: int, fix: str) -> None:
    error = refusal("model m", status, "a\nb" + "c" * 999, {})
    assert isinstance(error, UserError)
    assert str(error).startswith(f"model m refused: {status} a bccc")
    assert fix in str(error)
    assert len(str(error)) < 500


def test_an_account_without_credit_is_not_waited_for() -> None:
    assert isinstance(refusal("m", 429, '{"error": {"code": "insufficient_quota"}}', {}), UserError)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "12"}, 12),
        ({"retry-after": " 0.5 "}, 0.5),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT", "date": "Wed, 21 Oct 2026 07:27:30 GMT"}, 30),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT", "date": "Wed, 21 Oct 2026 08:00:00 GMT"}, 0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "."}, None),
        ({"retry-after": "Wed, 99 Oct 2026 07:28:00 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT", "date": "when it rained"}, ...),
    ],
)
def test_retry_after_is_seconds_or_a_date_or_nothing(headers: dict[str, str], seconds: Any) -> None:
    found = retry_after_s(headers)
    assert found is not None and found >= 0 if seconds is ... else found == seconds


@given(st.text(max_size=40))
def test_any_retry_after_is_read_or_ignored(value: str) -> None:
    found = retry_after_s({"retry-after": value})
    assert found is None or 0 <= found
