"""Documents that no folder is without, and some that only an enemy sends; each is made here from a few lines.

python -m tests.rag.zoo FOLDER
"""

from __future__ import annotations

import importlib
import io
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from include.documents.document import Document, Section
from include.errors import DocumentError

SECRET = "the-file-that-must-not-leak"
"""Stands in the file `secret` beside the documents, which some of them name as an external entity."""

Outcomes = frozenset[str]
"""What may become of a document: `ok`, `empty`, `left_aside` (never read), or faults of DocumentError."""


def write_zoo(folder: Path) -> dict[str, Outcomes]:
    """Write all of it into an empty folder; name of each document -> what may become of it."""
    secret = folder / "secret"
    secret.write_text(SECRET)
    zoo: dict[str, Outcomes] = {}
    for name, data, outcomes in [*_broken(), *_odd(), *_greedy(), *_nosy(secret.absolute().as_uri())]:
        (folder / name).write_bytes(data)
        zoo[name] = frozenset(outcomes.split())
    (folder / "folder.txt").mkdir()
    return zoo | {"folder.txt": frozenset({"left_aside"})}


_Animal = tuple[str, bytes, str]


def _broken() -> list[_Animal]:
    """Not what the suffix says, or not whole."""
    binary, textual = ("pdf", "docx", "xlsx", "pptx", "parquet"), ("txt", "md", "html", "json", "jsonl", "csv")
    noise = random.Random(4).randbytes(20_000)
    text = pdf(b"BT /F1 12 Tf 72 700 Td (The lighthouse keeper wrote it down.) Tj ET")
    letter = docx("<w:p><w:r><w:t>The lighthouse keeper wrote it down.</w:t></w:r></w:p>")
    return [
        ("encrypted.pdf", encrypted_pdf(text), "encrypted"),
        ("truncated.pdf", text[: len(text) // 2], "malformed"),
        ("truncated.docx", letter[: len(letter) // 2], "malformed"),
        *((f"empty.{suffix}", b"", "empty") for suffix in (*binary, *textual)),
        *((f"noise.{suffix}", noise, "malformed") for suffix in binary),
        *((f"noise.{suffix}", noise, "not_text") for suffix in textual),
    ]


def _odd() -> list[_Animal]:
    """Legal, or nearly, and still a trap for a parser."""
    deep = 200_000
    return [
        ("nul.txt", b"text\0with a NUL", "not_text"),
        ("surrogate.jsonl", b'{"id": 1, "text": "half a pair: \\ud800"}\n', "not_text"),
        ("surrogate.json", b'{"text": "half a pair: \\ud800"}\n', "not_text"),
        ("long-line.txt", b"x" * 1_000_000, "ok"),
        ("long-words.txt", b"word " * 200_000, "ok"),
        ("deep.json", b"[" * deep + b"]" * deep, "malformed"),
        ("deep.html", b"<div>" * 50_000 + b"deep", "ok time_limit"),
        ("deep.md", b"> " * 20_000 + b"deep", "ok"),
    ]


def _greedy() -> list[_Animal]:
    """Small files that never end, or unpack to gigabytes."""
    honest, size = docx_bomb()
    unpacked = size.to_bytes(4, "little")
    return [
        ("loop.pdf", looping_pdf(), "time_limit"),
        ("cycle.pdf", pdf(b"", pages=0), "malformed"),
        ("inflate.pdf", pdf(_zeros(600 << 20), filters=b"/FlateDecode"), "malformed size_limit"),
        ("bomb.docx", honest, "size_limit"),
        ("liar.docx", honest.replace(unpacked, (1000).to_bytes(4, "little")), "malformed memory_limit"),
        ("laughs.docx", docx("<w:p><w:r><w:t>&l9;</w:t></w:r></w:p>", prolog=_laughs()), "malformed"),
        (
            "corners.xlsx",
            xlsx('<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'),
            "ok size_limit time_limit memory_limit",
        ),
        ("repeats.parquet", repeating_parquet(), "memory_limit"),
    ]


def _nosy(uri: str) -> list[_Animal]:
    """Documents that ask for a file of the machine that reads them."""
    prolog = f'<!DOCTYPE x [<!ENTITY e SYSTEM "{uri}">]>'
    include = f'<p>&e;</p><iframe src="{uri}"></iframe><object data="{uri}"></object>'
    letter = docx("<w:p><w:r><w:t>before &e; after</w:t></w:r></w:p>", prolog=prolog)
    sheet = xlsx('<row r="1"><c r="A1" t="inlineStr"><is><t>before &e; after</t></is></c></row>', prolog=prolog)
    return [
        ("entity.html", f"{prolog}<html><body>before {include}</body></html>".encode(), "ok"),
        ("entity.docx", letter, "malformed"),
        ("entity.xlsx", sheet, "malformed"),
    ]


def pdf(content: bytes, *, filters: bytes = b"", forms: tuple[bytes, ...] = (), pages: int = 1) -> bytes:
    """A PDF whose pages all have one content; `forms` are named /X0, /X1, ... and every content can draw any of them.

    Without pages, its tree of pages contains itself.
    """
    first = 6 + len(forms)
    kids = b" ".join(b"%d 0 R" % (first + number) for number in range(pages)) or b"2 0 R"
    names = b" ".join(b"/X%d %d 0 R" % (number, 6 + number) for number in range(len(forms)))
    filtered = b"/Filter " + filters if filters else b""
    bodies = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [" + kids + b"] /Count %d >>" % max(pages, 1),
        b"<< /Font << /F1 4 0 R >> /XObject << " + names + b" >> >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        _stream(filtered, content),
        *(_stream(b"/Type /XObject /Subtype /Form /BBox [0 0 612 792] /Resources 3 0 R", form) for form in forms),
        *[b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 5 0 R /Resources 3 0 R >>"] * pages,
    ]
    out, table = b"%PDF-1.7\n", b"0000000000 65535 f \n"
    for number, body in enumerate(bodies, start=1):
        table += b"%010d 00000 n \n" % len(out)
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(bodies) + 1, len(out))
    return out + b"xref\n0 %d\n" % (len(bodies) + 1) + table + trailer


def _stream(entries: bytes, data: bytes) -> bytes:
    return b"<< /Length %d " % len(data) + entries + b" >>\nstream\n" + data + b"\nendstream"


def looping_pdf() -> bytes:
    """A thousand pages, each of which draws a form that draws the next of 30 forms ten times: no cycle, and no end."""
    words = b"BT /F1 12 Tf 72 700 Td (again) Tj ET"
    return pdf(b"/X0 Do", forms=(*(b"/X%d Do " % n * 10 for n in range(1, 30)), words), pages=1000)


def encrypted_pdf(data: bytes) -> bytes:
    """The same, behind a password."""
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(data)))
    writer.encrypt("a password", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


_RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_TYPES = "http://schemas.openxmlformats.org/package/2006/content-types"
_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_SHEETS = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_MIME = "application/vnd.openxmlformats-officedocument"
_XML = '<?xml version="1.0" encoding="UTF-8"?>'


def docx(body: str, *, prolog: str = "") -> bytes:
    """A Word document of the paragraphs given as XML."""
    xml = f'{_XML}{prolog}<w:document xmlns:w="{_WORD}"><w:body>{body}</w:body></w:document>'
    return _zip(_docx_frame() | {"word/document.xml": xml})


def docx_bomb() -> tuple[bytes, int]:
    """Some 600 MB of one paragraph after the other, and their exact size in bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, part in _docx_frame().items():
            archive.writestr(name, part)
        with archive.open("word/document.xml", "w") as stream:
            stream.write(f'{_XML}<w:document xmlns:w="{_WORD}"><w:body>'.encode())
            paragraphs = b"<w:p><w:r><w:t>again</w:t></w:r></w:p>" * 27_000
            for _ in range(600):
                stream.write(paragraphs)
            stream.write(b"</w:body></w:document>")
    return out.getvalue(), archive.getinfo("word/document.xml").file_size


def _docx_frame() -> dict[str, str]:
    return _frame("/word/document.xml", f"{_MIME}.wordprocessingml.document.main+xml")


def xlsx(rows: str, *, prolog: str = "") -> bytes:
    """A workbook with one sheet of the rows given as XML."""
    book = (
        f'{_XML}<workbook xmlns="{_SHEETS}" xmlns:r="{_OFFICE}">'
        '<sheets><sheet name="One" sheetId="1" r:id="rId1"/></sheets></workbook>'
    )
    link = f'<Relationship Id="rId1" Type="{_OFFICE}/worksheet" Target="worksheets/sheet1.xml"/>'
    kind = f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{_MIME}.spreadsheetml.worksheet+xml"/>'
    parts = _frame("/xl/workbook.xml", f"{_MIME}.spreadsheetml.sheet.main+xml", kind)
    parts["xl/workbook.xml"] = book
    parts["xl/_rels/workbook.xml.rels"] = f'{_XML}<Relationships xmlns="{_RELATIONS}">{link}</Relationships>'
    sheet = f'<worksheet xmlns="{_SHEETS}"><sheetData>{rows}</sheetData></worksheet>'
    parts["xl/worksheets/sheet1.xml"] = f"{_XML}{prolog}{sheet}"
    return _zip(parts)


def _frame(main: str, kind: str, more: str = "") -> dict[str, str]:
    """The parts that every Office document has: what its parts are, and which of them is the document."""
    defaults = '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    types = f'{defaults}<Default Extension="xml" ContentType="application/xml"/>'
    override = f'<Override PartName="{main}" ContentType="{kind}"/>'
    root = f'<Relationship Id="rId1" Type="{_OFFICE}/officeDocument" Target="{main[1:]}"/>'
    return {
        "[Content_Types].xml": f'{_XML}<Types xmlns="{_TYPES}">{types}{override}{more}</Types>',
        "_rels/.rels": f'{_XML}<Relationships xmlns="{_RELATIONS}">{root}</Relationships>',
    }


def _zip(parts: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return out.getvalue()


def _laughs() -> str:
    """Entities that double a word ten times over, ten times: some 30 GB."""
    levels = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    return f'<!DOCTYPE x [<!ENTITY l0 "{"ha" * 15}">{levels}]>'


def _zeros(size: int) -> bytes:
    """So many zero bytes, deflated to a thousandth."""
    deflate, block = zlib.compressobj(1), bytes(1 << 20)
    return b"".join(deflate.compress(block) for _ in range(size >> 20)) + deflate.flush()


def repeating_parquet() -> bytes:
    """One string of a megabyte, stored once, as the text of 10,000 rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int32()), ["word " * 200_000])
    out = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), out, compression="zstd", store_schema=False)
    return out.getvalue()


