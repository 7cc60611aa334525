"""Requests as AWS's clients send them, and answers as they read them."""

from __future__ import annotations

import io
import json
import re
import socket
import urllib.parse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from tests.aws.checks import Refusal

Environ = dict[str, Any]
Start = Callable[..., Any]

CONTROL = "/fmops-aws/"
"""Path of the calls by which a test controls the endpoint."""
JSON = "application/x-amz-json-1.1"
_SCOPE = re.compile(r"Credential=[^/]+/\d+/([^/]+)/([^/]+)/")


@dataclass(frozen=True)
class Asked:
    """What a request asks for."""

    service: str
    """Name under which it is signed."""
    region: str
    operation: str
    """Of S3 and other services whose requests name no call: the HTTP method."""
    values: dict[str, Any]
    protocol: str
    """json, query or rest."""

    @property
    def job(self) -> str:
        """The job that it names, or whose tags it is about."""
        name = self.values.get("TrainingJobName") or self.values.get("ProcessingJobName")
        return str(name or self.values.get("ResourceArn", "").partition("-job/")[2])


@dataclass
class Answer:
    """Status, headers and body."""

    status: int
    headers: list[tuple[str, str]]
    body: list[bytes]


def read(environ: Environ) -> Asked:
    """The call of a request; its body can be read again afterwards."""
    scope = _SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
    region, service = scope.groups() if scope else ("us-east-1", "")
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    if not target and not environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        return Asked(service, region, environ["REQUEST_METHOD"], {}, "rest")
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    if target:
        return Asked(service, region, target.rsplit(".", 1)[-1], json.loads(body or b"{}"), "json")
    values = dict(urllib.parse.parse_qsl(body.decode(), keep_blank_values=True))
    return Asked(service, region, values.get("Action", ""), values, "query")


def refuse(asked: Asked, refusal: Refusal) -> Answer:
    """An error as the service's protocol has it."""
    if asked.protocol == "json":
        said = {"__type": refusal.code, "message": refusal.message}
        return Answer(refusal.status, [("Content-Type", JSON)], [json.dumps(said).encode()])
    error = f"<Code>{escape(refusal.code)}</Code><Message>{escape(refusal.message)}</Message>"
    if asked.protocol == "query":
        text = f"<ErrorResponse><Error>{error}</Error><RequestId>0</RequestId></ErrorResponse>"
    else:
        text = f'<?xml version="1.0" encoding="UTF-8"?><Error>{error}<RequestId>0</RequestId></Error>'
    return Answer(refusal.status, [("Content-Type", "text/xml")], [text.encode()])


def collect(app: Callable[[Environ, Start], Iterable[bytes]], environ: Environ) -> Answer:
    """The whole answer of another application."""
    answer = Answer(500, [], [])

    def start(status: str, headers: list[tuple[str, str]], error: Any = None) -> Callable[[bytes], None]:
        answer.status, answer.headers = int(status.split()[0]), headers
        return answer.body.append

    parts = app(environ, start)
    try:
        answer.body += parts
    finally:
        getattr(parts, "close", lambda: None)()
    return answer


def send(start: Start, answer: Answer) -> list[bytes]:
    start(f"{answer.status} .", answer.headers)
    return answer.body


def hang_up(environ: Environ, start: Start) -> list[bytes]:
    """Close the connection without a byte of an answer."""
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    start("500 .", [])
    return []
