"""Documents are read in a process of their own, so that a bad one takes down nothing but that process.

A loop, a bomb or a crash in a parser becomes a DocumentError of that document, and a fresh process reads the next one.
Small files that are decoded and not parsed have no such parser, and are read right here.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, fields
from pathlib import Path

import include
from include.documents import reading_process as child
from include.documents.document import Document
from include.documents.loaders import ONLY_DECODED, load
from include.errors import DocumentError, UserError

LOADER = f"{load.__module__}:{load.__name__}"
DECODED_HERE = 1 << 20
"""Bytes of a file that is only decoded, up to which the reading process, and its bound of memory, are not needed."""

_ENVIRONMENT = ("LD_LIBRARY_PATH", "TMPDIR")
"""All that the process inherits; credentials stay out of the reach of what parses unknown bytes."""

_SETTINGS = {
    # The same limits must mean the same on every machine: a thread pool reserves memory for each core.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # Arrow's own allocator reserves a gigabyte at once.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "PYTHONUTF8": "1",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What reading one document may cost."""

    seconds: float = 60
    """Of processor time, rounded up to the next whole second; five times as much may pass in all."""
    memory_mb: int = 768
    """MiB that the reading process may write to, the parsers' own 100 or so included; not bounded on macOS."""
    document_mb: int = 200
    """MiB of a file."""
    text_characters: int = 20_000_000
    """Characters of extracted text, with the headings and locators of all sections."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0 < (value := getattr(self, field.name)) < math.inf:
                raise UserError(f"{field.name}: {value}, must be a number above 0")

    @property
    def name(self) -> str:
        """The values in one short word; a document that failed under other limits may be tried again."""
        return f"{self.seconds:g}s/{self.memory_mb}MB/{self.document_mb}MB/{self.text_characters}ch"


class Reader(AbstractContextManager["Reader"]):
    """Reads documents one after the other in one process, which lives as long as the context; not for several threads.

    The process starts with the first document that needs it and is replaced when one has killed it. If this process is
    killed, it ends at once when idle, and otherwise when its limits end it.
    """

    def __init__(self, limits: Limits | None = None, loader: str = LOADER) -> None:
        self._limits = limits or Limits()
        self._loader = loader
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._log.close()

    def read(self, data: bytes, name: str) -> Document:
        """A file's bytes as a document; DocumentError with its fault if there is none, or if reading it costs too much.

        RuntimeError if no process can be started, which is no fault of the document.
        """
        if len(data) > self._limits.document_mb << 20:
            size = f"{len(data) / 2**20:,.1f} MiB"
            raise DocumentError(f"file of {size}; the limit is {self._limits.document_mb:,} MiB", "size_limit")
        if self._loader == LOADER and len(data) <= DECODED_HERE and name.lower().endswith(ONLY_DECODED):
            return self._decode(data, name)
        used = self._process is not None
        answer = self._ask(data, name)
        if used and isinstance(answer, DocumentError) and answer.fault != "time_limit":
            # Earlier documents may have left the process full or broken: a fresh one decides.
            answer = self._ask(data, name)
        if isinstance(answer, DocumentError):
            raise answer
        return child.decode(answer)

    def _decode(self, data: bytes, name: str) -> Document:
        try:
            document = load(data, name)
            child.check_characters(document, self._limits.text_characters)
        except DocumentError as error:
            raise DocumentError(child.one_line(str(error)), error.fault) from None
        return document

    def _ask(self, data: bytes, name: str) -> bytes | DocumentError:
        """The answer of the reading process, or what it died of."""
        process = self._process or self._start()
        assert process.stdin and process.stdout
        self._log.seek(0)  # the process writes at the same position
        self._log.truncate()
        try:
            child.send(process.stdin, json.dumps(name).encode(), data)
            return child.receive(process.stdout)
        except (BrokenPipeError, EOFError):
            return self._cause_of_death()
        except BaseException:  # a task's time is up: what the process says next answers nothing
            self._stop()
            raise

    def _start(self) -> subprocess.Popen[bytes]:
        # Whatever can be imported here can be imported there, and `include` is the one in use here.
        path = [str(Path(include.__file__).absolute().parent.parent), *map(os.path.abspath, sys.path)]
        inherited = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        limits = self._limits
        values = (limits.seconds, limits.memory_mb, limits.text_characters, self._loader)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", child.__name__, *map(str, values)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd="/",
            env={**inherited, **_SETTINGS, "PYTHONPATH": os.pathsep.join(path)},
            start_new_session=True,  # an interrupt at the terminal is this process's to handle
        )
        assert self._process.stdout
        try:
            child.receive(self._process.stdout)
        except EOFError:
            cause = self._cause_of_death()
            raise RuntimeError(f"the process that reads documents did not start: {cause}") from None
        except BaseException:
            self._stop()
            raise
        return self._process

    def _stop(self) -> None:
        """Kill the process, if it has not ended, and forget it."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):  # of a request that was not read to its end
                if stream:
                    stream.close()
        self._process = None

    def _cause_of_death(self) -> DocumentError:
        """Why the process closed its end; it is gone after that."""
        assert self._process
        status = self._process.wait()
        self._stop()
        limits = self._limits
        if -status in (signal.SIGXCPU, signal.SIGALRM):
            total = limits.seconds * child.PATIENCE
            reason = f"takes more than {limits.seconds:g} s of processor time or {total:g} s in all"
            return DocumentError(reason, "time_limit")
        words = self._last_words()
        if status == child.OUT_OF_MEMORY or child.tells_of_memory(words):
            return DocumentError(f"needs more than {limits.memory_mb:,} MiB of memory", "memory_limit")
        cause = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return DocumentError(child.one_line(f"the reading process died of {cause} {words}"), "crashed")

    def _last_words(self) -> str:
        """The last line of what the process wrote as errors."""
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - 2000))
        return self._log.read().decode(errors="replace").strip().rpartition("\n")[2]
