"""How a local job ended: status.json in its folder, which appears once, whole, and never changes.

Its supervisor and those who find the heartbeat silent may both want to decide. Each has its verdict in a file of its
own, and the first to link it as status.json has decided. The standard library alone: the supervisor imports it too.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

STATUS = "status.json"
ROOM, ROOM_BYTES = "status.room", 4096
"""Room on the disk that is taken before the job starts: a full disk must not hide how it ended."""
LOST = "lost.json"
"""The verdict that the job is lost, written before it starts."""
MESSAGE_CHARACTERS = 1000


def verdict(state: str, cause: str | None, message: str, **more: Any) -> dict[str, Any]:
    """A verdict; the message is made one line."""
    message = " ".join(message.split())[:MESSAGE_CHARACTERS]
    return {"schema_version": 1, "state": state, "cause": cause, "message": message, **more}


def is_decided(folder: Path) -> bool:
    """Whether the job is over, whatever its processes know of it."""
    return (folder / STATUS).exists()


def decide(folder: Path, found: dict[str, Any], room: str) -> bool:
    """Make this the verdict, unless there is one; whether it was made.

    The file `room` is this caller's alone. Where it stands already it is written over in place, which needs no more
    room on the disk.
    """
    text = json.dumps(found)
    if len(text) > ROOM_BYTES:  # a message in another script takes six bytes for a letter
        text = json.dumps(found | {"message": found["message"][:300]})
    descriptor = os.open(folder / room, os.O_WRONLY | os.O_CREAT, 0o644)
    with open(descriptor, "wb") as file:  # noqa: PTH123 (a descriptor: Path.open would empty the file)
        file.write(text.encode().ljust(ROOM_BYTES))
        file.flush()
        os.fsync(descriptor)
    return _link(folder / room)


def decide_lost(folder: Path) -> bool:
    """Make it lost, unless there is a verdict; whether it was made. Needs no room on the disk."""
    return _link(folder / LOST)


def _link(file: Path) -> bool:
    try:
        os.link(file, file.with_name(STATUS))
    except FileExistsError:
        return False
    return True
