"""AWS clients for asyncio, made in one place."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from functools import lru_cache
from typing import Any


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
        user_agent_extra="fmops-airflow",
    )
    client: AbstractAsyncContextManager[Any] = session.create_client(service, config=config)
    return client


@lru_cache(maxsize=1)
def _loader() -> Any:
    """botocore's descriptions of services: a tenth of a second to read, the same for every client."""
    from botocore.loaders import create_loader

    return create_loader()