def misbehave(data: bytes, name: str) -> Document:
    """A loader that does what the name of the file says, such as `hoard 100`, and otherwise reads it as text."""
    action, _, argument = name.partition(" ")
    text = str(_ACTIONS[action](argument)) if action in _ACTIONS else data.decode()
    sections = (Section(start=0, end=len(text)),) if text else ()
    return Document(title=name, text=text, sections=sections)


def _burn(seconds: str) -> None:
    end = time.process_time() + float(seconds or "inf")
    while time.process_time() < end:
        pass


_kept: list[bytearray] = []


def _hoard(megabytes: str) -> None:
    bytearray(int(megabytes) << 20)


def _hoard_in_disguise(megabytes: str) -> None:
    try:
        _hoard(megabytes)
    except MemoryError as error:
        raise ValueError("the table could not be converted") from error


def _die_out_of_memory(_: str) -> None:
    os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n")
    os.abort()


def _die_if_used(_: str) -> int:
    _kept.append(bytearray())
    if len(_kept) > 1:
        os.abort()
    return os.getpid()


def _chatter(_: str) -> str:
    sys.stdout.write("a parser's progress\n" * 1000)
    sys.stdout.flush()
    os.write(1, b"and its library's\n" * 1000)
    return sys.stdin.read()


def _write(megabytes: str) -> None:
    with tempfile.TemporaryFile() as file:
        for _ in range(int(megabytes)):
            file.write(bytes(1 << 20))


