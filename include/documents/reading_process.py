"""The process that reads documents for include.documents.reader: bytes that nobody has checked meet their parsers here.

It answers one request after the other until its standard input ends. A request is a JSON header and the bytes of a
file, an answer is JSON, each behind its length as eight bytes. Everything that a document can do to a process is
bounded by the kernel, so nothing here needs to survive it:

- processor time: RLIMIT_CPU, moved on before each document, so that a busy machine condemns no document; it ends an
  endless loop too when the parent was killed
- time in all: an alarm, for a parser that waits
- memory: RLIMIT_DATA, which counts what the process may write to, its libraries included (110 MB when the parsers of
  all formats are loaded). RLIMIT_AS would count reserved addresses and mapped files as well, 400 MB by then
- files: RLIMIT_FSIZE, as much as memory; core dumps: none

macOS has all of these but the bound of memory, which it does not apply to what malloc takes.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import IO

from include.documents.document import Document, Reject, Section
from include.errors import DocumentError, Fault

OUT_OF_MEMORY = 77
"""The exit status that says so: a process that cannot allocate may fail to say it in any other way."""

PATIENCE = 5
"""Seconds in all that a document gets for each second of processor time."""

_LENGTH = struct.Struct(">Q")
_REASON_CHARACTERS = 300
_OUT_OF_MEMORY = re.compile("bad_alloc|MemoryError|out of memory|cannot allocate|failed to map", re.IGNORECASE)


def send(stream: IO[bytes], *frames: bytes) -> None:
    """Write frames, each behind its length."""
    for frame in frames:
        stream.write(_LENGTH.pack(len(frame)))
        stream.write(frame)
    stream.flush()


def receive(stream: IO[bytes]) -> bytes:
    """Read one frame; EOFError if the stream ends before it does."""
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    return _exactly(stream, length)


def _exactly(stream: IO[bytes], length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return data


def encode(document: Document) -> bytes:
    """A document as JSON; DocumentError if any of its text is none."""
    try:
        return json.dumps({"document": asdict(document)}, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise DocumentError("half a surrogate pair in its text", "not_text") from None


def decode(answer: bytes) -> Document:
    """The document of an answer; DocumentError if the answer is that there is none."""
    values = json.loads(answer)
    if "document" not in values:
        raise DocumentError(values["reason"], values["fault"])
    fields = values["document"]
    fields["sections"] = tuple(Section(**{**one, "headings": tuple(one["headings"])}) for one in fields["sections"])
    fields["rejects"] = tuple(Reject(**one) for one in fields["rejects"])
    return Document(**fields)


def check_characters(document: Document, limit: int) -> None:
    """DocumentError if there is more text than the limit; a long heading stands beside each of its sections."""
    beside = sum(len(one.locator or "") + sum(map(len, one.headings)) for one in document.sections)
    rejects = sum(len(one.locator) + len(one.reason) for one in document.rejects)
    characters = len(document.title) + len(document.text) + beside + rejects
    if characters > limit:
        reason = f"{characters:,} characters of text, headings and locators; the limit is {limit:,}"
        raise DocumentError(reason, "size_limit")


def one_line(text: str) -> str:
    """Text for a log or a report: on one line, short, and nothing that UTF-8 cannot write."""
    line = " ".join(text[: 10 * _REASON_CHARACTERS].split()).encode(errors="replace").decode()
    return line if len(line) <= _REASON_CHARACTERS else line[: _REASON_CHARACTERS - 3] + "..."


def tells_of_memory(text: str) -> bool:
    """Whether the words of an error or of a dying process say that memory was refused."""
    return _OUT_OF_MEMORY.search(text) is not None


def main(seconds: float, memory_mb: int, text_characters: int, loader: str) -> None:
    """Answer requests until standard input ends. `loader` is `module:function`, from bytes and a name to a Document."""
    requests, answers = _take_streams()
    for number in (signal.SIGALRM, signal.SIGXCPU):
        signal.signal(number, signal.SIG_DFL)  # a parent may have ignored them
    _bound(resource.RLIMIT_CORE, 0)
    _bound(resource.RLIMIT_FSIZE, memory_mb << 20)
    _bound(resource.RLIMIT_DATA, memory_mb << 20)
    try:
        module, _, function = loader.partition(":")
        load = getattr(importlib.import_module(module), function)
        send(answers, b"")
        while True:
            _allow_processor_time(seconds)
            name = json.loads(receive(requests))
            signal.setitimer(signal.ITIMER_REAL, seconds * PATIENCE)
            answer = _answer(load, receive(requests), name, text_characters)
            signal.setitimer(signal.ITIMER_REAL, 0)
            send(answers, answer)
    except EOFError:
        return
    except MemoryError:
        os._exit(OUT_OF_MEMORY)


def _take_streams() -> tuple[IO[bytes], IO[bytes]]:
    """Standard input and output, out of reach of a parser that reads or prints: what it prints is logged as errors."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return requests, answers


def _bound(kind: int, limit: int) -> None:
    hard = resource.getrlimit(kind)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(kind, (limit, limit))


def _allow_processor_time(seconds: float) -> None:
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = math.ceil(time.process_time() + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _answer(load: Callable[[bytes, str], Document], data: bytes, name: str, text_characters: int) -> bytes:
    try:
        document = load(data, name)
        check_characters(document, text_characters)
        return encode(document)
    except Exception as error:
        if _is_out_of_memory(error):
            raise MemoryError from None
        reason, fault = _verdict(error)
        return json.dumps({"reason": one_line(reason), "fault": fault}).encode()


def _verdict(error: Exception) -> tuple[str, Fault]:
    if isinstance(error, DocumentError):
        return str(error), error.fault
    if isinstance(error, ModuleNotFoundError):
        return f"its loader needs a library that is not installed: {error}", "unsupported"
    return f"{type(error).__name__}: {error}", "malformed"


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether memory is what an exception is about: libraries wrap a MemoryError in errors of their own."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError):
            return True
        cause = cause.__cause__ or cause.__context__
    return tells_of_memory(str(error))


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
