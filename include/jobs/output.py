"""What a job leaves: a folder with a manifest, and the note that says where the output of some inputs lies."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from upath import UPath

from include.contracts import Record
from include.jobs.spec import Named
from include.jobs.states import OutputError
from include.storage import list_files, location, read_json, read_record, size_of, write_record

MANIFEST = "manifest.json"


class OutputFile(BaseModel):
    """A file of an output."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    """Below the output's folder."""
    bytes: int
    sha256: str


class OutputManifest(BaseModel):
    """What the harness writes when a script has ended well, after everything else."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int
    hosts: int = 1
    """How many of them wrote a manifest: of each but the first it is manifest-1.json and so on."""
    files: tuple[OutputFile, ...]
    metrics: dict[str, Any]
    """The figures that the script returned; those of the first host."""


class JobOutput(Record):
    """Where the output of some inputs lies; its existence makes the job unnecessary."""

    name: str
    job: str
    """The job that made it, with its generation."""
    kind: str
    backend: str
    inputs_digest: str
    output_uri: str
    bytes: int
    metrics: dict[str, Any]
    billed_s: float
    instance_type: str


def read_manifest(output_uri: str) -> OutputManifest:
    """The manifests of all hosts as one, whose files are all there with their sizes; OutputError if it is not whole."""
    folder = location(output_uri)
    first = _read(folder / MANIFEST)
    others = [_read(folder / f"manifest-{number}.json") for number in range(1, first.hosts)]
    manifest = first.model_copy(update={"files": sum((one.files for one in (first, *others)), ())})
    written = Counter(file.path for file in manifest.files)
    if twice := sorted(path for path, times in written.items() if times > 1):
        raise OutputError(f"{folder}: several hosts wrote {', '.join(twice[:3])}: one replaced the other's")
    there = list_files(folder)
    for file in manifest.files:
        found = there[file.path]["size"] if file.path in there else None
        if found != file.bytes:
            raise OutputError(
                f"{folder / file.path}: {'missing' if found is None else f'{found:,} bytes'}, not {file.bytes:,} bytes"
            )
    return manifest


def _read(file: UPath) -> OutputManifest:
    try:
        manifest = OutputManifest.model_validate(read_json(file))
    except FileNotFoundError:
        raise OutputError(f"{file.parent} holds no {file.name}, which a script's harness writes last") from None
    except (ValueError, ValidationError) as error:
        raise OutputError(f"{file} is not a manifest: {error}") from None
    if manifest.schema_version != 1:
        raise OutputError(f"{file} has schema_version {manifest.schema_version}, not 1")
    return manifest


def note(root: str, named: Named) -> UPath:
    """The file that tells where the output of these inputs lies."""
    spec = named.spec
    return location(root) / spec.tenant / "jobs" / "outputs" / spec.name / f"{named.inputs_digest}.json"


def known_output(root: str, named: Named) -> JobOutput | None:
    """The output of these inputs, if a job made it and it is still whole."""
    file = note(root, named)
    if size_of(file) is None:
        return None
    output = read_record(file, JobOutput)
    try:
        read_manifest(output.output_uri)
    except OutputError:  # somebody deleted it: it is made again
        return None
    return output


def publish(root: str, named: Named, output: JobOutput) -> None:
    """Note where the output lies; the note is replaced at once, if another run has made the same meanwhile."""
    write_record(note(root, named), output)
