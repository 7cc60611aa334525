"""`make sync`: put the project where an Amazon MWAA environment reads it, and say what has to happen then."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from include.errors import UserError
from local.home import PROJECT
from local.sync.bucket import MANIFEST, Bucket, Release, Sent, State, Stored, SyncError
from local.sync.check import check_loads
from local.sync.layout import PLUGINS, REQUIREMENTS, SETTINGS, File, collect, include_digest
from local.sync.plan import Plan, make_plan

__all__ = ["SyncError", "sync"]

Say = Callable[[str], object]


def _say(line: str) -> None:
    print(line, flush=True)  # a pipe would hold lines back


def sync(
    bucket_name: str,
    *,
    prefix: str = "",
    settings: str = "",
    dry_run: bool = False,
    project: Path = PROJECT,
    client: Any = None,
    say: Say = _say,
) -> int:
    """Send what differs from the bucket, in an order that leaves no DAG with an older include/; 0.

    settings names a TOML file to send as include/settings.toml; "none" removes the one that was sent earlier.
    UserError for what the user can put right, SyncError where a sync stopped in between.
    """
    bucket = Bucket(bucket_name, prefix.rstrip("/"), client)
    warnings = bucket.check()
    files = collect(project, Path(settings).expanduser() if settings not in ("", "none") else None)
    state = bucket.state()
    _keep_settings(files, state, settings)
    plan = make_plan(files, state, bucket)
    say(f"sync to s3://{bucket.name}/{bucket.prefix} ({bucket.region})")
    for line in [*plan.lines(), *(f"warning: {warning}" for warning in warnings)]:
        say(line)
    if plan.uploads or plan.removed:
        check_loads(files, say)
    if dry_run:
        say("DRY_RUN: nothing was written")
        return 0
    versions = _send(files, plan, state, bucket, project, say)
    for line in _what_next(plan, versions, bucket):
        say(line)
    return 0


def _keep_settings(files: Sequence[File], state: State, settings: str) -> None:
    """UserError if settings that were sent would go only because nobody named them again."""
    if not settings and SETTINGS in state.recorded and all(file.path != SETTINGS for file in files):
        raise UserError(
            f"an earlier sync sent {SETTINGS}: name the file again by SETTINGS=..., or remove it by SETTINGS=none"
        )


def _send(
    files: Sequence[File], plan: Plan, state: State, bucket: Bucket, project: Path, say: Say
) -> Mapping[str, str]:
    """Write what the plan says, the manifest last; the versions of the objects that an environment names."""
    objects = dict(state.objects)
    bucket.assert_unmoved(state)
    for number, file in enumerate(plan.uploads, 1):
        objects[file.path] = bucket.put(file)
        say(f"  {number}/{len(plan.uploads)} {file.path}")
    if plan.removed:
        bucket.assert_unmoved(state)
    for path in plan.removed:
        bucket.delete(path)
    release = _release(files, objects, project)
    if plan.uploads or plan.removed or state.release is None or release.files != state.release.files:
        bucket.write_release(release, state)
        say(f"{MANIFEST}: release {release.release_digest}; tasks print {release.include_digest}")
    return release.object_versions


def _release(files: Sequence[File], objects: Mapping[str, Stored], project: Path) -> Release:
    """The manifest of a release that lies in the bucket."""
    from include.storage import digest

    return Release(
        release_digest=digest(*(part for file in files for part in (file.path, file.sha256)))[:12],
        include_digest=include_digest(files),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        git_revision=_git_revision(project),
        object_versions={path: objects[path].version_id or "null" for path in (PLUGINS, REQUIREMENTS)},
        files=tuple(
            Sent(path=file.path, sha256=file.sha256, bytes=len(file.data), etag=objects[file.path].etag)
            for file in files
        ),
    )


def _git_revision(project: Path) -> str | None:
    """The commit that is checked out; None without git, or outside of a repository."""
    git = shutil.which("git")
    if git is None:
        return None
    done = subprocess.run([git, "rev-parse", "HEAD"], cwd=project, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def _what_next(plan: Plan, versions: Mapping[str, str], bucket: Bucket) -> list[str]:
    """What has to happen before the environment runs this release."""
    command = (
        f"  aws mwaa update-environment --region {bucket.region} --name ENVIRONMENT \\\n"
        f"    --plugins-s3-path {bucket.key(PLUGINS)} --plugins-s3-object-version {versions[PLUGINS]} \\\n"
        f"    --requirements-s3-path {bucket.key(REQUIREMENTS)} "
        f"--requirements-s3-object-version {versions[REQUIREMENTS]}"
    )
    changed = [file.path for file in plan.uploads if file.path in versions]
    if changed:
        return [
            f"{' and '.join(changed)} changed: update the environment, which takes 20 to 30 minutes:",
            command,
            "A new environment needs its configuration options too: fmops.target=aws, "
            "fmops.storage_root=s3://BUCKET/FOLDER and what else docs/mwaa_sync.md names.",
        ]
    done = "MWAA fetches DAG files by itself." if plan.uploads or plan.removed else "The bucket holds this release."
    return [f"{done} Nothing else to do, if the environment was updated to these versions:", command]
