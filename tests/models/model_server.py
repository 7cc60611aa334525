"""A server on loopback that embeds as OpenAI-compatible servers and Bedrock do, and that fails and lies as planned."""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

DIMENSION = 1024


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What one request meets instead of its answer, or what is done to the answer."""

    status: int = 200
    code: str = ""
    """AWS's name for a refusal."""
    headers: dict[str, str] = field(default_factory=dict)
    say: bytes | None = None
    """The body, word for word."""
    cut: int | None = None
    """Bytes of the answer that are sent before the connection is closed; Content-Length promises all."""
    stall: bool = False
    """No answer until the test ends: a connection whose other end is gone."""
    reset: bool = False
    spoil: Callable[[list[list[float]]], list[Any]] | None = None
    """Changes the vectors."""
    number: Callable[[int], Any] = lambda place: place
    """The `index` of the vector at a place (OpenAI)."""


THROTTLE = Fault(status=429, code="ThrottlingException")
STALL = Fault(stall=True)


def vector(text: str, dimension: int = DIMENSION) -> list[float]:
    """A text's own vector, of length 1."""
    seed = int.from_bytes(hashlib.sha256(text.encode(errors="replace")).digest()[:8], "big")
    values = np.random.default_rng(seed).standard_normal(dimension)
    return [float(value) for value in values / np.linalg.norm(values)]


class ModelServer(ThreadingHTTPServer):
    """Answers; the next request meets the first of `faults`, and every `period`-th request meets `often`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults: list[Fault] = []
        self.often = THROTTLE
        self.period = 0
        self.dimension = DIMENSION
        self.scale = 1.0
        self.reports_usage = True
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.together = 1
        """Requests are answered only once as many are waiting, or as many as will ever be."""
        self.most_together = 0
        self.released = threading.Event()
        self._waiting = 0
        self._change = threading.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def texts(self) -> list[str]:
        """Every text of every request, in the order in which they came."""
        return [text for body in self.requests for text in texts_of(body)]

    def enter(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> Fault:
        with self._change:
            self.paths.append(path)
            self.headers.append(headers)
            self.requests.append(body)
            number = len(self.requests)
            self._waiting += 1
            self.most_together = max(self.most_together, self._waiting)
            self._change.notify_all()
            self._change.wait_for(lambda: self.most_together >= self.together, timeout=30)
            if self.faults:
                return self.faults.pop(0)
            return self.often if self.period and number % self.period == 0 else Fault()

    def leave(self) -> None:
        with self._change:
            self._waiting -= 1


def texts_of(body: dict[str, Any]) -> list[str]:
    """The texts of a request, in any of the three shapes."""
    return [body["inputText"]] if "inputText" in body else body.get("texts") or body["input"]


class _Handler(BaseHTTPRequestHandler):
    server: ModelServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        names = {name.lower(): value for name, value in self.headers.items()}
        fault = self.server.enter(self.path, names, body)
        try:
            self.meet(fault, body)
        finally:
            self.server.leave()

    def meet(self, fault: Fault, body: dict[str, Any]) -> None:
        if fault.stall:
            self.server.released.wait()
            self.close_connection = True
        elif fault.reset:
            # Closing with nothing left to linger for sends a reset instead of an end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        else:
            self.send(fault, body)

    def send(self, fault: Fault, body: dict[str, Any]) -> None:
        if fault.say is not None:
            data = fault.say
        elif fault.status != 200:
            data = json.dumps({"message": "refused", "error": {"message": "refused"}}).encode()
        else:
            data = json.dumps(self.answer(fault, body)).encode()
        self.send_response_only(fault.status)
        sent = {"Content-Type": "application/json", "Content-Length": str(len(data)), **fault.headers}
        if fault.code:
            sent["x-amzn-ErrorType"] = fault.code
        if self.server.reports_usage and "texts" in body:
            sent["X-Amzn-Bedrock-Input-Token-Count"] = str(10 * len(body["texts"]))
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[: fault.cut])
        self.close_connection = fault.cut is not None

    def answer(self, fault: Fault, body: dict[str, Any]) -> dict[str, Any]:
        server = self.server
        texts = texts_of(body)
        rows: list[Any] = [[server.scale * x for x in vector(text, server.dimension)] for text in texts]
        if fault.spoil:
            rows = fault.spoil(rows)
        usage = {"prompt_tokens": 10 * len(texts), "total_tokens": 10 * len(texts)}
        if "inputText" in body:
            return {"embedding": rows[0], **({"inputTextTokenCount": 10} if server.reports_usage else {})}
        if "texts" in body:
            return {"id": "1", "response_type": "embeddings_by_type", "embeddings": {"float": rows}, "texts": texts}
        data = [{"object": "embedding", "index": fault.number(i), "embedding": row} for i, row in enumerate(rows)]
        return {"object": "list", "data": data, **({"usage": usage} if server.reports_usage else {})}

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def serving() -> Iterator[ModelServer]:
    """A server in a thread of its own; what it holds back is let go when the block ends."""
    with ModelServer() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join()
