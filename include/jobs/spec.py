"""What a job is: its script, inputs and limits, and the two digests that name it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from include.errors import UserError
from include.jobs.source import Source
from include.names import NAME
from include.storage import digest, list_files, location, read_json, size_of

JOB_NAME = r"^[a-z0-9](-?[a-z0-9]){0,23}$"
"""Of a spec: SageMaker takes no underscore, and the digest and the generation need the rest of its 63 characters."""
DEPLOYMENT_TAG = "fmops:deployment"
OWNER_TAG = "fmops:owner"
"""Of a job: the id of the task attempt whose it is."""
CHANNEL = r"^[a-z][a-z0-9_]{0,31}$"
HYPERPARAMETER = r"^[a-z][a-z0-9_]{0,63}$"
LONGEST_RUNTIME_S = 5 * 24 * 3600
"""What SageMaker allows a training or processing job; the local backend keeps to it."""

Value = str | int | float | bool


class Resources(BaseModel):
    """What a job runs on; a backend takes of it what it knows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    instance_type: str | None = None
    """Such as ml.m5.large; None: the default of the catalog for the image. The local backend has one machine."""
    instance_count: int = Field(default=1, ge=1, le=100)
    volume_gb: int = Field(default=30, ge=1, le=16_384)
    """Disk beside each instance, for inputs and outputs together."""
    image: str = "cpu"
    """A name of include/catalog/images.yaml, an image's address, or `worker`: what Airflow's workers run in. The local
    backend has the jobs environment instead, and for `worker` the running Python."""
    memory_mb: int | None = Field(default=None, ge=64)
    """Most that the local backend lets the job's processes take together; on SageMaker the instance sets it."""
    spot: bool = False
    """Cheaper instances that can be taken away; the job goes on from its checkpoints. Training only."""


class JobSpec(BaseModel):
    """A job, before anybody knows where it runs. Frozen; an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=JOB_NAME)
    kind: Literal["training", "processing"] = "training"
    """On SageMaker the two are different services; processing can shard its inputs over instances."""
    script: str = Field(pattern=r"^include(\.[a-z][a-z0-9_]*)+$")
    """A module below include/ with a function main(job); it imports nothing of Airflow."""
    channels: dict[str, str] = Field(default_factory=dict)
    """Name -> URI of a folder; the script finds it as a local folder."""
    sharded: tuple[str, ...] = ()
    """Channels of which each instance gets only a part of the files."""
    hyperparameters: dict[str, Value] = Field(default_factory=dict)
    resources: Resources = Resources()
    max_runtime_s: int = Field(gt=0, le=LONGEST_RUNTIME_S)
    """Required: it is what ends a job that nobody waits for any more."""
    tenant: str = Field(pattern=NAME)
    use_case: str = Field(pattern=NAME)
    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    deployment: str = ""
    """Which of several installations it is for, see deployment_id(): two of them run the same DAGs in one account."""
    force: bool = False
    """Run it although its output is there already."""

    @property
    def tags(self) -> dict[str, str]:
        """Who it is for, so that cost can be split and a lost job be found."""
        return {
            DEPLOYMENT_TAG: self.deployment,
            "fmops:tenant": self.tenant,
            "fmops:use-case": self.use_case,
            "fmops:dag": self.dag_id,
            "fmops:run": self.run_id,
            "fmops:task": self.task_id,
            "fmops:map-index": str(self.map_index),
        }


class Named(BaseModel):
    """A spec with the digests that name its jobs and its output. They are made once: inputs are listed for it."""

    model_config = ConfigDict(frozen=True)

    spec: JobSpec
    inputs_digest: str
    """Of script, data and hyper-parameters: the same inputs have the same output, whoever runs them."""
    job_digest: str
    """Of the inputs, and of the task that runs them."""

    def job_name(self, generation: int) -> str:
        """The name of one try: a name that was used once can never be used again on SageMaker."""
        return f"{self.spec.name}-{self.job_digest}-g{generation}"


def read_spec(values: Mapping[str, Any]) -> JobSpec:
    """A spec from plain values; UserError that names the first wrong field, its value and what is allowed."""
    try:
        return JobSpec.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing":
            raise UserError(f"job spec: {field} is missing{_HINTS.get(field, '')}") from None
        raise UserError(f"job spec: {field}={first['input']!r}: {first['msg']}{_HINTS.get(field, '')}") from None


_HINTS = {
    "name": "; lower-case letters, digits and single hyphens, up to 24",
    "script": "; a module below include/, such as include.jobs.scripts.smoke",
    "max_runtime_s": f"; seconds, up to {LONGEST_RUNTIME_S}: the job is ended after them",
}


def deployment_id(root: str) -> str:
    """What tells an installation from others: where it keeps its data."""
    return digest(root.rstrip("/"))[:12]


def name_spec(spec: JobSpec, source: Source) -> Named:
    """Its digests; UserError if a channel or the script is missing, or a name is none.

    Channels are listed, not read: a file counts by its path, size and stamp, or by the digest of the channel's manifest
    where it has one.
    """
    check(spec)
    inputs = digest(
        source.digest,
        spec.kind,
        *(f"{name}={uri}" for name, uri in sorted(spec.channels.items())),
        *(state for name in sorted(spec.channels) for state in channel_state(name, spec.channels[name])),
        *(f"{name}={value!r}" for name, value in sorted(spec.hyperparameters.items())),
    )[:32]
    task = (spec.deployment, spec.tenant, spec.dag_id, spec.run_id, spec.task_id)
    numbers = (str(spec.map_index), str(spec.max_runtime_s))
    job = digest(inputs, *task, *numbers, spec.resources.model_dump_json())[:16]
    return Named(spec=spec, inputs_digest=inputs, job_digest=job)


def check(spec: JobSpec) -> None:
    """UserError in one line if a part of the spec cannot be meant, whatever the backend."""
    for name in spec.channels:
        if not re.fullmatch(CHANNEL, name):
            raise UserError(f"channel {name!r}: lower-case letters, digits and _, up to 32, a letter first")
    for name, value in spec.hyperparameters.items():
        if not re.fullmatch(HYPERPARAMETER, name):
            raise UserError(f"hyper-parameter {name!r}: lower-case letters, digits and _, a letter first")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"hyper-parameter {name}={value!r} must be a finite number")
        if isinstance(value, str) and len(value) > 2500:
            raise UserError(f"hyper-parameter {name} has {len(value):,} characters, up to 2,500: give it by a channel")
    for name in spec.sharded:
        if name not in spec.channels:
            raise UserError(f"sharded channel {name!r} is none of {', '.join(sorted(spec.channels)) or 'none'}")
    if spec.resources.spot and spec.kind != "training":
        raise UserError("resources.spot=True: only training jobs can run on spot instances")


def channel_state(name: str, uri: str) -> Iterator[str]:
    """What tells whether a channel's content changed; UserError if there is nothing."""
    folder = location(uri)
    manifest = folder / "manifest.json"
    if size_of(manifest) is not None:
        yield digest(repr(sorted(read_json(manifest).items())))
        return
    files = list_files(folder)
    for path, about in files.items():
        stamp = about.get("ETag") or about.get("mtime") or about.get("LastModified") or about.get("created")
        yield f"{path} {about['size']} {stamp}"
    if not files:
        raise UserError(f"channel {name}={uri!r} holds no file: write what the job reads there first")
