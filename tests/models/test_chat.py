"""Chat against a real HTTP server on loopback that answers, throttles and fails; and the metering of every call."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from include import storage
from include.config import load_settings
from include.errors import UserError
from include.models.chat import chat
from include.models.metering import Caller, Meter
from include.rag import ask
from tests.rag.ingestion import Ingestion


class ChatServer(ThreadingHTTPServer):
    """Speaks as much of the OpenAI protocol as a chat needs; `statuses` are answered first, one each."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses: list[int] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body)
        self.server.headers.append(dict(self.headers))
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        message = {"role": "assistant", "content": "Dogs do [1]."}
        answer: dict[str, Any] = {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"]}
        answer["choices"] = [{"index": 0, "message": message, "finish_reason": "stop"}]
        answer["usage"] = {"prompt_tokens": 12, "completion_tokens": 4, "total_tokens": 16}
        data = json.dumps(answer if status == 200 else {"error": {"message": "refused"}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    with ChatServer() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        monkeypatch.setenv("FMOPS_CHAT_URL", running.url)
        monkeypatch.setenv("FMOPS_CHAT_MODEL", "tiny")
        yield running
        running.shutdown()


def events(root: str) -> list[dict[str, Any]]:
    files = sorted((storage.location(root) / "acme" / "usage").rglob("*.jsonl"))
    return [event for file in files for event in storage.read_jsonl(file)]


def meter(root: str) -> Meter:
    return Meter(root=root, caller=Caller(tenant="acme", use_case="help", run_id="run-1"))


def test_an_answer_comes_with_its_tokens_and_is_metered(server: ChatServer, root: str) -> None:
    with meter(root) as running:
        answer = chat([("user", "who barks?")], settings=load_settings(), meter=running)
    assert (answer.text, answer.tokens_in, answer.tokens_out) == ("Dogs do [1].", 12, 4)
    event = events(root)[0]
    assert {n: event[n] for n in ("model", "status", "tokens_in", "tokens_out", "use_case", "run_id")} == {
        "model": "tiny", "status": "ok", "tokens_in": 12, "tokens_out": 4, "use_case": "help", "run_id": "run-1",
    }  # fmt: skip


def test_a_throttle_is_waited_out(server: ChatServer, root: str) -> None:
    server.statuses = [429, 503]
    with meter(root) as running:
        assert chat([("user", "hi")], settings=load_settings(), meter=running).text
    assert len(server.requests) == 3


def test_a_refusal_is_a_connection_error_and_metered_too(server: ChatServer, root: str) -> None:
    server.statuses = [400]
    with pytest.raises(ConnectionError, match="chat model tiny at http"), meter(root) as running:
        chat([("user", "hi")], settings=load_settings(), meter=running)
    assert [(event["status"], event["error"]) for event in events(root)] == [("error", "OpenAIInvalidRequestError")]


def test_without_a_model_it_says_what_to_set(root: str) -> None:
    with pytest.raises(UserError, match="set FMOPS_CHAT_URL and FMOPS_CHAT_MODEL"):
        chat([("user", "hi")], settings=load_settings(), meter=meter(root))


def test_the_key_reaches_the_server_and_nothing_else(
    server: ChatServer, root: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FMOPS_CHAT_API_KEY", "sk-very-secret")
    with meter(root) as running:
        chat([("user", "hi")], settings=load_settings(), meter=running)
    assert server.headers[0]["Authorization"] == "Bearer sk-very-secret"
    assert "sk-very-secret" not in json.dumps(events(root)) + caplog.text


def test_ask_writes_prose_from_the_passages_when_a_model_is_set(
    server: ChatServer, root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "dogs.md").write_text("# Dogs\n\nDogs bark {not a template} {{ nor this }} at the postman.\n")
    Ingestion(root, str(source)).run("run-1")
    assert ask.main(["who barks?", "--index", "test"]) == 0
    assert "tiny:\nDogs do [1]." in capsys.readouterr().out
    sent = server.requests[0]["messages"][1]["content"]
    assert "{not a template} {{ nor this }}" in sent, "untrusted text is passed on as it is"


def test_a_meter_writes_even_if_its_block_fails_and_writes_nothing_for_nothing(root: str) -> None:
    with pytest.raises(KeyError), meter(root) as running:
        running.record(kind="chat", model="m", status="ok")
        raise KeyError
    with meter(root):
        assert len(events(root)) == 1
    assert len(events(root)) == 1


def test_a_meter_that_cannot_write_fails_the_block_but_hides_no_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file where the folder should be")
    with pytest.raises(OSError), meter(blocked.as_uri()) as running:
        running.record(kind="chat", model="m", status="ok")
    with pytest.raises(KeyError), meter(blocked.as_uri()) as running:
        running.record(kind="chat", model="m", status="ok")
        raise KeyError
