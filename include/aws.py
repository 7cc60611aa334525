"""AWS clients, made in one place: for asyncio, and for a task's own thread."""

from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager
from functools import lru_cache
from typing import Any

from include.errors import UserError

_USER_AGENT = "fmops-airflow"
RETRIES = 5
"""Tries of one call by client(), the first included; the environment's AWS_MAX_ATTEMPTS wins."""


def aws_client(service: str, *, timeout_s: float, connections: int) -> AbstractAsyncContextManager[Any]:
    """A client of one AWS service, to be entered in the event loop that uses it; it never tries a call again by itself.

    Region, credentials and endpoint come from the environment as boto3 reads them, so AWS_ENDPOINT_URL works.
    timeout_s bounds the wait for a connection and for each piece of an answer, in seconds.
    """
    from aiobotocore.config import AioConfig  # type: ignore[import-untyped]
    from aiobotocore.session import get_session  # type: ignore[import-untyped]

    # A session of its own for each client: the locks of its credentials belong to one event loop.
    session = get_session()
    session.register_component("data_loader", _loader())
    config = AioConfig(
        connect_timeout=min(10.0, timeout_s),
        read_timeout=timeout_s,
        retries={"total_max_attempts": 1},
        max_pool_connections=connections,
        user_agent_extra=_USER_AGENT,
    )
    client: AbstractAsyncContextManager[Any] = session.create_client(service, config=config)
    return client


def client(service: str, *, timeout_s: float = 60.0) -> Any:
    """A client of one AWS service that tries again by itself, ever more slowly where the service throttles.

    Region, credentials and endpoint come from the environment as boto3 reads them; UserError if there is no region.
    timeout_s bounds the wait for each piece of an answer, in seconds. One thread uses it, in the process that made it.
    """
    from boto3.session import Session
    from botocore.config import Config

    tries: dict[str, Any] = {} if os.environ.get("AWS_MAX_ATTEMPTS") else {"total_max_attempts": RETRIES}
    config = Config(
        connect_timeout=min(10.0, timeout_s),
        read_timeout=timeout_s,
        retries={"mode": "adaptive", **tries},  # type: ignore[arg-type]
        user_agent_extra=_USER_AGENT,
    )
    make: Any = Session().client  # its stubs want the name of one service each
    return make(service, region_name=region(), config=config)


def region() -> str:
    """The region of all clients, as boto3 finds it; UserError if none is set."""
    from boto3.session import Session

    found = Session().region_name
    if not found:
        raise UserError("no AWS region is set: set AWS_DEFAULT_REGION, or region in the profile of AWS_PROFILE")
    return found


@lru_cache(maxsize=1)
def _loader() -> Any:
    """botocore's descriptions of services: a tenth of a second to read, the same for every client."""
    from botocore.loaders import create_loader

    return create_loader()
