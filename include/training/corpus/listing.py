"""What there is to read, listed as a stream and divided into shards, each a file of units; the listing has a digest.

Below the target's folder:

    shards/shard-00000.jsonl    units: a document, or a stretch of a file of records
    listing.json                sources, shards, what was left aside; written last
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from include.contracts import IngestionManifest
from include.documents.source import FolderSource, source_uri
from include.errors import DriftError, UserError
from include.storage import digest, is_local, list_files, location, new_file, read_record, write_bytes
from include.training.corpus.records import stretches
from include.training.corpus.sources import CorpusSource
from include.training.corpus_manifest import sha256_of

if TYPE_CHECKING:
    from upath import UPath

log = logging.getLogger(__name__)

RECORD_SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz", ".parquet")
MAX_SHARDS = 200
"""About so many tasks; a larger corpus makes larger shards."""
MAX_SOURCES = 100
"""Each has a file of its own for what is held out; more come of folders that are no sources."""
UNKNOWN_BYTES = 16 << 10
"""What a document of a ledger counts for, which tells no sizes."""
_REPORT_EVERY = 10_000


class Unit(BaseModel):
    """Something that is read at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: int
    """Its place among the sources."""
    path: str
    size: int
    mark: str
    """Digest of the bytes, or an object store's ETag; empty where the file could not be read."""
    folder: str = ""
    """URI that the path lies below, of a ledger's document; else the source's."""
    start: int = 0
    end: int | None = None
    """Of records, as records.Stretch."""
    stamp: str = ""
    """Of a file of records, by which it is known not to change while its stretches are read."""


class Shard(BaseModel):
    """What one task reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int
    uri: str
    units: int
    bytes: int


class Listing(BaseModel):
    """All that there is to read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    digest: str
    """Of what the units hold, and of all settings of the sources but where they lie."""
    units: int
    bytes: int
    sources: tuple[CorpusSource, ...]
    skipped: dict[str, dict[str, int]]
    """By source: files left aside, by suffix or by what they are."""
    shards: tuple[Shard, ...]


