"""What an index could not read: dead letters, in one file of the index and, as they stood, beside each run's results.

A document is not tried again while its bytes, the reader and its limits stay the same.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from upath import UPath

from include.contracts import DeadLetter
from include.errors import ToleranceError
from include.rag.config import IngestConfig
from include.storage import read_jsonl, write_jsonl

log = logging.getLogger(__name__)

NOT_THE_DATA = ("unreadable", "unsupported", "not_embedded")
"""Faults of storage, of the installation or of the embedding model: the same bytes may fare better another time."""
SHOWN = 5


class Quarantine:
    """The dead letters of an index as the last runs that committed left them."""

    def __init__(self, home: UPath) -> None:
        self._letters: dict[str, list[dict[str, Any]]] = {}
        for row in _read(home):
            self._letters.setdefault(row["doc_id"], []).append(row)

    def knows(self, doc_id: str) -> bool:
        """Whether a document, or a record of it, was set aside."""
        return doc_id in self._letters

    def of(self, doc_id: str, content_digest: str) -> list[dict[str, Any]]:
        """The letters of a document that speak of these bytes."""
        return [row for row in self._letters.get(doc_id, ()) if row["content_digest"] == content_digest]


def write_letters(config: IngestConfig, letters: Sequence[DeadLetter]) -> str | None:
    """Write the letters beside the run's results; their URI if there are any."""
    file = _file(config.run_home)
    if not letters:
        file.unlink(missing_ok=True)  # of an earlier attempt
        return None
    write_jsonl(file, (letter.model_dump(mode="json") for letter in letters))
    log.warning("quarantined: %s; reasons in %s", dict(Counter(letter.fault for letter in letters)), file)
    return str(file)


def keep_letters(config: IngestConfig, letters: Sequence[DeadLetter]) -> None:
    """Keep the letters for the next run, in place of those of the same source; to be called when all is committed.

    A run that fails before that leaves no letter, so that the next one finds the same work, and its finished parts.
    """
    before = list(_read(config.home))
    others = [row for row in before if row["source"] != config.source]
    after = others + [letter.model_dump(mode="json") for letter in letters]
    if after != before:
        write_jsonl(_file(config.home), after)


def enforce(config: IngestConfig, letters: Sequence[DeadLetter]) -> None:
    """ToleranceError if something was set aside and the run tolerates nothing; it names the first and the way out."""
    if config.tolerate != "none" or not letters:
        return
    shown = "; ".join(f"{letter.path}{_at(letter)}: {letter.reason}" for letter in letters[:SHOWN])
    raise ToleranceError(
        f"tolerate='none', but {len(letters)} dead letters: {shown}. Nothing was committed. Mend or exclude them, or "
        f"set tolerate to bad_data; all reasons: {_file(config.run_home)}"
    )


def _file(folder: UPath) -> UPath:
    return folder / "quarantine.jsonl"


def _read(home: UPath) -> Iterator[dict[str, Any]]:
    return read_jsonl(_file(home)) if _file(home).exists() else iter(())


def _at(letter: DeadLetter) -> str:
    return f" ({letter.locator})" if letter.locator else ""
