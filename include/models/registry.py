"""The models that were released: versions, and who is champion. The files are the truth; MLflow shows a view of them.

Below <root>/<tenant>/training/releases/<name>/:

    claims/000001.json   which content has which version number; written before anything else of a version
    1/                   a version: model/, evaluation.json, card.md, ..., and manifest.json, written last
    aliases.json         which version is champion, which challenger

A version without its manifest is none: it is not listed, and releasing the same content again finishes it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from upath import UPath

from include.contracts import ModelRelease, now
from include.errors import BusyError, DriftError, UserError
from include.models.conditional import ABSENT, look, write_if_unchanged
from include.names import checked
from include.storage import digest, list_files, location, read_record

MANIFEST, ALIASES, CLAIMS = "manifest.json", "aliases.json", "claims"
TRIES = 100
"""Of a write that others come before; each of theirs is one release, so more of them at once are not to be expected."""
CHAMPION, CHALLENGER = "champion", "challenger"
_CLAIM = r"\d{6,}\.json"

Better = Callable[[ModelRelease, ModelRelease], tuple[bool, str]]
"""Whether the first is better than the second, and why, in one line."""
B = TypeVar("B", bound=BaseModel)


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1


class Claim(_Kept):
    """Who has a version number, and for what."""

    version: int = Field(ge=1)
    content_digest: str
    run_id: str
    claimed_at: datetime


class Aliases(_Kept):
    """Who is what, and by which reason; replaced whole."""

    champion: int | None = None
    challenger: int | None = None
    """The newest version that was measured against a champion and is none."""
    former: tuple[int, ...] = ()
    """Champions before this one, oldest first."""
    reason: str = ""
    by: str = ""
    """The run that wrote it."""
    at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Promotion:
    """What a version became."""

    version: int
    alias: Literal["champion", "challenger", "former"]
    champion: int
    reason: str


def model_home(root: str, tenant: str, name: str) -> UPath:
    """Where the versions of a model lie."""
    return location(root) / checked("tenant", tenant) / "training" / "releases" / checked("model", name)


def release_home(root: str, tenant: str, name: str, version: int) -> UPath:
    """Where one of them lies."""
    return model_home(root, tenant, name) / str(version)


def content_digest(*, data: str, config: str, code: str, base_model: str | None = None) -> str:
    """What makes two releases the same version: digests of data, configuration and code, and the base model."""
    return digest(data, config, code, base_model or "")


def claim(root: str, tenant: str, name: str, content: str, run_id: str) -> Claim:
    """The version number of some content: the one it has, or the next that nobody has; for ever.

    Of any number of processes at once, those with the same content get the same number, all others one each.
    """
    folder = model_home(root, tenant, name) / CLAIMS
    for _ in range(TRIES):
        claims = [_parsed(folder / path, Claim) for path in list_files(folder) if re.fullmatch(_CLAIM, path)]
        if own := next((one for one in claims if one.content_digest == content), None):
            return own
        number = 1 + max((one.version for one in claims), default=0)
        new = Claim(version=number, content_digest=content, run_id=run_id, claimed_at=now())
        # Whoever wins this number has read all claims before it, so no content is claimed twice.
        if write_if_unchanged(folder / f"{number:06d}.json", _written(new), ABSENT):
            return new
    raise BusyError(f"{folder}: others came first {TRIES} times; no version number was had")


def publish(root: str, release: ModelRelease) -> ModelRelease:
    """Write the manifest, whereby the version is there; the one that is there already if another was faster."""
    file = release_home(root, release.tenant, release.model, release.version) / MANIFEST
    if write_if_unchanged(file, _written(release), ABSENT):
        return release
    return get_version(root, release.tenant, release.model, release.version)


def list_models(root: str, tenant: str) -> list[str]:
    """Names of the models that have a version."""
    folder = location(root) / checked("tenant", tenant) / "training" / "releases"
    found = (re.fullmatch(rf"([^/]+)/[1-9]\d*/{MANIFEST}", path) for path in list_files(folder))
    return sorted({match[1] for match in found if match})


def list_versions(root: str, tenant: str, name: str) -> list[ModelRelease]:
    """All versions of a model, oldest first; empty if there is none. UserError for a manifest of an unknown schema."""
    files = list_files(model_home(root, tenant, name))
    numbers = sorted(int(match[1]) for path in files if (match := re.fullmatch(rf"([1-9]\d*)/{MANIFEST}", path)))
    return [get_version(root, tenant, name, number) for number in numbers]


def find_version(root: str, tenant: str, name: str, version: int) -> ModelRelease | None:
    """One version; None if it is not there, or not whole."""
    file = release_home(root, tenant, name, version) / MANIFEST
    try:
        return read_record(file, ModelRelease)
    except (FileNotFoundError, NotADirectoryError):
        return None


def get_version(root: str, tenant: str, name: str, version: int) -> ModelRelease:
    """One version; UserError, with those that are there, if it is not."""
    if (found := find_version(root, tenant, name, version)) is None:
        there = ", ".join(str(one.version) for one in list_versions(root, tenant, name)) or "none"
        raise UserError(f"model {name!r} of tenant {tenant!r} has no version {version}; there is: {there}")
    return found


def latest(root: str, tenant: str, name: str) -> ModelRelease | None:
    """The newest version; None if there is none."""
    return next(reversed(list_versions(root, tenant, name)), None)


def champion(root: str, tenant: str, name: str) -> ModelRelease | None:
    """The version to use; None if there is none."""
    number = read_aliases(root, tenant, name).champion
    return None if number is None else get_version(root, tenant, name, number)


def find(root: str, tenant: str, reference: str) -> ModelRelease:
    """A release by NAME (its champion), NAME@champion, NAME@challenger or NAME/VERSION; UserError if there is none."""
    match = re.fullmatch(r"([a-z0-9][a-z0-9_-]{0,62})(?:@(champion|challenger)|/([1-9]\d*))?", reference)
    if not match:
        raise UserError(f"model {reference!r}: write NAME, NAME@champion, NAME@challenger or NAME/VERSION")
    name, alias, version = match[1], match[2] or CHAMPION, match[3]
    number = int(version) if version else getattr(read_aliases(root, tenant, name), alias)
    if number is None:
        there = ", ".join(list_models(root, tenant)) or "none"
        raise UserError(f"model {name!r} of tenant {tenant!r} has no {alias}; models with a version: {there}")
    return get_version(root, tenant, name, number)


def verify(release: ModelRelease, *, with_digests: bool = False) -> None:
    """DriftError if a file of a release is missing or of another size, or, if asked for, of another digest."""
    folder = location(release.uri)
    sizes = {path: about["size"] for path, about in list_files(folder).items()}
    for file in release.files:
        if sizes.get(file.path) != file.bytes:
            raise DriftError(f"{folder / file.path} has {sizes.get(file.path, 'no')} bytes, not {file.bytes:,}")
        if with_digests and _sha256(folder / file.path) != file.sha256:
            raise DriftError(f"{folder / file.path} is not what was released: its SHA-256 is another")


def read_aliases(root: str, tenant: str, name: str) -> Aliases:
    """Who is champion and challenger; nobody if nothing was promoted. UserError for an unknown schema."""
    file = model_home(root, tenant, name) / ALIASES
    data = look(file).data
    return Aliases() if data is None else _from_json(file, data, Aliases)


def promote(root: str, tenant: str, name: str, version: int, *, better: Better, by: str) -> Promotion:
    """Make a version champion if there is none or it is better, else challenger; the same answer if repeated.

    `better` is asked anew whenever another process changed the champion meanwhile, so no promotion is lost. A version
    that was champion before stays a former one. To decide by hand: `better=lambda new, old: (True, "why")`.
    """
    file = model_home(root, tenant, name) / ALIASES
    candidate = get_version(root, tenant, name, version)
    for _ in range(TRIES):
        seen = look(file)
        before = Aliases() if seen.data is None else _from_json(file, seen.data, Aliases)
        if version == before.champion:
            reason = f"version {version} is champion already"
            return Promotion(version=version, alias="champion", champion=version, reason=reason)
        if version in before.former and before.champion is not None:
            reason = f"version {version} was champion before version {before.champion}"
            return Promotion(version=version, alias="former", champion=before.champion, reason=reason)
        after, promotion = _decided(before, candidate, root, better)
        after = after.model_copy(update={"reason": promotion.reason, "by": by, "at": now()})
        if write_if_unchanged(file, _written(after), seen):
            return promotion
    raise BusyError(f"{file}: others came first {TRIES} times; version {version} was not promoted")


def by_metric(metric: str, *, lower_is_better: bool) -> Better:
    """Compares a metric of two releases; a tie, or a metric that one of them lacks, does not make it better."""

    def better(new: ModelRelease, old: ModelRelease) -> tuple[bool, str]:
        for one in (new, old):
            if metric not in one.metrics:
                return False, f"version {one.version} has no metric {metric}: the two cannot be compared"
        mine, other = new.metrics[metric], old.metrics[metric]
        is_better = mine < other if lower_is_better else mine > other
        told = f"{metric} {mine:.4f} of version {new.version}, {other:.4f} of version {old.version}"
        return is_better, f"{told}: {'better' if is_better else 'not better'}"

    return better


def _decided(before: Aliases, candidate: ModelRelease, root: str, better: Better) -> tuple[Aliases, Promotion]:
    version = candidate.version
    if before.champion is None:
        is_better, reason = True, f"version {version} is the first"
    else:
        is_better, reason = better(candidate, get_version(root, candidate.tenant, candidate.model, before.champion))
    if is_better:
        former = (*before.former, *([] if before.champion is None else [before.champion]))
        challenger = None if before.challenger == version else before.challenger
        after = before.model_copy(update={"champion": version, "challenger": challenger, "former": former})
        return after, Promotion(version=version, alias="champion", champion=version, reason=reason)
    assert before.champion is not None
    after = before.model_copy(update={"challenger": max(version, before.challenger or 0)})
    return after, Promotion(version=version, alias="challenger", champion=before.champion, reason=reason)


def _sha256(path: UPath) -> str:
    opened: Any = path.open("rb")
    with opened as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _written(value: BaseModel) -> bytes:
    return value.model_dump_json(indent=1).encode()


def _parsed(file: UPath, kind: type[B]) -> B:
    return _from_json(file, file.read_bytes(), kind)


def _from_json(file: UPath, data: bytes, kind: type[B]) -> B:
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise UserError(f"{file} is no {kind.__name__} of a known version: {where}: {first['msg']}") from None
