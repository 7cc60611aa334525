"""The versions of an index: each is built whole beside the others; one is live, by a pointer that moves in one step.

A version belongs to one pipeline: store, embedder, chunker and the schema of rows and ledger. A run of the live
version's pipeline brings that version up to date; a run of another builds the next version, which nobody reads until it
has passed its gate. Below the index's folder:

    LIVE.json                which version is read; written last
    versions/v0001/          version.json, and all that belongs to that version alone
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from upath import UPath

from include.config import load_settings
from include.contracts import now
from include.errors import StateMovedError, UserError
from include.models.embeddings import get_embedder
from include.rag.ledger import SCHEMA_VERSION as LEDGER_SCHEMA
from include.rag.stores import ROWS_SCHEMA, Place, Reader, Store, open_store
from include.rag.stores.adopted import Adopted, open_adopted
from include.storage import exclusive, location, read_json, write_json

EARLIER_LAYOUT = 0
"""Number of the version that an earlier release left in the index's folder itself; it is read until one replaces it."""
ADOPTED = "adopted"
"""Chunker and schema of a version that was built elsewhere, so that no run takes it for its own."""
_EARLIER_NAMES = ("ledger", "lancedb", "parts", "stamps.parquet", "quarantine.jsonl", "quality.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    """What turns the same documents into other rows; two versions of one index differ in it, or were rebuilt."""

    store: str
    embedder: str
    embedder_version: str
    chunker: str
    schema: str = f"rows {ROWS_SCHEMA}, ledger {LEDGER_SCHEMA}"

    def __str__(self) -> str:
        return f"store={self.store}, embedder={self.embedder} ({self.embedder_version}), chunker={self.chunker}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """One version of an index, and the run that began it."""

    number: int
    spec: Spec
    run_id: str
    created_at: str
    adopted: Adopted | None = None
    """Set if it was built elsewhere; it has no ledger then, and no run."""

    @property
    def name(self) -> str:
        """As people see it."""
        return version_name(self.number)


@dataclass(frozen=True, kw_only=True, slots=True)
class Live:
    """The pointer: which version is read, which were before it, and which of them a person took back."""

    version: int | None = None
    former: tuple[int, ...] = ()
    """Oldest first."""
    rolled_back: tuple[int, ...] = ()
    """They do not go live again by themselves."""
    by: str = ""
    at: str = ""


def version_name(number: int) -> str:
    """As people and servers see it."""
    return f"v{number:04d}"


def index_home(root: str, tenant: str, index: str) -> UPath:
    """Where an index of a tenant lies below a storage root."""
    return location(root) / tenant / "rag" / index


class Versions:
    """The versions of one index."""

    def __init__(self, root: str, tenant: str, index: str) -> None:
        self.home = index_home(root, tenant, index)
        self._root = root
        self._names = (tenant, index)
        self._pointer = self.home / "LIVE.json"

    def __str__(self) -> str:
        tenant, index = self._names
        return f"index {index!r} of tenant {tenant!r} below {self._root}"

    @property
    def tenant(self) -> str:
        """Whose index it is."""
        return self._names[0]

    def home_of(self, number: int) -> UPath:
        """The folder of one version."""
        return self.home if number == EARLIER_LAYOUT else self.home / "versions" / version_name(number)

    def open(self, number: int, spec: Spec) -> Store:
        """The store of a version of ours; in the process that uses it, as stores.open_store() says."""
        assert spec.chunker != ADOPTED, "what was built elsewhere is read by reader() and never written"
        alias = ".".join((load_settings().opensearch_prefix, *self._names))  # no part holds a dot
        place = Place(home=self.home_of(number), name=f"{alias}.{version_name(number)}", alias=alias)
        return open_store(spec.store, place, get_embedder(spec.embedder).dimension)

    def reader(self, number: int) -> Reader:
        """What searches a version, whoever built it; UserError if an adopted one is not as it was."""
        version = self.get(number)
        if version.adopted is None:
            return self.open(number, version.spec)
        return open_adopted(version.spec.store, version.adopted, get_embedder(version.spec.embedder), self.tenant)

    def live(self) -> Live:
        """The pointer as it stands; no version if none ever went live."""
        if self._pointer.exists():
            value = read_json(self._pointer)
            lists = {name: tuple(value[name]) for name in ("former", "rolled_back")}
            return Live(**{**value, **lists})
        return Live(version=EARLIER_LAYOUT) if self._is_earlier_layout() else Live()

    def all(self) -> list[Version]:
        """Every version that is there, oldest first."""
        folder = self.home / "versions"
        homes = sorted(folder.iterdir(), key=str) if folder.is_dir() else []
        numbers = [EARLIER_LAYOUT] if self._is_earlier_layout() else []
        numbers += [int(home.name[1:]) for home in homes if (home / "version.json").exists()]
        return [self.get(number) for number in numbers]

    def get(self, number: int) -> Version:
        """One version; UserError if it is not there."""
        if number == EARLIER_LAYOUT and self._is_earlier_layout():
            return self._earlier()
        record = self.home_of(number) / "version.json"
        if number == EARLIER_LAYOUT or not record.exists():
            there = ", ".join(one.name for one in self.all()) or "none"
            raise UserError(f"{self} has no version {number}; there is {there}")
        value = read_json(record)
        adopted = Adopted(**value["adopted"]) if value.get("adopted") else None
        return Version(**{**value, "spec": Spec(**value["spec"]), "adopted": adopted})

    def choose(self, spec: Spec, run_id: str, *, rebuild: bool = False) -> Version:
        """The version that a run works on: the one it began, the live one, one that waits to go live, or a new one.

        UserError if a person rolled back a version of this pipeline, unless `rebuild`.
        """
        with exclusive(self.home / "versions.lock"):
            live, there = self.live(), self.all()
            own = [one for one in there if one.run_id == run_id]
            alike = [one for one in there if one.spec == spec]
            current = [one for one in alike if one.number == live.version and not rebuild]
            back = [one for one in alike if one.number in live.rolled_back]
            waiting = [one for one in alike if one.number > (live.version or 0) and one not in back]
            if found := own or current or waiting:
                return found[-1]
            if back and not rebuild:
                raise UserError(
                    f"{back[-1].name} was built by these Params ({spec}) and rolled back: take those of the live "
                    f"{version_name(live.version or 0)} ({self.get(live.version or 0).spec}), or set rebuild to true"
                )
            return self._begin(spec, run_id)

    def expect_adoptable(self) -> None:
        """UserError if a version of ours is live: what was built elsewhere comes before those, never after."""
        live = self.live().version
        if live is not None and self.get(live).adopted is None:
            name = version_name(live)
            raise UserError(f"{self} has the live {name}, which was built here: adopt under another name of an index")

    def adopt(self, spec: Spec, adopted: Adopted) -> Version:
        """Let readers have what somebody else built; UserError as expect_adoptable()."""
        with self.held(), exclusive(self.home / "versions.lock"):
            self.expect_adoptable()
            version = self._begin(spec, "", adopted)
            self.go_live(version.number, by=adopted.by)
        return version

    def _begin(self, spec: Spec, run_id: str, adopted: Adopted | None = None) -> Version:
        number = 1 + max((one.number for one in self.all()), default=0)
        version = Version(number=number, spec=spec, run_id=run_id, created_at=_stamp(), adopted=adopted)
        write_json(self.home_of(number) / "version.json", asdict(version))
        return version

    def go_live(self, number: int, *, by: str) -> None:
        """Let readers have a version; to be called while it is held(). StateMovedError if a person rolled it back."""
        live = self.live()
        if number in live.rolled_back:
            raise StateMovedError(f"{version_name(number)} was rolled back while this run was on: start a new run")
        if live.version != number:
            former = (*live.former, *([] if live.version is None else [live.version]))
            self._point(Live(version=number, former=former, rolled_back=live.rolled_back, by=by))

    def target(self, to: int | None) -> tuple[Version, Version]:
        """The live version, and the one that a roll back leads to: `to`, if it was ever live, or the last before it."""
        live = self.live()
        there = {one.number for one in self.all()}
        known = [one for one in (*live.rolled_back, *live.former) if one in there]
        number = next((one for one in reversed(live.former) if one in there), None) if to is None else to
        if live.version is None or number not in known:
            asked = "no former version is there" if to is None else f"{version_name(to)} was never live, or is gone"
            choice = ", ".join(map(version_name, known)) or "none"
            raise UserError(f"{self}: {asked}; versions to go back to: {choice}")
        return self.get(live.version), self.get(number)

    def roll_back(self, before: Version, to: Version, *, by: str) -> None:
        """Let readers have `to` again, as target() found it; to be called while it is held()."""
        live = self.live()
        if to.number in live.former:
            place = live.former.index(to.number)
            former, back = live.former[:place], {*live.rolled_back, *live.former[place + 1 :], before.number}
        else:
            former, back = (*live.former, before.number), set(live.rolled_back) - {to.number}
        self._point(Live(version=to.number, former=former, rolled_back=tuple(sorted(back)), by=by))

    def superfluous(self, keep: int) -> list[Version]:
        """The versions that clean-up removes: all before the live one but its `keep` - 1 predecessors."""
        live = self.live()
        if live.version is None:
            return []
        kept = {live.version, *(live.former[-(keep - 1) :] if keep > 1 else ())}
        return [one for one in self.all() if one.number not in kept and one.number < live.version]

    def remove(self, version: Version) -> None:
        """Delete the folder of a version that is not live; a store of ours is dropped before."""
        if version.number == self.live().version:
            raise UserError(f"{version.name} is live and cannot be removed")
        home = self.home_of(version.number)
        if version.number == EARLIER_LAYOUT:
            for name in _EARLIER_NAMES:
                _delete(home / name)
        else:
            (home / "version.json").unlink(missing_ok=True)  # first: half a version is none
            _delete(home)

    def held(self) -> AbstractContextManager[None]:
        """Hold the index for the block: nobody else commits to it or moves its pointer; see storage.exclusive().

        Not to be nested: the inner one would wait for the outer.
        """
        return exclusive(self.home / "commit.lock")

    def _point(self, live: Live) -> None:
        write_json(self._pointer, asdict(replace(live, at=_stamp())))

    def _is_earlier_layout(self) -> bool:
        return (self.home / "ledger" / "CURRENT.json").exists()

    def _earlier(self) -> Version:
        pointer = read_json(self.home / "ledger" / "CURRENT.json")
        known = {name: pointer.get(name, "") for name in ("store", "embedder", "embedder_version")}
        spec = Spec(**known, chunker="", schema="earlier")
        return Version(number=EARLIER_LAYOUT, spec=spec, run_id="", created_at="")


def _said(number: int | None) -> str:
    return "no version" if number is None else version_name(number)


def _stamp() -> str:
    return now().isoformat(timespec="seconds")


def _delete(path: UPath) -> None:
    if path.is_dir():
        path.fs.rm(path.path, recursive=True)
    else:
        path.unlink(missing_ok=True)


def shown(versions: Versions) -> Iterator[str]:
    """A line for each version, for a terminal or a log."""
    live = versions.live()
    for one in versions.all():
        states = {live.version: "live"} | dict.fromkeys(live.rolled_back, "rolled back")
        state = states.get(one.number, "former" if one.number in live.former else "waiting")
        since = datetime.fromisoformat(one.created_at).strftime("%Y-%m-%d %H:%M") if one.created_at else "earlier"
        begun, where = ("adopted", f", place={one.adopted.place}") if one.adopted else ("begun", "")
        yield f"{one.name}  {state:<11}  {begun} {since}  {one.spec}{where}"
