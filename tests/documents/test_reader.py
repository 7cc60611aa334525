"""What a document may cost, what becomes of one that costs more, and that the next one is read as if nothing was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.documents import reader as reading
from include.documents import reading_process
from include.documents.document import Document, Reject, Section
from include.documents.reader import Limits, Reader
from include.errors import DocumentError, UserError
from local.home import PROJECT
from tests.rag.zoo import SECRET, write_zoo

SMALL = Limits(seconds=1, memory_mb=256, document_mb=1, text_characters=2_000)
PLANTED = "tests.rag.zoo:misbehave"
DEADLINE = 60
"""Seconds until a test gives up on a process that should end."""

memory_is_bounded = pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not bound memory")


@pytest.fixture
def reader() -> Iterator[Reader]:
    with Reader(SMALL, PLANTED) as one:
        yield one


def assert_reads(reader: Reader) -> None:
    """A good document gives what it should."""
    text = "Zürich, \u6771\u4eac"
    expected = Document(title="good.txt", text=text, sections=(Section(start=0, end=len(text)),))
    assert reader.read(text.encode(), "good.txt") == expected


def fault_of(reader: Reader, name: str, data: bytes = b"") -> str:
    with pytest.raises(DocumentError) as caught:
        reader.read(data, name)
    return caught.value.fault


def children() -> list[psutil.Process]:
    """The reading processes of this one."""
    return [one for one in psutil.Process().children() if reading_process.__name__ in one.cmdline()]


# One document


@given(
    st.builds(
        Document,
        title=st.text(),
        text=st.text(),
        sections=st.lists(
            st.builds(
                Section,
                start=st.integers(0, 100),
                end=st.integers(0, 100),
                headings=st.lists(st.text()).map(tuple),
                locator=st.none() | st.text(),
                page=st.none() | st.integers(1),
            )
        ).map(tuple),
        rejects=st.lists(st.builds(Reject, locator=st.text(), reason=st.text())).map(tuple),
        is_markdown=st.booleans(),
    )
)
def test_a_document_comes_out_of_the_other_process_as_it_was(document: Document) -> None:
    assert reading_process.decode(reading_process.encode(document)) == document


def test_what_a_loader_refuses_keeps_its_reason_and_its_fault(reader: Reader) -> None:
    with pytest.raises(DocumentError, match=r"^behind a password$") as caught:
        reader.read(b"", "refuse behind a password")
    assert caught.value.fault == "encrypted"
    assert_reads(reader)


def test_an_error_of_a_parser_is_one_short_line(reader: Reader) -> None:
    with pytest.raises(DocumentError) as caught:
        reader.read(b"", "fail")
    reason = str(caught.value)
    assert (caught.value.fault, len(reason)) == ("malformed", 300)
    assert reason.startswith("ValueError: lone ? and long lone ? and long")
    assert reason.isprintable()


@pytest.mark.parametrize(
    ("name", "fault", "reason"),
    [
        ("die SIGSEGV", "crashed", "the reading process died of SIGSEGV"),
        ("die SIGKILL", "crashed", "the reading process died of SIGKILL"),
        ("exit 3", "crashed", "the reading process died of exit status 3"),
        ("die-out-of-memory", "memory_limit", "needs more than 256 MiB of memory"),
        ("surrogate", "not_text", "half a surrogate pair in its text"),
        ("import no_such_library", "unsupported", "its loader needs a library .* 'no_such_library'"),
        ("burn", "time_limit", "takes more than 1 s of processor time or 5 s in all"),
    ],
)
def test_a_bad_document_is_refused_and_the_next_one_read(reader: Reader, name: str, fault: str, reason: str) -> None:
    for _ in range(2):  # in a fresh process, and in one that has read others
        with pytest.raises(DocumentError, match=reason) as caught:
            reader.read(b"", name)
        assert caught.value.fault == fault
        assert_reads(reader)


def test_a_parser_that_prints_or_reads_its_input_disturbs_nothing(reader: Reader) -> None:
    assert reader.read(b"", "chatter").text == ""
    assert_reads(reader)


# Text that is only decoded

DECODED = {
    "text": "Zürich,\r\n \u6771\u4eac\r".encode(),
    "blank": b" \n",
    "UTF-16": "\ufefftext".encode("utf-16-le"),
    "half a pair": b"\xff\xfe\x00\xd8",
    "Latin-1": b"caf\xe9",
    "NUL": b"a\0b",
    "the most text": b"x" * (SMALL.text_characters - 1),
    "too much text": b"x" * SMALL.text_characters,
}


@pytest.mark.parametrize("data", DECODED.values(), ids=DECODED)
@pytest.mark.parametrize("name", ["a.txt", "folder/A.TEXT", ".txt", "\ud800.txt"])
def test_small_plain_text_needs_no_process_and_comes_out_as_of_one(
    name: str, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Reader(SMALL) as here:
        found = outcome_of(here, data, name)
        assert children() == []
    monkeypatch.setattr(reading, "DECODED_HERE", -1)
    with Reader(SMALL) as there:
        assert outcome_of(there, data, name) == found
        assert len(children()) == 1


@pytest.mark.parametrize("name", ["a.rst", "a.md", "a.csv", "a.html", "a", "txt"])
def test_what_is_parsed_needs_the_process(name: str) -> None:
    with Reader(SMALL) as one:
        outcome_of(one, b"text", name)
        assert len(children()) == 1


def test_large_plain_text_needs_the_process() -> None:
    with Reader() as one:
        one.read(b"x" * reading.DECODED_HERE, "a.txt")
        assert children() == []
        one.read(b"x" * (reading.DECODED_HERE + 1), "a.txt")
        assert len(children()) == 1


# Limits


def test_time_of_the_processor_is_given_anew_to_each_document(reader: Reader) -> None:
    processes = {reader.read(b"", name).text for name in ("pid", "burn 0.7", "burn 0.7", "burn 0.7", "pid")}
    assert len(processes - {"None"}) == 1


def test_time_in_all_is_limited_too() -> None:
    with Reader(Limits(seconds=0.1), PLANTED) as reader:
        assert reader.read(b"", "sleep 0.01").text == "None"
        assert fault_of(reader, "sleep 3600") == "time_limit"
        assert_reads(reader)


@memory_is_bounded
def test_memory_is_limited(reader: Reader) -> None:
    assert reader.read(b"", "hoard 150").text == "None"
    for name in ("hoard 300", "hoard-in-disguise 300"):
        assert fault_of(reader, name) == "memory_limit"
        assert_reads(reader)
    with Reader(Limits(memory_mb=512), PLANTED) as larger:
        assert larger.read(b"", "hoard 300").text == "None"


@memory_is_bounded
def test_a_file_larger_than_the_memory_ends_the_process_and_not_the_reader() -> None:
    with Reader(Limits(memory_mb=64), PLANTED) as reader:
        assert fault_of(reader, "large.txt", bytes(100 << 20)) == "memory_limit"
        assert_reads(reader)


@memory_is_bounded
def test_what_earlier_documents_left_in_memory_condemns_no_other(reader: Reader) -> None:
    before = reader.read(b"", "pid").text
    reader.read(b"", "keep 150")
    assert reader.read(b"", "hoard 150").text == "None"
    assert reader.read(b"", "pid").text != before


def test_a_process_that_earlier_documents_broke_condemns_no_other(reader: Reader) -> None:
    assert reader.read(b"", "die-if-used").text != reader.read(b"", "die-if-used").text


def test_what_a_parser_writes_to_disk_is_limited(reader: Reader) -> None:
    assert reader.read(b"", "write 100").text == "None"
    with pytest.raises(DocumentError, match="File too large"):
        reader.read(b"", "write 300")
    assert reader.read(b"", "core").text == "(0, 0)"


def test_the_size_of_a_file_is_limited_before_a_process_is_started(reader: Reader) -> None:
    with pytest.raises(DocumentError, match=r"file of 1.0 MiB; the limit is 1 MiB") as caught:
        reader.read(bytes((1 << 20) + 1), "large.txt")
    assert caught.value.fault == "size_limit"
    assert children() == []
    with Reader(Limits(document_mb=1), PLANTED) as other:
        assert len(other.read(bytes(1 << 20), "large.txt").text) == 1 << 20


def test_the_amount_of_text_is_limited(reader: Reader) -> None:
    title = "a.txt"
    most = SMALL.text_characters - len(title)
    assert len(reader.read(b"x" * most, title).text) == most
    assert fault_of(reader, title, b"x" * (most + 1)) == "size_limit"
    assert_reads(reader)


@pytest.mark.parametrize("field", ["seconds", "memory_mb", "document_mb", "text_characters"])
def test_limits_are_positive_and_each_changes_their_name(field: str) -> None:
    assert Limits(**{field: 7}).name != Limits().name
    for value in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UserError, match=f"{field}: {value}, must be a number above 0"):
            Limits(**{field: value})


def test_the_name_of_limits_is_stable() -> None:
    assert Limits().name == "60s/768MB/200MB/20000000ch"


# The process


def test_one_process_reads_all_and_ends_with_the_context() -> None:
    with Reader(SMALL, PLANTED) as reader:
        assert children() == []
        assert reader.read(b"", "pid").text == reader.read(b"", "pid").text
        (process,) = children()
        assert os.getsid(process.pid) == process.pid  # no interrupt at the terminal reaches it
    assert not process.is_running()


def test_it_inherits_no_secrets(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    names = set(json.loads(reader.read(b"", "environment").text))
    settings = {"PYTHONPATH", "PYTHONUTF8", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_DEFAULT_MEMORY_POOL"}
    assert names <= settings | {"TMPDIR", "LD_LIBRARY_PATH", "LC_CTYPE"}


def test_a_process_that_does_not_start_is_no_fault_of_the_document() -> None:
    with Reader(SMALL, "no_such_module:load") as reader:
        with pytest.raises(RuntimeError, match="did not start.*No module named 'no_such_module'"):
            reader.read(b"", "good.txt")
        assert children() == []


def test_an_answer_that_nobody_waited_for_is_not_taken_for_the_next(reader: Reader) -> None:
    def give_up(*_: object) -> None:
        raise TimeoutError("the task's time is up")

    before = reader.read(b"", "pid").text
    handler = signal.signal(signal.SIGALRM, give_up)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(TimeoutError):
            reader.read(b"", "sleep 3600")
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert_reads(reader)
    assert reader.read(b"", "pid").text != before


PARENT = """
import sys, threading
from include.documents.reader import Limits, Reader
with Reader(Limits(seconds=1), "tests.rag.zoo:misbehave") as reader:
    pid = reader.read(b"", "pid").text
    threading.Timer(0.2, print, [pid], {"flush": True}).start()
    reader.read(b"", sys.argv[1]) if sys.argv[1] else sys.stdin.read()
