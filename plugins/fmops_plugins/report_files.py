"""Reading a report: HTML files below the storage root, and nothing else, whatever a URI says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

from fmops_plugins.answers import PageError

MAX_BYTES = 20_000_000
"""Largest report shown, in bytes; it is held in memory while it is sent."""


def read_report(uri: str, root: str) -> bytes:
    """The report at a file:// or s3:// URI below the root.

    PageError: 403 for anything but an HTML file below the root, 404 if it is not there, 502 if it cannot be read.
    """
    if not uri.endswith(".html") or ".." in uri.split("/") or not uri.isprintable():
        _refuse(uri)
    try:
        if uri.startswith("file://") and root.startswith("file://"):
            data = _read_file(uri, root)
        elif uri.startswith("s3://") and uri.startswith(f"{root}/"):
            data = _read_s3(uri)
        else:
            _refuse(uri)
    except FileNotFoundError:
        raise PageError(404, f"There is no report at {uri}: it was not written, or removed since.") from None
    except OSError as error:
        raise PageError(502, f"The report at {uri} cannot be read: {error}") from None
    if len(data) > MAX_BYTES:
        raise PageError(502, f"The report at {uri} is larger than {MAX_BYTES} bytes, the most that is shown.")
    return data


def _refuse(uri: str) -> NoReturn:
    raise PageError(403, f"{uri!r} is not an HTML file below the storage root, so it is not shown.")


def _read_file(uri: str, root: str) -> bytes:
    """Links are followed first: what they lead to has to lie below the root too."""
    base, path = (Path(os.path.realpath(place.removeprefix("file://"))) for place in (root, uri))
    if not path.is_relative_to(base) or path.suffix != ".html":
        _refuse(uri)
    if path.exists() and not path.is_file():  # a pipe would never end
        _refuse(uri)
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _read_s3(uri: str) -> bytes:
    """Credentials, region and endpoint come from the environment, as for the tasks."""
    from botocore.exceptions import BotoCoreError
    from upath import UPath

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    patience = {"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": 1}}  # somebody waits
    try:
        with UPath(uri, endpoint_url=endpoint, use_listings_cache=False, config_kwargs=patience).open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except BotoCoreError as error:  # no credentials, no connection
        raise OSError(str(error)) from error
