"""Documents that hold a piece of an evaluation set, told by 13 words in a row, are kept out of training.

The rule is GPT-3's (Brown et al., arXiv 2005.14165, appendix C), for whole documents. Of an evaluation text of fewer
words, but SHORTEST at least, all its words in a row count; shorter ones stand everywhere and are not looked for.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from include.errors import DriftError, UserError
from include.storage import digest, location, new_file, read_json, read_parquet, write_json
from include.training.corpus.words import Hashes, ngram_hashes, word_hashes, words

if TYPE_CHECKING:
    from upath import UPath

WORDS = 13
SHORTEST = 8
MAX_NGRAMS = 50_000_000
"""400 MB of hashes, which every task that curates a shard holds."""
_MERGE_AT = 1_000_000
_INDEX, _RECORD = "evaluation_ngrams.parquet", "evaluation_ngrams.json"
_SCHEMA_VERSION = 1
_MISSING = "the n-grams of evaluation sets are not there: clear the task that lists the corpus"


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexedSets:
    """What evaluation sets were made to."""

    digest: str
    """Of the n-grams."""
    texts: int
    too_short: int
    """Texts of fewer than SHORTEST words, which no document is compared with."""
    ngrams: int


def index_evaluation_sets(uris: Sequence[str], target: UPath) -> IndexedSets:
    """Write the n-grams of all strings in those JSON lines files, with .gz or without, as sorted hashes below target.

    Lines are read one at a time; the hashes are held, 8 bytes each. UserError if a set is not there, has a line that is
    no JSON or no text that can be looked for, or if the n-grams are more than MAX_NGRAMS: a set that is not
    understood would pass for one that nothing is contaminated with.
    """
    gathered = _Gathered()
    for uri in uris:
        before = gathered.texts - gathered.too_short
        for text in _texts(uri):
            gathered.add(text)
        if gathered.texts - gathered.too_short == before:
            raise UserError(f"evaluation set {uri} has no text of at least {SHORTEST} words: give another, or none")
    hashes = gathered.merged()
    _write(target / _INDEX, hashes)
    made = IndexedSets(
        digest=digest(*(part for n, mine in hashes.items() for part in (str(n), mine.astype("<u8").tobytes()))),
        texts=gathered.texts,
        too_short=gathered.too_short,
        ngrams=sum(map(len, hashes.values())),
    )
    write_json(target / _RECORD, {"schema_version": _SCHEMA_VERSION, **asdict(made)})
    return made


class Contamination:
    """Looks for the n-grams of evaluation sets."""

    def __init__(self, hashes: dict[int, Hashes]) -> None:
        """By length in words, each sorted."""
        self._hashes = hashes

    @classmethod
    def read(cls, folder: UPath) -> Contamination:
        """As index_evaluation_sets() left them; DriftError if they are not there."""
        try:
            table = read_parquet(folder / _INDEX)
        except FileNotFoundError:
            raise DriftError(f"{folder}: {_MISSING}") from None
        lengths, hashes = (table[name].to_numpy() for name in ("words", "hash"))
        return cls({int(n): hashes[lengths == n] for n in np.unique(lengths)})

    def found(self, text_words: list[str], hashes: Hashes) -> str | None:
        """The first words of a document, of which word_hashes() made the hashes, that an evaluation set has too."""
        for n, known in self._hashes.items():
            mine = ngram_hashes(hashes, n)
            places = np.minimum(np.searchsorted(known, mine), len(known) - 1)
            if (hits := np.flatnonzero(known[places] == mine)).size:
                return " ".join(text_words[hits[0] : hits[0] + n])
        return None


def read_indexed_sets(folder: UPath) -> IndexedSets:
    """What index_evaluation_sets() returned; DriftError if it was not called."""
    try:
        value = read_json(folder / _RECORD)
    except FileNotFoundError:
        raise DriftError(f"{folder}: {_MISSING}") from None
    del value["schema_version"]
    return IndexedSets(**value)


class _Gathered:
    """Hashes by length, merged whenever enough came together, so that no n-gram is held twice for long."""

    def __init__(self) -> None:
        self.texts = self.too_short = 0
        self._known: dict[int, Hashes] = {}
        self._new: dict[int, list[Hashes]] = {}
        self._waiting = 0

    def add(self, text: str) -> None:
        """One text of an evaluation set."""
        hashes = word_hashes(words(text))
        self.texts += 1
        if len(hashes) < SHORTEST:
            self.too_short += 1
            return
        n = min(len(hashes), WORDS)
        made = ngram_hashes(hashes, n)
        self._new.setdefault(n, []).append(made)
        self._waiting += len(made)
        if self._waiting >= _MERGE_AT:
            self.merged()

    def merged(self) -> dict[int, Hashes]:
        """All so far; UserError if they are too many."""
        for n, new in self._new.items():
            self._known[n] = np.unique(np.concatenate([*new, self._known.get(n, np.empty(0, np.uint64))]))
        self._new, self._waiting = {}, 0
        if (total := sum(map(len, self._known.values()))) > MAX_NGRAMS:
            raise UserError(f"evaluation_sets: {total:,} runs of {WORDS} words or more; the limit is {MAX_NGRAMS:,}")
        return dict(sorted(self._known.items()))


def _write(place: UPath, hashes: dict[int, Hashes]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("words", pa.uint8()), ("hash", pa.uint64())])
    with (
        new_file(place) as file,
        pq.ParquetWriter(file, schema, compression="none", use_dictionary=["words"]) as writer,
    ):
        for n, mine in hashes.items():
            for start in range(0, len(mine), _MERGE_AT):
                some = mine[start : start + _MERGE_AT]
                writer.write_table(pa.table([np.full(len(some), n, np.uint8), some], schema=schema))


def _texts(uri: str) -> Iterator[str]:
    """All strings of a file's records, nested ones too."""
    try:
        with location(uri).open("rb") as raw:
            lines = gzip.GzipFile(fileobj=raw) if uri.endswith(".gz") else raw
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    try:
                        yield from _strings(json.loads(line))
                    except (ValueError, RecursionError) as error:
                        raise UserError(f"evaluation set {uri}: line {number} is not JSON ({error})") from None
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise UserError(f"evaluation set {uri} is not there: give the URI of a JSON lines file") from None
    except (EOFError, gzip.BadGzipFile) as error:
        raise UserError(f"evaluation set {uri} cannot be unpacked: {error}") from None


def _strings(value: Any) -> Iterator[str]:
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict | list):
            stack.extend(one.values() if isinstance(one, dict) else one)
