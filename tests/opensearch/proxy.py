"""A proxy in front of an OpenSearch that fails by plan, and counts what it did.

What it refuses it does not forward, so that it truly is not written; what it truncates or stalls was written.
"""

from __future__ import annotations

import gzip
import http.client
import json
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

Fault = str | Callable[[], None]
"""`truncate`, `garble`, `partial`, `stall`, `drop`, a status such as `503`, or what to do before forwarding."""


class Proxy:
    """Forwards to `upstream` until told otherwise; its `url` is on loopback. Use as a context manager."""

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream)
        self.counts: Counter[str] = Counter()
        self.bulk_faults: dict[int, Fault] = {}
        """By the number of the bulk request, from 1."""
        self.faults: list[Fault] = []
        """Of the next requests that are no bulk requests, one each."""
        self.throttled: dict[str, int] = {}
        """Chunk id -> how often its item is answered by 429 before it is let through; -1: always."""
        self.rejected: set[str] = set()
        """Chunk ids whose items are answered by 400."""
        self.largest_body: int | None = None
        """Bytes of a request, as they travel, above which it is answered by 413."""
        self.stall_seconds = 0.0
        self.is_serverless = False
        """Refuses ids of the client's, refresh, load settings and engine lucene, which it uses itself."""
        self.refreshes = True
        """Serverless only: whether each write is visible at once. show() makes it so later."""
        self.requests: list[tuple[str, str, Mapping[str, str]]] = []
        """Method, path and headers of each."""
        self.bodies: list[bytes] = []
        """Of bulk requests, as they travelled."""
        self.lock = threading.Lock()
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._stopped = threading.Event()

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()

    def use_tls(self, context: ssl.SSLContext) -> None:
        """Speak HTTPS; before it is entered."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://localhost:{self._server.server_port}"

    def stall(self) -> None:
        """Until the time is over, or the test is."""
        self._stopped.wait(self.stall_seconds)

    def forward(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> tuple[int, bytes]:
        """Ask the server itself; ConnectionError or OSError if it does not answer."""
        connection = http.client.HTTPConnection(self.upstream.hostname or "", self.upstream.port or 9200, timeout=120)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json", **headers})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from None
        finally:
            connection.close()

    def show(self, index: str) -> None:
        """Make what was written visible, as serverless does in its own time."""
        self.forward("POST", f"/{index}/_refresh", {}, None)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, proxy: Proxy) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    @property
    def proxy(self) -> Proxy:
        return self.server.proxy

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        sent = self.rfile.read(length)
        is_bulk = self.path.split("?")[0].endswith("/_bulk")
        with self.proxy.lock:
            self.proxy.requests.append((self.command, self.path, dict(self.headers)))
            fault = _next_fault(self.proxy, is_bulk)
            if is_bulk:
                self.proxy.bodies.append(sent)
        body = gzip.decompress(sent) if self.headers.get("Content-Encoding") == "gzip" else sent
        too_large = self.proxy.largest_body is not None and length > self.proxy.largest_body
        self._answer_with("413" if too_large else fault, body, is_bulk)

    do_POST = do_PUT = do_DELETE = do_HEAD = do_GET

    def _answer_with(self, fault: Fault | None, body: bytes, is_bulk: bool) -> None:
        if fault is not None:
            self.proxy.counts[fault if isinstance(fault, str) else "called"] += 1
        if callable(fault):
            fault()
        if fault == "drop":
            self._hang_up()
        elif isinstance(fault, str) and fault.isdigit():
            self._answer(int(fault), _error(int(fault), "planned_exception", "planned"))
        else:
            self._forward(fault, body, is_bulk)

    def _forward(self, fault: Fault | None, body: bytes, is_bulk: bool) -> None:
        refused = _serverless_refusal(self.command, self.path, body) if self.proxy.is_serverless else None
        if refused:
            self.proxy.counts["unsupported"] += 1
            self._answer(400, _error(400, "unsupported", refused))
            return
        try:
            status, answer = _bulk(self.proxy, self.path, body) if is_bulk else _other(self.proxy, self, body)
        except OSError:  # the server is away; a client of its own would find the same
            self._hang_up()
            return
        if fault == "stall":
            self.proxy.stall()
        if fault == "partial":  # one shard is being recovered: its hits are missing
            answer = _without_a_shard(answer)
        if fault == "garble":
            answer = answer[: len(answer) // 2]
        self._answer(status, answer, whole=fault != "truncate")

    def _answer(self, status: int, body: bytes, *, whole: bool = True) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body if whole else body[: len(body) // 2])
        except OSError:
            self.proxy.counts["client had left"] += 1
        self.close_connection = not whole

    def _hang_up(self) -> None:
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Nothing: counts say more."""


