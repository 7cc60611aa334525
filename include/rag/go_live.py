"""What comes after the gate: the run's version goes live, the news is told, versions that nobody needs are removed."""

from __future__ import annotations

import logging
from typing import Any

from upath import UPath

from include.contracts import IngestionManifest
from include.errors import StateMovedError
from include.rag import deletions
from include.rag.config import IngestConfig
from include.rag.ledger import Ledger
from include.rag.quality import QualityReport
from include.rag.versions import Versions, version_name
from include.storage import read_json, read_record, write_json

log = logging.getLogger(__name__)

SHOWN = 3


def go_live(config: IngestConfig) -> dict[str, Any]:
    """Let readers have the run's version, if it is not live; safe to repeat.

    A version that lacks a source of the live one is kept waiting: `missing` names up to three of them. StateMovedError
    if the live version is another by now.
    """
    versions = config.versions
    name = version_name(config.version)
    with versions.held():
        live = versions.live().version
        if live == config.version:
            return {"version": name, "is_live": True, "missing": []}
        if not Ledger(config.home).version():
            log.warning("%s holds nothing and does not go live: no document could be read", name)
            return {"version": name, "is_live": False, "missing": []}
        if held := deletions.held(config):
            log.warning("%s does not go live: %d documents that are to be kept are not in it", name, held)
            return {"version": name, "is_live": False, "missing": [], "held": held}
        if missing := _missing(config, live):
            log.warning("%s waits: it lacks what is live of %s; ingest that with the same Params", name, missing)
            return {"version": name, "is_live": False, "missing": missing[:SHOWN]}
        if read_record(config.run_home / "retrieval.json", QualityReport).live_version != live:
            raise StateMovedError(f"another version went live since {name} was compared: clear the task evaluate")
        config.open_store().go_live()
        versions.go_live(config.version, by=config.run_id)
    log.info("%s is live; before it: %s", name, "none" if live is None else version_name(live))
    return {"version": name, "is_live": True, "missing": []}


def _missing(config: IngestConfig, live: int | None) -> list[str]:
    """The sources of the live version that the run's version holds nothing of."""
    if live is None:
        return []
    there, here = (Ledger(config.versions.home_of(number)).sources() for number in (live, config.version))
    adopted = config.versions.get(live).adopted
    if adopted and adopted.source:
        there = {adopted.source}
    return sorted(there - here)


def clean_up(versions: Versions, keep: int) -> list[str]:
    """Remove the versions before the live one, but for its last `keep` - 1 predecessors; their names."""
    removed = []
    with versions.held():
        for version in versions.superfluous(keep):
            if version.adopted is None:  # what somebody else built is forgotten, never deleted
                versions.open(version.number, version.spec).drop()
            versions.remove(version)
            log.info("removed %s: %s", version.name, version.spec)
            removed.append(version.name)
    return removed


def roll_back(versions: Versions, to: int | None, *, by: str) -> dict[str, Any]:
    """Let readers have the version before the live one again, or the one that is named; what changed."""
    with versions.held():
        before, after = versions.target(to)
        if after.adopted is None:
            versions.open(after.number, after.spec).go_live()
        else:
            versions.reader(after.number)  # UserError if its owner removed it
        versions.roll_back(before, after, by=by)
    log.info("%s is live again instead of %s", after.name, before.name)
    return {"from": before.name, "to": after.name}


def news(config: IngestConfig) -> dict[str, Any] | None:
    """What to tell about the index, its manifest's URI among it; None if it is not live, or was told already."""
    path = config.run_home / "manifest.json"
    manifest = read_record(path, IngestionManifest)
    if config.versions.live().version != config.version:
        return None
    told = _told(config)
    last = read_json(told) if told.exists() else {}
    if last.get("version") == config.version and last["ledger_version"] >= manifest.ledger_version:
        return None
    return {
        "index": config.index,
        "tenant": config.tenant,
        "version": config.version,
        "ledger_version": manifest.ledger_version,
        "manifest_uri": str(path),
    }


def remember(config: IngestConfig, told: dict[str, Any]) -> None:
    """Note what was told: called after the telling, so that news is told twice rather than never."""
    write_json(_told(config), told)


def _told(config: IngestConfig) -> UPath:
    return config.versions.home / "published.json"
