"""An AWS endpoint for tests: `python -m tests.aws.server --port 0` prints its port and serves on loopback.

It ends with SIGTERM, SIGINT or the end of its standard input. However it ends, no process of a job and no file is left:
see keeper.py.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from pathlib import Path

from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import make_server

from tests.aws import keeper
from tests.aws.app import Endpoint


class Handler(MotoRequestHandler):
    """Says nothing of each request."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None: ...


def start_keeper(mark: str, folder: Path) -> subprocess.Popen[bytes]:
    """It ends once this process is gone and it has cleaned up; until then it holds this process's standard output."""
    command = [sys.executable, keeper.__file__, mark, str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def end_with_input() -> None:
    """Whoever started the server is gone when its pipe ends."""
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--alone", action="store_true", help="serve on when the standard input ends")
    chosen = parser.parse_args(arguments)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]  # the endpoint's own clients are told all they need
    mark, folder = uuid.uuid4().hex, Path(tempfile.mkdtemp(prefix="fmops-aws-"))
    kept = start_keeper(mark, folder)
    endpoint = Endpoint(folder, mark)
    server = make_server("127.0.0.1", chosen.port, endpoint, threaded=True, request_handler=Handler)
    endpoint.url = f"http://127.0.0.1:{server.server_port}"
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    if not chosen.alone:
        threading.Thread(target=end_with_input, daemon=True).start()
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    assert kept.stdin is not None
    server.serve_forever()


if __name__ == "__main__":
    main()
