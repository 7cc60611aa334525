"""What a name of ours may be, since it becomes part of paths, keys and filters; and what a place's URI begins with."""

from __future__ import annotations

import re

from include.errors import UserError

NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"
SCHEMES = ("file://", "s3://", "memory://")


def checked(field: str, value: str) -> str:
    """The value, if it is a name; UserError with the field and what is allowed otherwise."""
    if not re.fullmatch(NAME, value):
        raise UserError(f"{field}={value!r} is not a name: up to 63 of a-z, 0-9, _ and -, a letter or digit first")
    return value