"""


@pytest.mark.parametrize("busy_with", ["", "burn", "sleep 3600"])
def test_it_does_not_outlive_a_killed_parent(busy_with: str) -> None:
    command = [sys.executable, "-c", PARENT, busy_with]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PROJECT) as parent:
        assert parent.stdout
        process = psutil.Process(int(parent.stdout.readline()))
        assert process.is_running()
        parent.kill()
    if psutil.pid_exists(process.pid) and process.status() != psutil.STATUS_ZOMBIE:
        process.wait(DEADLINE)


def test_it_finds_the_package_in_a_dags_folder(tmp_path: Path) -> None:
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "include").symlink_to(PROJECT / "include")
    code = (
        f"import sys; sys.path.insert(0, {str(dags)!r})\n"
        "from include.documents.reader import Reader\n"
        "with Reader() as reader: print(reader.read(b'found', 'a.md').text)"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd="/", env={}, capture_output=True, text=True)
    assert (found.stdout, found.stderr) == ("found\n", "")


# The zoo


def outcome_of(reader: Reader, data: bytes, name: str) -> tuple[str, str]:
    """What became of a document, and all the text that came of it."""
    try:
        document = reader.read(data, name)
    except DocumentError as error:
        return error.fault, str(error)
    return "ok" if document.sections else "empty", repr(document)


@memory_is_bounded
def test_every_animal_ends_as_expected_and_the_next_document_is_read(tmp_path: Path) -> None:
    zoo = write_zoo(tmp_path)
    wrong = {}
    with Reader(Limits(seconds=4, memory_mb=512)) as reader:
        good = reader.read(b"# Keeper\n\nWrote it down.", "good.md")
        for name in sorted(zoo):
            if (tmp_path / name).is_dir():
                continue
            outcome, text = outcome_of(reader, (tmp_path / name).read_bytes(), name)
            if outcome not in zoo[name]:
                wrong[name] = f"{outcome}: {text[:300]}"
            assert SECRET not in text, name
            assert reader.read(b"# Keeper\n\nWrote it down.", "good.md") == good, name
    assert wrong == {}