def _next_fault(proxy: Proxy, is_bulk: bool) -> Fault | None:
    if is_bulk:
        proxy.counts["bulk"] += 1
        return proxy.bulk_faults.get(proxy.counts["bulk"])
    return proxy.faults.pop(0) if proxy.faults else None


def _bulk(proxy: Proxy, path: str, body: bytes) -> tuple[int, bytes]:
    """Forward the items that no plan refuses, and put the answers together in the order of the items."""
    items = list(_items(body))
    planned = [_planned(proxy, lines) for lines in items]
    kept = b"".join(b"".join(lines) for lines, status in zip(items, planned, strict=True) if status is None)
    results: Iterator[Any] = iter(())
    if kept:
        visible = "?refresh=true" if proxy.is_serverless and proxy.refreshes else ""
        status, answer = proxy.forward("POST", path + visible, {"Content-Type": "application/x-ndjson"}, kept)
        if status != 200:
            return status, answer
        results = iter(json.loads(answer)["items"])
    merged = []
    for lines, refusal in zip(items, planned, strict=True):
        action = next(iter(json.loads(lines[0])))
        merged.append(next(results) if refusal is None else {action: _refusal(refusal)})
    return 200, json.dumps({"took": 1, "errors": any(planned), "items": merged}).encode()


def _items(body: bytes) -> Iterator[list[bytes]]:
    lines = iter(body.splitlines(keepends=True))
    for line in lines:
        yield [line] if "delete" in json.loads(line) else [line, next(lines)]


def _planned(proxy: Proxy, lines: list[bytes]) -> int | None:
    if len(lines) == 1:
        return None
    key = json.loads(lines[1])["metadata"]["id"]
    with proxy.lock:
        if key in proxy.rejected:
            proxy.counts["item 400"] += 1
            return 400
        if proxy.throttled.get(key):
            proxy.throttled[key] -= 1
            proxy.counts["item 429"] += 1
            return 429
    return None


def _refusal(status: int) -> dict[str, Any]:
    kinds = {429: "rejected_execution_exception", 400: "mapper_parsing_exception"}
    return {"_id": None, "status": status, "error": {"type": kinds[status], "reason": "planned\nby the test"}}


def _serverless_refusal(method: str, path: str, body: bytes) -> str | None:
    """What a vector collection of Amazon OpenSearch Serverless does not do, as its documentation says."""
    last = path.split("?")[0].rsplit("/", 1)[-1]
    if last in ("_refresh", "_aliases", "_delete_by_query", "_pit", "scroll") or "refresh=" in path:
        return f"{last} is not supported"
    if last == "_settings" and method == "PUT":
        return "settings are not supported"
    if last == "_bulk":
        actions = [json.loads(lines[0]) for lines in _items(body)]
        if any("_id" in options for action in actions for kind, options in action.items() if kind != "delete"):
            return "Document ID is not supported in create/index operation request"
    if method == "PUT" and "/_" not in path and ('"lucene"' in body.decode() or "number_of_replicas" in body.decode()):
        return "engine lucene and replicas are not supported"
    return None


def _other(proxy: Proxy, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes]:
    if proxy.is_serverless and handler.command == "PUT":  # the tests' server has no native library for faiss
        body = body.replace(b'"faiss"', b'"lucene"')
    return proxy.forward(handler.command, handler.path, {}, body or None)


def _without_a_shard(answer: bytes) -> bytes:
    found = json.loads(answer)
    found["_shards"]["successful"] -= 1
    found["hits"]["hits"] = []
    for aggregation in found.get("aggregations", {}).values():
        aggregation.update(buckets=[])
        aggregation.pop("after_key", None)
    return json.dumps(found).encode()


def _error(status: int, kind: str, reason: str) -> bytes:
    return json.dumps({"error": {"type": kind, "reason": reason}, "status": status}).encode()