def list_shards(
    sources: Sequence[CorpusSource], *, root: str, tenant: str, target: UPath, shard_bytes: int = 64 << 20
) -> Listing:
    """List all sources and divide them into shards of about shard_bytes, below target.

    Local files are read for their digests, since their times and inodes are those of one machine; objects have ETags.
    UserError if a source is not there, or holds nothing that can be read.
    """
    if shard_bytes < 1:
        raise UserError(f"shard_bytes={shard_bytes} must be at least 1")
    state, names, skipped, total = hashlib.sha256(), set[str](), dict[str, dict[str, int]](), 0
    state.update(digest(str(shard_bytes), *(one.model_dump_json(exclude={"uri"}) for one in sources)).encode())
    with tempfile.TemporaryFile("w+", encoding="utf-8") as spool:
        for number, source in enumerate(sources):
            aside = Counter[str]()
            before = spool.tell()
            for unit in _units(number, source, aside, root=root, tenant=tenant, shard_bytes=shard_bytes):
                line = unit.model_dump_json() + "\n"
                state.update(json.dumps([unit.path, unit.size, unit.mark, unit.start]).encode())
                spool.write(line)
                total += unit.size
                names.add(source.name_of(unit.path))
                if len(names) > MAX_SOURCES:
                    raise UserError(f"source {source.name}: split_by_folder makes more than {MAX_SOURCES} sources")
            skipped[source.name] = dict(sorted(aside.items()))
            if spool.tell() == before:
                left = ", ".join(f"{count} {kind}" for kind, count in sorted(aside.items())) or "nothing"
                raise UserError(
                    f"source {source.name}: {source.uri} has no {_wanted(source)}; left aside: {left}. "
                    "Give a source that has, or leave it out"
                )
        shards = _write_shards(spool, target, max(shard_bytes, -(-total // MAX_SHARDS)))
    listing = Listing(
        digest=state.hexdigest(),
        units=sum(shard.units for shard in shards),
        bytes=total,
        sources=tuple(sources),
        skipped=skipped,
        shards=tuple(shards),
    )
    write_bytes(target / "listing.json", listing.model_dump_json(indent=1).encode())
    return listing


def read_listing(folder: UPath) -> Listing:
    """A listing that was made; DriftError if there is none of a known version."""
    try:
        return Listing.model_validate_json((folder / "listing.json").read_bytes())
    except FileNotFoundError:
        raise DriftError(f"{folder} has no listing.json: clear the task that lists the corpus") from None
    except ValidationError as error:
        raise DriftError(f"{folder / 'listing.json'} is of another release: list the corpus anew ({error})") from None


def read_units(shard: Shard) -> Iterator[Unit]:
    """The units of a shard."""
    with location(shard.uri).open("rb") as file:
        for line in file:
            yield Unit.model_validate_json(line)


def _wanted(source: CorpusSource) -> str:
    suffixes = ", ".join(RECORD_SUFFIXES)
    return {"folder": "document that can be read", "records": f"file of records ({suffixes})"}.get(
        source.kind, "document"
    )


def _units(
    number: int, source: CorpusSource, aside: Counter[str], *, root: str, tenant: str, shard_bytes: int
) -> Iterator[Unit]:
    if source.kind == "index":
        yield from _of_ledger(number, source, root, tenant)
    elif source.kind == "records":
        yield from _of_records(number, source, aside, shard_bytes)
    else:
        yield from _of_folder(number, source, aside, root)


def _of_folder(number: int, source: CorpusSource, aside: Counter[str], root: str) -> Iterator[Unit]:
    uri = source_uri(source.uri)
    folder, on_this_machine = FolderSource(uri, root=root), is_local(location(uri))
    for count, file in enumerate(folder.list(), start=1):
        mark = _mark(file.stamp, on_this_machine, partial(folder.digest, file.path))
        yield Unit(source=number, path=file.path, size=file.size, mark=mark)
        if count % _REPORT_EVERY == 0:
            log.info("source %s: %d documents listed", source.name, count)
    aside.update(folder.skipped)


def _of_records(number: int, source: CorpusSource, aside: Counter[str], shard_bytes: int) -> Iterator[Unit]:
    place = location(source.uri)
    for path, about in list_files(place).items():
        file = place / path if path else place
        if any(part.startswith(".") for part in path.split("/")):
            continue
        if not file.name.endswith(RECORD_SUFFIXES) or not path.isprintable():
            aside[file.suffix if path.isprintable() else "(name that cannot be printed)"] += 1
            continue
        mark = _mark(str(about.get("ETag") or "").strip('"'), is_local(place), partial(sha256_of, file))
        unit = Unit(source=number, path=path, size=0, mark=mark, stamp=stamp_of(about))
        for part in stretches(file, int(about["size"]), shard_bytes):
            yield unit.model_copy(update={"size": part.size, "start": part.start, "end": part.end})


def stamp_of(about: Mapping[str, Any]) -> str:
    """What changes when a file is written, from what its file system tells of it."""
    return ":".join(str(about.get(name) or "") for name in ("size", "mtime", "created", "ETag"))


def _mark(stamp: str, on_this_machine: bool, read: Callable[[], str]) -> str:
    """What changes with a file's bytes and with nothing else; empty if it cannot be had."""
    if stamp and not on_this_machine:
        return stamp
    try:
        return read()
    except (PermissionError, FileNotFoundError, NotADirectoryError):
        return ""  # reading it again tells why


def _of_ledger(number: int, source: CorpusSource, root: str, tenant: str) -> Iterator[Unit]:
    """The documents of the newest ingestion, as its ledger names them."""
    import pyarrow.parquet as pq

    manifest = _newest(source.uri, root, tenant)
    log.info("source %s: ledger version %d of index %s", source.name, manifest.ledger_version, source.uri)
    ledger = location(manifest.ledger_uri)
    if not ledger.exists():
        raise UserError(f"source {source.name}: {ledger} is gone: run the DAG rag_ingestion for index {source.uri}")
    with ledger.open("rb") as file:
        for batch in pq.ParquetFile(file).iter_batches(2_000, columns=["source", "path", "content_digest"]):
            for row in batch.to_pylist():
                yield Unit(
                    source=number,
                    path=row["path"],
                    size=UNKNOWN_BYTES,
                    mark=row["content_digest"],
                    folder=row["source"],
                )


def _newest(index: str, root: str, tenant: str) -> IngestionManifest:
    runs = location(root) / tenant / "rag" / index / "runs"
    found = [run / "manifest.json" for run in runs.iterdir()] if runs.is_dir() else []
    manifests = [read_record(file, IngestionManifest) for file in found if file.exists()]
    if not manifests:
        raise UserError(
            f"index {index!r} of tenant {tenant!r} has no ingestion below {runs}: run the DAG rag_ingestion first"
        )
    return max(manifests, key=lambda one: (one.created_at, one.ledger_version))


def _write_shards(spool: IO[str], target: UPath, max_bytes: int) -> list[Shard]:
    """Shards in the order of their units, each full when the next unit would be too much."""
    spool.seek(0)
    shards: list[Shard] = []
    line = spool.readline()
    while line:
        place = target / "shards" / f"shard-{len(shards):05d}.jsonl"
        units = size = 0
        with new_file(place) as file:
            while line and (not units or size + json.loads(line)["size"] <= max_bytes):
                file.write(line.encode())
                units, size = units + 1, size + json.loads(line)["size"]
                line = spool.readline()
        shards.append(Shard(index=len(shards), uri=str(place), units=units, bytes=size))
    return shards
