"""Bytes of one file become a document: text, and the sections of it, each under its path of headings.

Nothing is guessed and nothing is lost in silence: bytes that cannot be read exactly are a DocumentError, a record that
cannot be used is a Reject. Nothing is fetched, and no file but the given one is read. What loaders leave out is stated
where they do it. How long a loader takes and how much memory is for the caller to limit: parsers of rich formats can be
made to want much of either.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath

from include.documents.document import Document
from include.documents.loaders import html, mail, office, pdf, records, tables, text
from include.errors import DocumentError

_LOADERS: dict[str, Callable[[bytes, str], Document]] = {
    ".txt": text.load_plain,
    ".text": text.load_plain,
    ".rst": text.load_rst,
    ".md": text.load_markdown,
    ".markdown": text.load_markdown,
    ".html": html.load_html,
    ".htm": html.load_html,
    ".jsonl": records.load_jsonl,
    ".ndjson": records.load_jsonl,
    ".json": records.load_json,
    ".parquet": records.load_parquet,
    ".csv": tables.load_csv,
    ".tsv": tables.load_tsv,
    ".xlsx": tables.load_xlsx,
    ".pdf": pdf.load_pdf,
    ".docx": office.load_docx,
    ".pptx": office.load_pptx,
    ".eml": mail.load_mail,
}
"""A new format is a function from bytes and the file's stem to a Document, and its suffixes here. Its module imports
its parser inside the function, so that a process pays for the formats it meets alone."""

SUFFIXES = frozenset(_LOADERS)
"""What load() can read."""

ONLY_DECODED = (".txt", ".text")
"""Kinds that are decoded and nothing else: no bytes make that cost more than in proportion to how many they are."""


def load(data: bytes, name: str) -> Document:
    """Read a file by the suffix of its name; DocumentError, with the reason, if it cannot be read.

    MemoryError passes through: whether that is the document's fault depends on the limit that the caller set.
    """
    path = PurePosixPath(name)
    suffix = path.suffix.lower()
    loader = _LOADERS.get(suffix)
    if loader is None:
        raise DocumentError(
            f"suffix {suffix!r} cannot be read; can be read: {' '.join(sorted(SUFFIXES))}", "unsupported"
        )
    try:
        document = loader(data, path.stem) if data.strip() else Document(title=path.stem, text="", sections=())
        _refuse_surrogates(document)
    except (DocumentError, MemoryError):
        raise
    except UnicodeEncodeError as error:
        raise DocumentError(f"half a surrogate pair at character {error.start}, no text", "not_text") from None
    except RecursionError:
        raise DocumentError(f"nested too deeply to be read as {suffix}") from None
    except Exception as error:
        # Parsers of foreign formats raise whatever a broken file leads them to, IndexError to struct.error.
        raise DocumentError(f"cannot be read as {suffix}: {type(error).__name__}: {error}") from error
    return document


def _refuse_surrogates(document: Document) -> None:
    for word in (document.title, document.text):
        word.encode()
    for section in document.sections:
        "".join((*section.headings, section.locator or "")).encode()
