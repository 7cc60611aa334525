"""One shard becomes one part: its documents read, normalised, filtered, checked for contamination, with signatures.

Below the target's folder:

    curated/part-00000.parquet    what was kept
    dropped/part-00000.jsonl      what was not, each with its reason
    counts/part-00000.json        how many; written last

Columns of a part: doc_id, source, licence, path, locator, text, bytes (of the text in UTF-8), language, priority (place
of the source), exact_digest (first 16 bytes of the text's SHA-256), signature (MinHash, PERMUTATIONS little-endian
32-bit numbers).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from include.storage import digest, new_file, read_json, write_json
from include.training.corpus.config import CurationConfig, curation_digest
from include.training.corpus.decontaminate import Contamination, read_indexed_sets
from include.training.corpus.filters import Filters, Verdict, normalise
from include.training.corpus.listing import Listing, Shard, read_listing, read_units
from include.training.corpus.reading import Raw, ShardReader
from include.training.corpus.report import Tally, cut
from include.training.corpus.words import Hashes, ngram_hashes, word_hashes, words

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from upath import UPath

log = logging.getLogger(__name__)

PERMUTATIONS = 128
"""Numbers of a signature: an estimated similarity of 0.8 is right to 0.035 (one standard deviation)."""
SHINGLE_WORDS = 5
SEED = 42
DIGEST_BYTES = 16
SIGNATURE_BYTES = 4 * PERMUTATIONS
_GROUP_BYTES = 8 << 20
_GROUP_ROWS = 1_000
_REPORT_EVERY = 1_000


def curate_shard(listing: UPath, index: int, target: UPath, config: CurationConfig, *, root: str) -> dict[str, Any]:
    """Curate the shard of that number; small counts, for an XCom. What was done already is not done again.

    Documents are held one at a time, and kept ones until a group of 8 MiB is written. DriftError if the listing lacks
    what it should have.
    """
    listed = read_listing(listing)
    shard = listed.shards[index]
    evaluation = read_indexed_sets(listing).digest if config.evaluation_sets else ""
    work = digest(curation_digest(listed.digest, config, evaluation), str(index))
    counts_file = target / "counts" / f"part-{index:05d}.json"
    if counts_file.exists() and (found := read_json(counts_file))["work"] == work:
        log.info("part %d is curated already", index)
        return _small(index, Tally.from_json(found))
    contamination = Contamination.read(listing) if config.evaluation_sets else Contamination({})
    tally = Tally()
    with _new_part(target, index, tally) as part:
        _curate(part, Filters(config), contamination, _documents(listed, shard, config, root, tally))
    write_json(counts_file, {"schema_version": 1, "work": work, **tally.to_json()})
    log.info("part %d: %s", index, _small(index, tally))
    return _small(index, tally)


def _documents(listed: Listing, shard: Shard, config: CurationConfig, root: str, tally: Tally) -> Iterator[Raw]:
    with ShardReader(listed.sources, root=root, limits=config.limits) as reader:
        for number, raw in enumerate(reader.read(read_units(shard)), start=1):
            yield raw
            if number % _REPORT_EVERY == 0:
                log.info("%d documents read", number)
        tally.note("rejects", "records", reader.rejects)


def _curate(part: _Part, filters: Filters, contamination: Contamination, documents: Iterator[Raw]) -> None:
    for raw in documents:
        part.count(raw)
        if raw.fault:
            part.drop(raw, raw.fault, raw.reason)
            continue
        text = normalise(raw.text)
        verdict, language = filters.verdict(text, raw.language)
        if verdict is None:
            found = words(text)
            hashes = word_hashes(found)
            if (shared := contamination.found(found, hashes)) is not None:
                verdict = Verdict("contaminated", shared)
            else:
                part.keep(raw, text, language, hashes)
        if verdict is not None:
            part.drop(raw, verdict.reason, verdict.detail, text)


@contextmanager
def _new_part(target: UPath, index: int, tally: Tally) -> Iterator[_Part]:
    """A part to fill; its files take their places when the context ends without an error."""
    import pyarrow.parquet as pq

    with (
        new_file(target / "dropped" / f"part-{index:05d}.jsonl") as dropped,
        new_file(target / "curated" / f"part-{index:05d}.parquet") as file,
        # Digests and signatures are as good as random: a dictionary of them is larger than they are.
        pq.ParquetWriter(file, schema(), compression="lz4", use_dictionary=["source", "licence", "language"]) as writer,
    ):
        part = _Part(writer, dropped, tally)
        yield part
        part.flush()


class _Part:
    """A part as it grows."""

    def __init__(self, writer: pq.ParquetWriter, dropped: IO[bytes], tally: Tally) -> None:
        self._writer = writer
        self._dropped = dropped
        self._tally = tally
        self._rows: list[dict[str, Any]] = []
        self._hashes: list[Hashes] = []
        self._size = 0

    def count(self, raw: Raw) -> None:
        """A document was read, whatever becomes of it."""
        self._tally.read[raw.source] += 1
        self._tally.note("characters_read", raw.source, len(raw.text))

    def drop(self, raw: Raw, reason: str, detail: str, text: str = "") -> None:
        """Leave a document out."""
        told = {"source": raw.source, "path": raw.path, "locator": raw.locator, "detail": detail}
        self._tally.drop(raw.source, reason)
        self._tally.sample(reason, {**told, "text": text})
        line = {"doc_id": raw.doc_id, "reason": reason, **cut(told)}
        line["path"] = raw.path
        self._dropped.write(json.dumps(line).encode() + b"\n")

    def keep(self, raw: Raw, text: str, language: str, hashes: Hashes) -> None:
        """Write a document, of whose words those are the hashes."""
        data = text.encode()
        sha = hashlib.sha256(data).digest()[:DIGEST_BYTES]
        shingles = (
            ngram_hashes(hashes, min(SHINGLE_WORDS, len(hashes))) if len(hashes) else np.frombuffer(sha, np.uint64)
        )
        self._hashes.append(shingles)
        row = {name: getattr(raw, name) for name in ("doc_id", "source", "licence", "path", "locator", "priority")}
        self._rows.append({**row, "text": text, "bytes": len(data), "language": language, "exact_digest": sha})
        self._tally.note("languages", language)
        self._size += len(data) + shingles.nbytes
        if self._size >= _GROUP_BYTES or len(self._rows) >= _GROUP_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered as a group of rows."""
        import pyarrow as pa

        if self._rows:
            for row, signature in zip(self._rows, signatures(self._hashes), strict=True):
                row["signature"] = signature
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=schema()))
        self._rows, self._hashes, self._size = [], [], 0


def schema() -> pa.Schema:
    """The columns of a part."""
    import pyarrow as pa

    kinds = {
        "bytes": pa.int64(),
        "priority": pa.int32(),
        "exact_digest": pa.binary(DIGEST_BYTES),
        "signature": pa.binary(SIGNATURE_BYTES),
    }
    names = "doc_id source licence path locator text bytes language priority exact_digest signature"
    return pa.schema([(name, kinds.get(name, pa.string())) for name in names.split()])


def signatures(shingles: list[Hashes]) -> list[bytes]:
    """The MinHash signature of each set of shingles, none of which is empty."""
    from rensa import RMinHash

    rows = RMinHash.digest_matrix_from_token_hash_sets(shingles, PERMUTATIONS, SEED).to_rows()
    return [np.array(row, "<u4").tobytes() for row in rows]


def _small(index: int, tally: Tally) -> dict[str, Any]:
    read, dropped = tally.read.total(), tally.reasons
    return {"index": index, "read": read, "kept": read - dropped.total(), "dropped": dict(sorted(dropped.items()))}
