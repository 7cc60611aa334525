"""What the page of a job shows, wherever the job runs; every text in it is as somebody else wrote it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeGuard

NAME = re.compile(r"[a-z0-9-]{1,80}-g[0-9]{1,3}")
"""Of a job of ours: name, digest and generation."""
OVER = ("succeeded", "failed", "stopped")
NUM_LINES = 200
"""Last lines of the log that are shown."""
LINE_CHARACTERS = 2000
PROGRESS = "fmops-progress "
"""What a line of the log begins with if it tells progress, as JSON: see include/jobs/harness.py."""
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True, kw_only=True, slots=True)
class JobView:
    """What is known of a job now."""

    name: str
    state: str
    """starting, running, stopping, succeeded, failed, stopped; unknown if who runs it does not answer."""
    cause: str = ""
    message: str = ""
    """One line: why it failed, or what it does now."""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    billed_s: float = 0.0
    """Instance seconds."""
    machine: str = ""
    """Instance type, or host."""
    owner: str = ""
    """The task instance that may stop it."""
    tags: dict[str, str] = field(default_factory=dict)
    output_uri: str = ""
    progress: dict[str, Any] = field(default_factory=dict)
    """What the script told last: `step`, `of`, `left_s` and figures such as `loss`."""
    told_at: datetime | None = None
    """When it told that."""
    lines: list[str] = field(default_factory=list)
    """The end of its log, without lines of progress."""
    log_problem: str = ""
    """Why there is no log, in one line."""

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in OVER

    @property
    def steps(self) -> tuple[float, float] | None:
        """Steps done and to do; None if the script did not tell both, or no such numbers."""
        step, of = self.progress.get("step"), self.progress.get("of")
        if not is_number(step) or not is_number(of) or not 0 <= step <= of or of == 0:
            return None
        return float(step), float(of)

    def left_s(self, now: datetime) -> float | None:
        """Seconds until the last step, by what the harness reckoned when it told; None if that is not known."""
        left = self.progress.get("left_s")
        if self.is_over or self.told_at is None or not is_number(left):
            return None
        return max(0.0, float(left) - (now - self.told_at).total_seconds())


def read_json(text: str | bytes) -> dict[str, Any]:
    """The object that a text holds; empty if it holds none."""
    try:
        found = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def split_log(lines: Iterable[str]) -> tuple[list[str], int | None, dict[str, Any]]:
    """The last lines without those of progress; index and content of the last one of progress, if there is one."""
    kept, last, progress = [], None, {}
    for index, line in enumerate(lines):
        if told := read_json(line.partition(PROGRESS)[2]):
            last, progress = index, told
        else:
            kept.append(line)
    return [_plain(line) for line in kept[-NUM_LINES:]], last, progress


def read_time(text: Any) -> datetime | None:
    """An ISO time, taken as UTC if it does not say; None if it is none."""
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError):
        return None


def one_line(text: Any) -> str:
    """A text, or nothing for None, in one line of bounded length."""
    if text is None:
        return ""
    encodable = str(text)[:LINE_CHARACTERS].encode("utf-8", "replace").decode()  # JSON can hold halves of letters
    return " ".join(encodable.split())


def is_number(value: Any) -> TypeGuard[float]:
    """Whether JSON holds a number there that can be reckoned with and shown as one."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15


def _plain(line: str) -> str:
    """A line as a terminal would leave it, of bounded length: colours gone, of a bar drawn over itself the last state.

    What else cannot be printed is replaced: it could make a line look like another.
    """
    last = _ESCAPES.sub("", line.rstrip("\r\n").rpartition("\r")[2][:LINE_CHARACTERS])
    return "".join(letter if letter.isprintable() or letter == "\t" else "\ufffd" for letter in last)


def _refuse(constant: str) -> None:
    raise ValueError(constant)