def _refuse(reason: str) -> None:
    raise DocumentError(reason, "encrypted")


def _fail(_: str) -> None:
    raise ValueError("lone \ud800 and\nlong " * 1000)


_ACTIONS: dict[str, Callable[[str], object]] = {
    "burn": _burn,
    "chatter": _chatter,
    "core": lambda _: resource.getrlimit(resource.RLIMIT_CORE),
    "die": lambda name: os.kill(os.getpid(), signal.Signals[name]),
    "die-if-used": _die_if_used,
    "die-out-of-memory": _die_out_of_memory,
    "environment": lambda _: json.dumps(dict(os.environ)),
    "exit": lambda status: sys.exit(int(status)),
    "fail": _fail,
    "hoard": _hoard,
    "hoard-in-disguise": _hoard_in_disguise,
    "import": importlib.import_module,
    "keep": lambda megabytes: _kept.append(bytearray(int(megabytes) << 20)),
    "pid": lambda _: os.getpid(),
    "refuse": _refuse,
    "sleep": lambda seconds: time.sleep(float(seconds)),
    "write": _write,
    "surrogate": lambda _: "half a pair: \ud800",
}


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True)
    sys.stdout.write(json.dumps({name: sorted(outcomes) for name, outcomes in write_zoo(target).items()}, indent=1))
