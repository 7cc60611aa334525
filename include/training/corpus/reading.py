"""The documents of a shard, one after the other; what cannot be read comes as a problem, and the rest goes on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include.documents.document import Document
from include.documents.reader import Limits, Reader
from include.documents.source import FolderSource, content_digest, source_uri
from include.errors import DocumentError, StateMovedError
from include.storage import digest, location
from include.training.corpus.listing import Unit, stamp_of
from include.training.corpus.records import Stretch, read_records
from include.training.corpus.sources import CorpusSource

if TYPE_CHECKING:
    from upath import UPath


@dataclass(frozen=True, kw_only=True, slots=True)
class Raw:
    """A document as its source has it, or why it cannot be used."""

    doc_id: str
    """Of where it lies, whichever shard it is read in."""
    source: str
    priority: int
    """Place of its source among all; of duplicates the first source's is kept."""
    path: str
    locator: str | None = None
    """The record within the file."""
    licence: str | None = None
    language: str | None = None
    """As its source tells it."""
    text: str = ""
    fault: str = ""
    reason: str = ""
    """Why it cannot be used; with a fault there is no text."""


class ShardReader(AbstractContextManager["ShardReader"]):
    """Reads units, each document under limits in a process of its own."""

    def __init__(self, sources: tuple[CorpusSource, ...], *, root: str, limits: Limits) -> None:
        self._sources = sources
        self._root = root
        self._limits = limits
        self._reader = Reader(limits)
        self._folders: dict[tuple[int, str], FolderSource] = {}
        self.rejects = 0
        """Records of documents that could not be used while the others could."""

    def __exit__(self, *_: object) -> None:
        self._reader.__exit__()

    def read(self, units: Iterable[Unit]) -> Iterator[Raw]:
        """Every document of the units.

        A document that is gone, forbidden, or changed since it was listed is told as a fault; an OSError of any other
        kind may pass, and is raised. StateMovedError if a file of records changed, whose stretches belong together.
        """
        for unit in units:
            source = self._sources[unit.source]
            yield from self._records(unit, source) if source.kind == "records" else [self._document(unit, source)]

    def _document(self, unit: Unit, source: CorpusSource) -> Raw:
        try:
            if unit.size > self._limits.document_mb << 20:
                raise DocumentError(f"{unit.size:,} bytes; the limit is {self._limits.document_mb} MiB", "size_limit")
            document = self._reader.read(self._bytes(unit, source), unit.path)
        except DocumentError as error:
            return _raw(unit, source, fault=error.fault, reason=str(error))
        except _ChangedError:
            return _raw(unit, source, fault="changed", reason="its bytes are not those that were listed")
        except (FileNotFoundError, NotADirectoryError):
            return _raw(unit, source, fault="vanished", reason="deleted since it was listed")
        except PermissionError as error:
            return _raw(unit, source, fault="unreadable", reason=str(error))
        self.rejects += len(document.rejects)
        return _raw(unit, source, text=whole_text(document), licence=source.licence)

    def _bytes(self, unit: Unit, source: CorpusSource) -> bytes:
        """A document's bytes, which are those that were listed."""
        key = (unit.source, unit.folder)
        if key not in self._folders:
            self._folders[key] = FolderSource(unit.folder or source_uri(source.uri), root=self._root)
        folder = self._folders[key]
        data = folder.read(unit.path)
        # A digest where files are local or a ledger lists them, else an ETag.
        if unit.mark and (unit.mark == content_digest(data) or unit.mark == folder.stamp(unit.path)):
            return data
        raise _ChangedError

    def _records(self, unit: Unit, source: CorpusSource) -> Iterator[Raw]:
        place = location(source.uri)
        file = place / unit.path if unit.path else place
        _expect_stamp(file, unit)
        for found in read_records(file, Stretch(unit.start, unit.end), source.text_field):
            told: dict[str, Any]
            licence = found.licence or source.licence
            if found.problem is not None:
                told = {"fault": found.problem.fault, "reason": str(found.problem)}
            elif licence is None:
                told = {"fault": "no_licence", "reason": "neither the record nor its source names a licence"}
            else:
                told = {"text": found.text, "licence": licence}
            yield _raw(unit, source, locator=found.locator, **told)
        _expect_stamp(file, unit)


class _ChangedError(Exception):
    """A document is not what was listed."""


def whole_text(document: Document) -> str:
    """A document's text with the headings that it leaves out, such as titles of records and names of sheets."""
    pieces, end, shown = [], 0, None
    for section in document.sections:
        between = document.text[end : section.start]
        heading = section.headings[-1] if section.headings else None
        if heading and section.headings != shown and heading not in between:
            between += f"{heading}\n"
        pieces += [between, document.text[section.start : section.end]]
        end, shown = section.end, section.headings
    return "".join([*pieces, document.text[end:]])


def _raw(unit: Unit, source: CorpusSource, *, locator: str | None = None, **told: Any) -> Raw:
    name = source.name_of(unit.path)
    return Raw(
        doc_id=digest(source.name, unit.folder, unit.path, locator or "")[:32],
        source=name,
        priority=unit.source,
        path=unit.path,
        locator=locator,
        language=source.language,
        **told,
    )


def _expect_stamp(file: UPath, unit: Unit) -> None:
    try:
        found = stamp_of(file.fs.info(file.path))
    except FileNotFoundError:
        found = "gone"
    if found != unit.stamp:
        raise StateMovedError(f"{file} changed since it was listed: clear the task that lists the corpus")
