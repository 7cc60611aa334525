"""adopt(): an index that somebody else built becomes the live version of an index of ours, to be read only.

It is refused unless a search finds in it what its owner's would: the fields are there, and the vectors are what the
named embedder makes of the texts.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from upath import UPath

from include.config import Settings, load_settings
from include.documents.source import source_uri
from include.errors import UserError
from include.models import embeddings
from include.models.embeddings import Embedder, embed_metered
from include.models.metering import Caller, Meter
from include.rag.stores import check_name, search_text
from include.rag.stores.adopted import FIELDS, Adopted, AdoptedReader, Sampled, open_adopted
from include.rag.versions import ADOPTED, Spec, Version, Versions
from include.storage import is_local, local_uri, location

log = logging.getLogger(__name__)

SAMPLE = 20
"""Rows that are looked at."""
ALIKE = 0.98
"""Cosine above which two vectors are of one text and one model, whose weights may be rounded otherwise."""
SHARE = 0.9
"""Of the sampled rows that must be as they should: a few were edited by hand, or were cut otherwise."""
FILES_SHARE = 0.5
"""Of the sampled paths that must lie in the source: files come and go after they were indexed."""
_LENGTHS = (0.99, 1.01)
"""Of what counts as a unit vector."""


def adopt(
    versions: Versions, *, store: str, place: str, embedder: str, fields: Mapping[str, str], source: str | None, by: str
) -> Version:
    """Let readers of an index have what lies at a place; nothing is ever written there.

    `place`: name of an index or alias of OpenSearch, or URI of a LanceDB folder and `#TABLE`. `fields`: what `text`,
    `vector`, `id`, `title`, `path` and `headings` are called there, where LangChain would call them otherwise.
    `source`: URI of the folder that the paths belong to; by it the gate can compare with what ingestion builds of that
    folder. UserError with the reason if it is refused.
    """
    check_name(store)
    embeddings.check_installed(embedder)
    versions.expect_adoptable()
    settings, model = load_settings(), embeddings.get_embedder(embedder)
    adopted = Adopted(
        place=place, fields=_named(store, fields), source=source_uri(source) if source else None, rows=0, by=by
    )
    reader = open_adopted(store, adopted, model, versions.tenant)
    _check_owner(reader.place, settings)
    rows = reader.count()
    if not rows:
        raise UserError(f"{reader.uri} holds no row; must hold at least one")
    sampled = reader.sample(SAMPLE)
    caller = Caller(tenant=versions.tenant, use_case=settings.use_case)
    with Meter(root=settings.root, caller=caller) as meter:
        _check_vectors(sampled, model, reader, meter)
    if adopted.source:
        _check_paths(sampled, adopted.source, reader)
    spec = Spec(store=store, embedder=embedder, embedder_version=model.name, chunker=ADOPTED, schema=ADOPTED)
    version = versions.adopt(spec, replace(adopted, place=reader.place, rows=rows))
    log.info("%s of %s is %s, %d rows", version.name, versions, reader.uri, rows)
    return version


def read_fields(text: str) -> dict[str, str]:
    """`text=body path=metadata.file` as a mapping; UserError if it is written otherwise."""
    pairs = [part.partition("=") for part in re.split(r"[\s,]+", text.strip()) if part]
    if odd := [name for name, equals, field in pairs if not (name and equals and field)]:
        raise UserError(f"fields={text!r}: {odd[0]!r} has no field; write NAME=FIELD, with spaces between several")
    return {name: field for name, _, field in pairs}


def _named(store: str, fields: Mapping[str, str]) -> dict[str, str]:
    if unknown := sorted(fields.keys() - FIELDS[store].keys()):
        raise UserError(f"fields: {unknown[0]!r} is not known; choose among {', '.join(FIELDS[store])}")
    return {**FIELDS[store], **fields}


def _check_owner(place: str, settings: Settings) -> None:
    """What we built is another index's, perhaps another tenant's, and comes and goes with its versions."""
    root = location(settings.root)
    below = f"{local_uri(root.path) if is_local(root) else settings.root.rstrip('/')}/"
    if place.startswith((below, f"{settings.opensearch_prefix}.")):
        raise UserError(f"place={place!r} was built here; only what was built elsewhere can be adopted")


def _check_vectors(sampled: Sequence[Sampled], model: Embedder, reader: AdoptedReader, meter: Meter) -> None:
    """UserError unless most vectors are what the embedder makes of text, alone or behind title and headings."""
    import numpy as np

    whole = [one for one in sampled if one.row["text"].strip() and one.vector.shape == (model.dimension,)]
    if len(whole) < SHARE * len(sampled):
        raise UserError(
            f"{reader.uri}: only {len(whole)} of {len(sampled)} sampled rows show a text and a vector that could be "
            f"compared; must be {SHARE:.0%}"
        )
    held = np.nan_to_num(np.array([one.vector for one in whole]))
    lengths = np.linalg.norm(held, axis=1)
    if reader.similarity != "cosine" and not ((_LENGTHS[0] < lengths) & (lengths < _LENGTHS[1])).all():
        raise UserError(
            f"{reader.uri} ranks by {reader.similarity}, as cosine does for vectors of length 1 only; its lengths are "
            f"{lengths.min():.3g} to {lengths.max():.3g}: must be unit vectors, or be ranked by cosinesimil"
        )
    rows = [one.row for one in whole]
    texts = [row["text"] for row in rows]
    titled = [search_text(row["title"], row["headings"], row["text"]) for row in rows]
    made = embed_metered(model, [*texts, *titled], meter).reshape(2, len(rows), model.dimension)
    cosines = (made * held).sum(axis=2).max(axis=0) / np.maximum(lengths, 1e-9)
    alike = int((cosines >= ALIKE).sum())
    if alike < SHARE * len(rows):
        raise UserError(
            f"{reader.uri}: its vectors are not of embedder {model.name}: {alike} of {len(rows)} sampled ones are what "
            f"it makes of their text; the mean cosine is {cosines.mean():.3f}, must be {ALIKE} for {SHARE:.0%}"
        )


def _check_paths(sampled: Sequence[Sampled], source: str, reader: AdoptedReader) -> None:
    """UserError unless most paths lie in the source: else no answer could be compared with ours."""
    folder = location(source)
    lacking = [path for path in (one.row["path"] for one in sampled) if not _is_file(folder, path)]
    if len(sampled) - len(lacking) < FILES_SHARE * len(sampled):
        raise UserError(
            f"source={source!r}: {len(lacking)} of {len(sampled)} sampled paths of {reader.uri} are not in it, such as "
            f"{lacking[0]!r}; give the folder that they belong to, the field of the path, or no source"
        )


def _is_file(folder: UPath, path: str) -> bool:
    """Whether a path, which anybody may have written, is a file below the folder."""
    parts = PurePosixPath(path)
    if not path.isprintable() or "://" in path or parts.is_absolute() or ".." in parts.parts:
        return False
    return bool((folder / path).is_file())
