"""What an index could not read: dead letters, in one file of the index and, as they stood, beside each run's results.

A document is not tried again while its bytes, the reader and its limits stay the same.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

from upath import UPath

from include.contracts import DeadLetter
from include.errors import ToleranceError
from include.rag.config import IngestConfig
from include.storage import read_jsonl, write_jsonl

log = logging.getLogger(__name__)

NOT_THE_DATA = ("not_embedded", "unsupported")
"""Faults that do not lie in the document: bad data is tolerated by default, these are not."""
SHOWN = 5


class Quarantine:
    """The dead letters of an index as its last run left them."""

    def __init__(self, home: UPath) -> None:
        self._file = quarantine_file(home)
        rows = list(read_jsonl(self._file)) if self._file.exists() else []
        self._letters: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            self._letters.setdefault(row["doc_id"], []).append(row)

    def knows(self, doc_id: str) -> bool:
        """Whether a document, or a record of it, was set aside."""
        return doc_id in self._letters

    def of(self, doc_id: str, content_digest: str) -> list[dict[str, Any]]:
        """The letters of a document that speak of these bytes."""
        return [row for row in self._letters.get(doc_id, ()) if row["content_digest"] == content_digest]


def quarantine_file(home: UPath) -> UPath:
    """Where the letters of an index, or of a run, lie."""
    return home / "quarantine.jsonl"


def write_letters(config: IngestConfig, letters: Sequence[DeadLetter]) -> str | None:
    """Keep the letters for the next run and beside this run's results; the URI of the latter if there are any."""
    rows = [letter.model_dump(mode="json") for letter in letters]
    home = quarantine_file(config.home)
    before = list(read_jsonl(home)) if home.exists() else []
    after = [row for row in before if row["source"] != config.source] + rows
    if after != before:
        write_jsonl(home, after)
    if not rows:
        return None
    write_jsonl(quarantine_file(config.run_home), rows)
    faults = Counter(letter.fault for letter in letters)
    log.warning("quarantined: %s; reasons in %s", dict(faults), quarantine_file(config.run_home))
    return str(quarantine_file(config.run_home))


def enforce(config: IngestConfig, letters: Sequence[DeadLetter]) -> None:
    """ToleranceError if more was set aside than the run tolerates; it names the first and what may be done."""
    if config.tolerate == "all":
        return
    wrong = [letter for letter in letters if config.tolerate == "none" or letter.fault in NOT_THE_DATA]
    if not wrong:
        return
    shown = "; ".join(f"{letter.path}{_at(letter)}: {letter.reason}" for letter in wrong[:SHOWN])
    wider = "bad_data or all" if config.tolerate == "none" else "all"
    raise ToleranceError(
        f"tolerate={config.tolerate!r}, but {len(wrong)} dead letters: {shown}. Nothing was committed. Mend or exclude "
        f"them, or set tolerate to {wider}; all reasons: {quarantine_file(config.run_home)}"
    )


def _at(letter: DeadLetter) -> str:
    return f" ({letter.locator})" if letter.locator else ""
