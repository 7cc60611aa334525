"""Bulk writes: several requests in flight, the result of every item read, and each sent again until it is settled.

A bulk request answers 200 although items of it failed. What was refused for load is sent again by itself; what
OpenSearch calls wrong is named; anything else is an error. A request whose answer was lost is sent again whole, which
is harmless where items carry their ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from include.rag.stores.opensearch_client import AnswerError, Client, Deadline, Json, TransientError, item_reason

_TRY_AGAIN = (409, 429)  # and all from 500 on: the item was not at fault


@dataclass(frozen=True, slots=True)
class Item:
    """One line of a bulk request, or two."""

    doc_id: str
    lines: bytes
    """Each with its line feed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How large a bulk request may be, and how many are in flight."""

    num_bytes: int
    num_items: int
    num_requests: int


@dataclass(slots=True)
class Outcome:
    """What became of items, each with the document that it belongs to."""

    written: list[tuple[str, str]] = field(default_factory=list)
    """And the `_id` that it has; of an answer that was lost nothing is known."""
    refused: list[tuple[str, str]] = field(default_factory=list)
    """And why OpenSearch called it wrong, on one line."""

    def add(self, other: Outcome) -> None:
        """Take over what another says."""
        self.written += other.written
        self.refused += other.refused


def send_all(client: Client, index: str, items: Iterable[Item], limits: Limits) -> Outcome:
    """Write all items but those that OpenSearch calls wrong.

    Raises BusyError, TimeoutError or ConnectionError if a request was not taken within its deadline, AnswerError or
    PermissionError if the fault lies in no item; some items are written then.
    """
    outcome = Outcome()
    with ThreadPoolExecutor(limits.num_requests, thread_name_prefix="opensearch-bulk") as threads:
        running: set[Future[Outcome]] = set()
        try:
            for batch in _batches(items, limits):
                running.add(threads.submit(_settle, client, index, batch))
                if len(running) >= limits.num_requests:  # so that no more bodies are made than are sent
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        outcome.add(future.result())
            for future in running:
                outcome.add(future.result())
        finally:
            for future in running:
                future.cancel()
    return outcome


def _batches(items: Iterable[Item], limits: Limits) -> Iterator[list[Item]]:
    batch: list[Item] = []
    size = 0
    for item in items:
        if batch and (len(batch) >= limits.num_items or size + len(item.lines) > limits.num_bytes):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += len(item.lines)
    if batch:
        yield batch


def _settle(client: Client, index: str, items: Sequence[Item]) -> Outcome:
    """Send some items until each is written or refused; a request that is too large is sent in halves."""
    deadline, outcome = client.deadline(), Outcome()
    waiting = [list(items)]
    while waiting:
        batch = waiting.pop()
        try:
            again = _send(client, index, batch, deadline, outcome)
            if again:
                waiting.append(again)
                deadline.wait(TransientError(f"{len(again)} of {len(batch)} items were refused for load"))
        except AnswerError as error:
            if error.status != 413:
                raise
            if len(batch) == 1:
                too_large = f"one chunk of {len(batch[0].lines)} bytes is more than OpenSearch takes"
                outcome.refused.append((batch[0].doc_id, too_large))
            else:
                middle = len(batch) // 2
                waiting += [batch[middle:], batch[:middle]]
        except TransientError as error:
            waiting.append(batch)
            deadline.wait(error)
    return outcome


def _send(client: Client, index: str, batch: list[Item], deadline: Deadline, outcome: Outcome) -> list[Item]:
    """One try; returns the items to send again."""
    answer = client.send("POST", f"/{index}/_bulk", b"".join(item.lines for item in batch), deadline)
    results = answer.get("items")
    if not isinstance(results, list) or len(results) != len(batch):
        raise TransientError("the answer names another number of items than were sent")
    again: list[Item] = []
    for item, result in zip(batch, results, strict=True):
        ((action, said),) = result.items()
        status = int(said["status"])
        if status < 300 or (action == "delete" and status == 404):
            outcome.written.append((item.doc_id, said["_id"]))
        elif status in _TRY_AGAIN or status >= 500:
            again.append(item)
        elif status == 400:
            outcome.refused.append((item.doc_id, item_reason(said.get("error"))))
        else:
            raise _stopped(status, said)
    return again


def _stopped(status: int, said: Json) -> Exception:
    """What ends the write: no item is at fault, so that none may be set aside for it."""
    reason = item_reason(said.get("error"))
    if status in (401, 403):
        return PermissionError(f"OpenSearch refused to write ({status}): {reason}")
    return AnswerError(status, "in a bulk answer", reason)
