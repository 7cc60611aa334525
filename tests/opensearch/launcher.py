"""A real OpenSearch for the tests: the one that OPENSEARCH_URL names, or a node of our own from Maven Central.

The node's jars are put together once, in a cache folder that is named after pom.xml and Node.java.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from functools import cache
from pathlib import Path

import pytest

from include.storage import digest

_HERE = Path(__file__).parent
_JAVA = 21
_JVMS = Path("/usr/lib/jvm")
_START_SECONDS = 120.0
# The quick compiler and the plain collector: for a node that lives for minutes they take half of the processor.
_OPTIONS = ("-Xms512m", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


class Server:
    """An OpenSearch at a URL; one of our own can be restarted on its data."""

    can_restart = False

    def __init__(self, url: str) -> None:
        self.url = url

    def restart(self) -> None:
        """Kill it and start it on the same data."""
        raise NotImplementedError(f"{self.url} is not ours")


class Node(Server):
    """A node on a free port of loopback; it ends with this process, however that ends."""

    can_restart = True

    def __init__(self) -> None:
        self._jars = _assembled()
        self._home = Path(tempfile.mkdtemp(prefix="fmops-opensearch-"))
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        super().__init__(f"http://127.0.0.1:{self._port}")
        atexit.register(shutil.rmtree, self._home, ignore_errors=True)
        atexit.register(self.kill)
        self.start()

    def start(self) -> None:
        """Start on the data that there is, and wait until it answers; RuntimeError with the log's end if it ends."""
        command = [str(_tool("java")), *_OPTIONS, "-cp", f"{self._jars}:{self._jars}/lib/*", "Node"]
        log = self._home / "log.txt"
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [*command, str(self._home / "node"), str(self._port)], stdout=out, stderr=out, cwd=self._home
            )
        until = time.monotonic() + _START_SECONDS
        while not _answers(self.url):
            if self._process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise RuntimeError(f"OpenSearch did not start; its last words: {log.read_text()[-2000:]}")
            time.sleep(0.2)

    def restart(self) -> None:
        """As above."""
        self.kill()
        self.start()

    def kill(self) -> None:
        """kill -9: no goodbye to clients, nothing flushed."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def server() -> Server:
    """The one server of this test session; the test fails with one line if there cannot be one."""
    found = _server()
    if isinstance(found, str):
        pytest.fail(found, pytrace=False)
    return found


@cache
def _server() -> Server | str:
    url = os.environ.get("OPENSEARCH_URL")
    try:
        return Server(url.rstrip("/")) if url else Node()
    except RuntimeError as error:
        return str(error)


def _assembled() -> Path:
    """The folder with Node.class and lib/, made by whichever process comes first."""
    sources = [_HERE / "pom.xml", _HERE / "Node.java"]
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fmops"
    made = caches / f"opensearch-{digest(*(source.read_bytes() for source in sources))[:16]}"
    caches.mkdir(parents=True, exist_ok=True)
    with made.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            with tempfile.TemporaryDirectory(dir=caches) as scratch:
                draft = Path(scratch) / "draft"
                draft.mkdir()
                for source in sources:
                    shutil.copy(source, draft)
                _run([_maven(), "-q", "-B", "-ntp", "-f", "pom.xml", "package"], draft)
                _run([str(_tool("javac")), "--release", str(_JAVA), "-cp", "lib/*", "Node.java"], draft)
                draft.rename(made)
    return made


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed: {(done.stdout + done.stderr)[-2000:]}")


def _maven() -> str:
    found = shutil.which("mvn")
    if found is None:
        raise RuntimeError("OpenSearch for the tests needs Maven (Debian: apt-get install maven), or OPENSEARCH_URL")
    return found


@cache
def _tool(name: str) -> Path:
    """`java` or `javac` of a JDK that is new enough."""
    homes = [Path(os.environ["JAVA_HOME"])] if os.environ.get("JAVA_HOME") else []
    on_path = shutil.which("javac")
    if on_path:
        homes.append(Path(on_path).resolve().parent.parent)
    homes += sorted(_JVMS.glob("*"))
    for home in homes:
        if (home / "bin" / "javac").exists() and _version(home / "bin" / "javac") >= _JAVA:
            return home / "bin" / name
    raise RuntimeError(
        f"OpenSearch for the tests needs a JDK of {_JAVA} or later (Debian: apt-get install openjdk-21-jdk-headless) "
        "in JAVA_HOME, PATH or /usr/lib/jvm, or OPENSEARCH_URL"
    )


def _version(javac: Path) -> int:
    said = subprocess.run([str(javac), "-version"], capture_output=True, text=True, check=False)
    number = re.search(r"\d+", said.stdout + said.stderr)
    return int(number.group()) if number else 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/_cluster/health?wait_for_status=yellow&timeout=1s", timeout=5) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except OSError:
        return False
