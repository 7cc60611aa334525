"""What differs between a release and the bucket, by digests of contents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from local.sync.bucket import Bucket, State
from local.sync.layout import File

SHOWN = 20
"""Lines of one kind that a plan shows; a first sync adds everything."""


@dataclass(kw_only=True)
class Plan:
    """What a sync will do."""

    added: list[File] = field(default_factory=list)
    changed: list[File] = field(default_factory=list)
    unchanged: list[File] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    """Places that an earlier sync filled and this release does not know."""

    foreign: list[str] = field(default_factory=list)
    """Places below dags/ that no sync filled."""

    not_ours: set[str] = field(default_factory=set)
    """Places among `changed` that hold what no release put there."""

    uploads: list[File] = field(default_factory=list)
    """All that is added or changed, in the order of the release."""

    def lines(self) -> Iterator[str]:
        """The plan for a person to read."""
        yield from _group("added", [file.path for file in self.added])
        note = "   (in the bucket it is not what the last sync put there)"
        yield from _group("changed", [f.path + (note if f.path in self.not_ours else "") for f in self.changed])
        yield from _group("removed", self.removed)
        yield from _group("foreign", [path + "   (no sync put it there: left)" for path in self.foreign])
        size = sum(len(file.data) for file in self.uploads)
        yield (
            f"{len(self.added)} added, {len(self.changed)} changed, {len(self.unchanged)} unchanged, "
            f"{len(self.removed)} removed, {len(self.foreign)} foreign; {size / 1024:,.1f} KiB to send"
        )


def _group(kind: str, paths: Sequence[str]) -> Iterator[str]:
    yield from (f"  {kind:8} {path}" for path in paths[:SHOWN])
    if len(paths) > SHOWN:
        yield f"  {kind:8} and {len(paths) - SHOWN} more"


def make_plan(files: Sequence[File], state: State, bucket: Bucket) -> Plan:
    """Compare a release with what lies in the bucket.

    An object is what the last manifest says while its ETag is the one that the manifest holds. Any other is asked for
    the mark that a sync leaves, and counts as unchanged only if its ETag is that of the file's bytes too; objects
    encrypted with a KMS key have no such ETag and are sent again.
    """
    plan = Plan()
    for file in files:
        stored = state.objects.get(file.path)
        if stored is None:
            plan.added.append(file)
            continue
        as_recorded = _recorded(file.path, state)
        digest = as_recorded or bucket.digest_by_mark(file.path)
        if digest == file.sha256 and (as_recorded or stored.etag == file.md5):
            plan.unchanged.append(file)
            continue
        plan.changed.append(file)
        if digest in (None, file.sha256):
            plan.not_ours.add(file.path)
    unchanged = {file.path for file in plan.unchanged}
    plan.uploads = [file for file in files if file.path not in unchanged]
    ours = {file.path for file in files}
    for path in sorted(state.objects.keys() - ours):
        stale = _recorded(path, state) or bucket.digest_by_mark(path)
        (plan.removed if stale else plan.foreign).append(path)
    return plan


def _recorded(path: str, state: State) -> str | None:
    """The digest of an object that is still the one of the last manifest."""
    sent = state.recorded.get(path)
    return sent.sha256 if sent and sent.etag == state.objects[path].etag else None
