"""A connection to OpenSearch that says by its errors what a second try can help."""

from __future__ import annotations

import logging
import math
import os
import random
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from include.config import Settings
from include.errors import BusyError, UserError

Json = dict[str, Any]

_REQUEST_SECONDS = 60.0
_FIRST_WAIT_SECONDS = 0.25
_LONGEST_WAIT_SECONDS = 30.0
_REASON_CHARACTERS = 300


class TransientError(Exception):
    """What a second try of the same request may help: load, a restart, the network, an answer that broke off."""

    def __init__(self, reason: str, kind: type[Exception] = BusyError) -> None:
        super().__init__(reason)
        self.kind = kind
        """What it is called when no try is left."""


class AnswerError(RuntimeError):
    """OpenSearch refused a request; a second try cannot help."""

    def __init__(self, status: int, kind: str, reason: str) -> None:
        super().__init__(f"OpenSearch answered {status} {kind}: {reason}"[:_REASON_CHARACTERS])
        self.status, self.kind = status, kind


class Deadline:
    """The time that one request may take with all its tries; waits between them have full jitter."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._until = time.monotonic() + seconds
        self._tries = 0

    def left(self) -> float:
        """Seconds, none negative."""
        return max(0.0, self._until - time.monotonic())

    def wait(self, error: TransientError) -> None:
        """Wait before the next try, longer each time; what the error is called at last if none is left."""
        ceiling = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2**self._tries)
        self._tries += 1
        # Exponential backoff with full jitter: clients that failed together do not return together.
        pause = random.uniform(0, ceiling)  # noqa: S311
        if pause >= self.left():
            raise error.kind(
                f"OpenSearch: {error}; given up after {self.seconds:g} s (at most opensearch_deadline_s)"
            ) from None
        time.sleep(pause)


class Client:
    """Sends requests; what opensearch-py raises comes out as errors of include/errors.py, without secrets."""

    def __init__(self, settings: Settings) -> None:
        from opensearchpy import Transport

        self.url = checked_url(settings)
        self._deadline_s = settings.opensearch_deadline_s
        # It logs every request, and each failure with its traceback although another try follows.
        logging.getLogger("opensearch").setLevel(logging.CRITICAL)
        place = urlsplit(self.url)
        tls = place.scheme == "https"
        self._transport = Transport(
            [{"host": place.hostname, "port": place.port or (443 if tls else 80), "url_prefix": place.path}],
            connection_class=_connection_class(),
            max_retries=0,  # ask() retries, within a time instead of by number
            pool_maxsize=settings.opensearch_concurrency,
            use_ssl=tls,
            verify_certs=True,
            ca_certs=settings.opensearch_ca_file,
            http_auth=_sign_in(settings),
            http_compress=True,
            timeout=_REQUEST_SECONDS,
        )

    def deadline(self, at_most: float = math.inf) -> Deadline:
        """That of a request which begins now, and may take so many seconds."""
        return Deadline(min(self._deadline_s, at_most))

    def ask(self, method: str, path: str, body: Json | None = None, at_most: float = math.inf) -> Json:
        """The answer to a request that may be sent twice; tried until the deadline.

        Raises AnswerError, PermissionError, or what the last TransientError stands for.
        """
        deadline = self.deadline(at_most)
        while True:
            try:
                answer = self.send(method, path, body, deadline)
                if not _is_whole(path, answer):
                    raise TransientError("not every shard answered")
            except TransientError as error:
                deadline.wait(error)
            else:
                return answer

    def send(self, method: str, path: str, body: Json | bytes | None, deadline: Deadline) -> Json:
        """One try, of at most a fourth of the whole time, so that a stalled server leaves some for others."""
        from opensearchpy import exceptions

        timeout = max(1.0, min(_REQUEST_SECONDS, deadline.seconds / 4, deadline.left()))
        try:
            answer = self._transport.perform_request(method, path, body=body, timeout=timeout)
        except exceptions.ConnectionTimeout:
            raise TransientError(f"no answer within {timeout:.3g} s", TimeoutError) from None
        except exceptions.SSLError as error:
            raise UserError(f"{self.url} is not trusted: {_line(error.info)}; see FMOPS_OPENSEARCH_CA_FILE") from None
        except exceptions.ConnectionError as error:
            raise TransientError(f"no connection: {_line(error.info)}", ConnectionError) from None
        except exceptions.SerializationError:
            raise TransientError("the answer was not JSON, or broke off") from None
        except exceptions.TransportError as error:
            raise self._refused(error) from None
        if not isinstance(answer, dict):
            raise TransientError("the answer was not a JSON object")
        return answer

    def _refused(self, error: Any) -> Exception:
        status, info = int(error.status_code), error.info
        told = info.get("error", {}) if isinstance(info, dict) else {}
        cause = told if isinstance(told, dict) else {"reason": told}
        cause = (cause.get("root_cause") or [cause])[0]  # above it often stands "all shards failed"
        kind, reason = str(cause.get("type", "")), _reason(cause)
        is_too_long = "clause" in f"{kind} {reason}".lower()  # of a query; some releases answer 500 to it, for ever
        if status == 429 or (status >= 500 and not is_too_long):
            return TransientError(f"{status} {kind}".strip())
        if status in (401, 403) and kind != "cluster_block_exception":
            return PermissionError(f"{self.url} refused the sign-in ({status}): see FMOPS_OPENSEARCH_AUTH")
        return AnswerError(status, kind, reason)


def checked_url(settings: Settings) -> str:
    """Where OpenSearch is; UserError if the settings do not say, or say it in a way that would show a secret."""
    if not settings.opensearch_url:
        raise UserError("store 'opensearch' needs FMOPS_OPENSEARCH_URL, such as http://localhost:9200")
    url = settings.opensearch_url.rstrip("/")
    try:
        place = urlsplit(url)
        whole = place.scheme in ("http", "https") and bool(place.hostname) and (place.port is None or place.port > 0)
    except ValueError:
        whole = False
    if not whole or "@" in url or "?" in url or "#" in url:
        raise UserError(
            "FMOPS_OPENSEARCH_URL must be http://HOST:PORT or https://HOST without user, password or query; "
            "user and password are FMOPS_OPENSEARCH_USER and FMOPS_OPENSEARCH_PASSWORD"
        )
    return url


def _is_whole(path: str, answer: Json) -> bool:
    """Whether every shard did its part: a search answers 200 with fewer hits where one is being recovered."""
    shards = answer.get("_shards", {})
    lacking = path.endswith("/_search") and shards.get("successful", 0) < shards.get("total", 1)
    return not (shards.get("failed") or lacking)


def item_reason(error: Any) -> str:
    """What a bulk answer says of one item, on one line."""
    return f"{error.get('type', '')}: {_reason(error)}" if isinstance(error, dict) else _line(error)


def _reason(cause: Mapping[str, Any]) -> str:
    below = cause.get("caused_by")
    deeper = f": {_reason(below)}" if isinstance(below, dict) else ""
    return _line(f"{cause.get('reason', '')}{deeper}")


def _line(said: object) -> str:
    return " ".join(str(said).split())[:_REASON_CHARACTERS]


def _connection_class() -> type[Any]:
    import gzip

    from opensearchpy import Urllib3HttpConnection

    class Connection(Urllib3HttpConnection):
        """Compresses at level 1: level 9, the library's own, takes longer than the network does."""

        def _gzip_compress(self, body: bytes) -> bytes:
            return gzip.compress(body, compresslevel=1)

    return Connection


def _sign_in(settings: Settings) -> Any:
    if settings.opensearch_auth == "none":
        return None
    if settings.opensearch_auth == "basic":
        password = settings.opensearch_password.get_secret_value()
        if not settings.opensearch_user or not password:
            raise UserError(
                "opensearch_auth='basic' needs FMOPS_OPENSEARCH_USER and FMOPS_OPENSEARCH_PASSWORD; one is empty"
            )
        return settings.opensearch_user, password
    import boto3
    from opensearchpy import Urllib3AWSV4SignerAuth

    session = boto3.Session()
    credentials, region = session.get_credentials(), os.environ.get("AWS_REGION") or session.region_name
    if credentials is None or not region:
        lacking = "credentials" if credentials is None else "AWS_DEFAULT_REGION"
        raise UserError(f"opensearch_auth='sigv4' needs AWS {lacking} in the environment; there is none")
    return Urllib3AWSV4SignerAuth(credentials, region, settings.opensearch_service)
