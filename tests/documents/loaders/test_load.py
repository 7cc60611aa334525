"""What holds for every format: documents whose sections are spans of their text, or a DocumentError."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include import rag
from include.documents import loaders
from include.documents.document import Document
from include.documents.loaders import SUFFIXES, load
from include.errors import DocumentError
from tests.documents.loaders.files import samples

SAMPLES = samples()


def check(document: Document) -> None:
    """Sections are in order, do not overlap, and begin and end with other than white space; all of it is text."""
    document.text.encode()
    document.title.encode()
    end = 0
    for section in document.sections:
        assert end <= section.start < section.end <= len(document.text)
        text = document.text[section.start : section.end]
        assert text == text.strip()
        "".join((*section.headings, section.locator or "")).encode()
        assert section.page is None or section.page >= 1
        end = section.end


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
@pytest.mark.parametrize("data", [b"", b" \n\t\n"])
def test_an_empty_file_is_a_document_without_sections(suffix: str, data: bytes) -> None:
    assert load(data, f"empty{suffix}") == Document(title="empty", text="", sections=())


@pytest.mark.parametrize("suffix", sorted({".txt", ".rst", ".md", ".html", ".jsonl", ".json", ".csv"}))
def test_a_byte_order_mark_alone_is_a_document_without_sections(suffix: str) -> None:
    assert load(b"\xef\xbb\xbf", f"empty{suffix}").sections == ()


@pytest.mark.parametrize("name", ["README", "a.doc", "a.ppt", "a.xls", "a.txt.gz"])
def test_a_suffix_without_a_loader_is_refused(name: str) -> None:
    with pytest.raises(DocumentError, match=r"cannot be read; can be read: \.csv \.docx") as raised:
        load(b"x", name)
    assert raised.value.fault == "unsupported"


@pytest.mark.parametrize("suffix", sorted(SAMPLES))
def test_a_sample_of_each_rich_format_is_read(suffix: str) -> None:
    document = load(SAMPLES[suffix], f"A{suffix.upper()}")
    assert "sentinel" in document.text
    check(document)


@given(st.binary(max_size=200), st.sampled_from(sorted(SUFFIXES)))
@settings(deadline=None)
def test_any_bytes_are_read_or_refused(data: bytes, suffix: str) -> None:
    try:
        document = load(data, f"x{suffix}")
    except DocumentError:
        return
    check(document)


@given(st.sampled_from(sorted(SAMPLES)), st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_change_to_a_sound_file_is_read_or_refused(suffix: str, data: st.DataObject) -> None:
    sound = SAMPLES[suffix]
    start = data.draw(st.integers(0, len(sound)))
    end = data.draw(st.integers(start, min(len(sound), start + 20)))
    try:
        document = load(sound[:start] + data.draw(st.binary(max_size=20)) + sound[end:], f"x{suffix}")
    except DocumentError:
        return
    check(document)


WORDS = st.text(alphabet='ab #-=|*>`~<h1>/p\n\t ,;"\\{}[]():é\u4e2d\u2028\x1f\u00a0', max_size=150)


@given(WORDS, st.sampled_from([".txt", ".rst", ".md", ".html", ".csv", ".tsv", ".json", ".jsonl", ".eml"]))
@settings(deadline=None)
def test_any_text_is_read_to_spans_of_it_or_refused(text: str, suffix: str) -> None:
    try:
        document = load(text.encode(), f"x{suffix}")
    except DocumentError:
        return
    check(document)
    if suffix in (".txt", ".rst", ".md") and text.strip():
        assert document.text == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["text", "title", "a", "é"]), inner),
    max_leaves=12,
)


@given(JSON)
@settings(deadline=None)
def test_any_json_is_read_to_spans_or_refused(value: object) -> None:
    for suffix in (".json", ".jsonl"):
        try:
            check(load(json.dumps(value).encode(), f"x{suffix}"))
        except DocumentError:
            continue


def test_out_of_memory_is_not_blamed_on_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(data: bytes, stem: str) -> Document:
        raise MemoryError

    monkeypatch.setitem(loaders._LOADERS, ".txt", hungry)
    with pytest.raises(MemoryError):
        load(b"x", "x.txt")


def test_suffixes_are_known_without_any_parser() -> None:
    code = (
        "import sys; from include.documents.loaders import SUFFIXES; assert '.pdf' in SUFFIXES; "
        "heavy = 'pypdf mammoth pptx openpyxl pyarrow numpy bs4 lxml markdown_it yaml markdownify'.split(); "
        "sys.exit(' '.join(name for name in heavy if name in sys.modules) or 0)"
    )
    root = next(iter(rag.__path__)).removesuffix("include/rag")
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stderr) == (0, "")
