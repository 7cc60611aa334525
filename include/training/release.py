"""Makes a release out of an evaluated model: a folder of its own, in which nothing changes any more.

Below <root>/<tenant>/training/releases/<name>/<version>/: model/, evaluation.json, per_document.json, curve.png,
card.md and, last of all, manifest.json. A task that died before that has released nothing; repeated, it takes the same
version number and makes it whole. The same data, configuration, code and base model are the same version: releasing
them again changes nothing.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from upath import UPath

from include import statistics
from include.contracts import Cost, Lineage, ModelRelease, ReleaseFile
from include.errors import DriftError, PermanentError, UserError
from include.jobs.output import OutputFile, read_manifest
from include.jobs.states import OutputError
from include.models import registry
from include.models.conditional import LOCK
from include.storage import digest, exclusive, is_local, list_files, location, new_file, read_json, write_bytes
from include.training import card, curve
from include.training.corpus_manifest import CorpusManifest, read_corpus
from include.training.gate import EVALUATION, PER_DOCUMENT, SCHEMA_VERSION, Thresholds, judge
from include.training.presets import PRESETS, flops_per_token

log = logging.getLogger(__name__)

MODEL, CARD = "model", "card.md"
SUFFIXES = (".json", ".safetensors", ".txt", ".jinja")
"""Of what a model's folder may hold: nothing that runs code where it is loaded, as pickles do."""
BLOCK_BYTES = 2**22
_FILLING = ".filling"
"""Lock file in a release's folder."""
PRIMARY = {"decoder": "held_out.bits_per_byte", "encoder_decoder": "span_denoising.loss_nats_per_token"}
"""The metric by which releases of an architecture are compared; lower is better."""


class Order(BaseModel):
    """What is to be released, and what its DAG knows of how it was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: str
    use_case: str
    name: str
    """Of the model."""
    output_uri: str
    """Of the evaluation job, which exported and measured the model."""
    corpus_uri: str
    """Folder of the packed corpus."""
    config: dict[str, str | int | float | bool]
    """What training was told, by name."""
    code_digest: str
    base_model: str | None = None
    """name/version; None: from scratch."""
    jobs: tuple[str, ...]
    """Names, in their order: the segments', the evaluation's last."""
    instance_seconds: float = Field(ge=0, allow_inf_nan=False)
    """Of all these jobs."""
    hardware: str
    """For people, such as `1 x ml.p5.4xlarge` or `this machine, 2 cores`."""
    usd: float | None = None
    """None: no price is known."""
    dag_id: str
    run_id: str


def release(root: str, order: Order, thresholds: Thresholds | None = None) -> ModelRelease:
    """The release of an evaluated model; the one that is there if the same content was released before.

    `thresholds` are those of the gate, whose findings the card tells; whether the model passed is the gate's to say.
    OutputError if the job's output is not whole, or not what its manifest says; UserError for an unknown schema or
    architecture; DriftError if it was measured on another corpus; PermanentError if no space is left.
    """
    source = _Source(order.output_uri)
    evaluation = source.read(EVALUATION)
    if evaluation["architecture"] not in PRIMARY:
        raise UserError(f"{EVALUATION}: architecture={evaluation['architecture']!r} is none of {', '.join(PRIMARY)}")
    corpus = _corpus(order.corpus_uri, evaluation)
    lineage = _lineage(order, corpus, evaluation)
    content = registry.content_digest(
        data=lineage.data_digest, config=lineage.config_digest, code=order.code_digest, base_model=order.base_model
    )
    claim = registry.claim(root, order.tenant, order.name, content, order.run_id)
    home = registry.release_home(root, order.tenant, order.name, claim.version)
    # Where there is no lock, on S3, the one slot of this task's pool keeps two of the same content apart.
    with exclusive(home / _FILLING) if is_local(home) else nullcontext(), _room(home):
        if found := registry.find_version(root, order.tenant, order.name, claim.version):
            log.info("%s was released already, of the same content: %s", found.reference, found.uri)
            return found
        draft = _draft(order, claim, home, evaluation, lineage, corpus, source.copy_model(home))
        others = [source.copy(name, home) for name in (EVALUATION, PER_DOCUMENT)]
        facts = card.Facts(
            release=draft,
            evaluation=evaluation,
            decision=judge(evaluation, source.read(PER_DOCUMENT)["documents"], thresholds or Thresholds()),
            corpus=corpus,
            report=read_json(location(order.corpus_uri) / "report.json"),
            flops=flops(evaluation, corpus.vocab_size),
            hardware=order.hardware,
        )
        others += [_write(home, name, data) for name, data in _made(facts)]
        whole = draft.model_copy(update={"files": (*draft.files, *others)})
        _tidy(home, {file.path for file in whole.files})
        published = registry.publish(root, whole)
    log.info("released %s: %s", published.reference, published.uri)
    return published


def summary(found: ModelRelease) -> dict[str, Any]:
    """What a task hands on, small enough for an XCom."""
    return {
        "model": found.model,
        "version": found.version,
        "release_uri": found.uri,
        "model_uri": found.model_uri,
        "card_uri": found.card_uri,
        "metric": PRIMARY[found.architecture],
        "value": found.metrics[PRIMARY[found.architecture]],
    }


def better(new: ModelRelease, old: ModelRelease) -> tuple[bool, str]:
    """Whether a release is better than another, for registry.promote(); a line that says by what.

    Where both were measured on the same held-out documents it has to be surely so: the 95 % interval of the difference,
    a bootstrap over documents, lies below 0. Elsewhere the two figures are all there is, and the line says so.
    """
    metric = PRIMARY[new.architecture]
    is_better, line = registry.by_metric(metric, lower_is_better=True)(new, old)
    if metric not in old.metrics:
        return is_better, line
    unit = "bytes" if new.architecture == "decoder" else "tokens"
    mine, other = _rows(new, unit), _rows(old, unit)
    if mine.keys() != other.keys():
        return is_better, f"{line}; measured on other documents, so this is a weak reason"
    if len(mine) < Thresholds().min_documents:
        return is_better, f"{line}; by {len(mine)} documents, so this is a weak reason"
    scale = (1.0 if new.architecture == "decoder" else math.log(2)) * len(mine) / sum(key[2] for key in mine)
    found = statistics.paired_difference(
        [mine[key] * scale for key in sorted(mine)], [other[key] * scale for key in sorted(mine)]
    )
    verdict = "surely better" if found.high < 0 else "not surely better"
    figures = f"{metric} {new.metrics[metric]:.4f} of version {new.version}, {old.metrics[metric]:.4f} of {old.version}"
    return found.high < 0, f"{figures}: {verdict} (95 % interval {found.low:+.4f} to {found.high:+.4f})"


def metrics(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an evaluation by name, such as held_out.by_source.docs.bits_per_byte; OutputError for no number.

    What could not be measured (null) is left out.
    """
    parts = ("step", "tokens_seen", "held_out", "span_denoising", "baselines", "zero_shot")
    found = dict(_flat({name: evaluation[name] for name in parts if name in evaluation}, ""))
    if wrong := [name for name, value in found.items() if not math.isfinite(value)]:
        raise OutputError(f"{EVALUATION}: {wrong[0]} is {found[wrong[0]]}, which is no number")
    return found


def flops(evaluation: Mapping[str, Any], vocab_size: int) -> float:
    """Of the whole training, by the preset's own count; 6 for each weight and token if its size is no preset."""
    seen, preset = evaluation["tokens_seen"], PRESETS.get(evaluation["size"])
    if preset is None:
        return 6.0 * evaluation["parameters"] * seen
    return flops_per_token(preset, evaluation["architecture"], vocab_size) * seen


class _Source:
    """The output of an evaluation job; nothing of it is taken that is not what its manifest says."""

    def __init__(self, output_uri: str) -> None:
        self.folder = location(output_uri)
        self._files = {file.path: file for file in read_manifest(output_uri).files}

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of a known schema."""
        data = (self.folder / name).read_bytes() if name in self._files else b""
        self._check(name, hashlib.sha256(data).hexdigest())
        value: dict[str, Any] = json.loads(data)
        if value.get("schema_version") != SCHEMA_VERSION:
            raise UserError(f"{name}: schema_version={value.get('schema_version')!r} is not {SCHEMA_VERSION}")
        return value

    def copy_model(self, home: UPath) -> tuple[ReleaseFile, ...]:
        """The model's folder, once all names in it are as they may be."""
        names = sorted(name for name in self._files if name.startswith(f"{MODEL}/"))
        for name in names:
            if not name.endswith(SUFFIXES):
                raise OutputError(f"{self.folder / name}: a model's folder holds {', '.join(SUFFIXES)} files alone")
        if f"{MODEL}/config.json" not in names or not any(name.endswith(".safetensors") for name in names):
            raise OutputError(f"{self.folder} holds no model: {MODEL}/config.json and .safetensors files are wanted")
        files = [_checked(self._files[name], self.folder) for name in names]
        return tuple(self.copy(file.path, home) for file in files)

    def copy(self, name: str, home: UPath) -> ReleaseFile:
        """One file into the release, block by block; between two places on S3 by the service itself."""
        origin, target = self.folder / name, home / name
        if origin.protocol == target.protocol == "s3":
            self._check(name, self._hashed(origin, None))
            target.fs.cp_file(origin.path, target.path)
        else:
            with new_file(target) as file:  # put in place only if it is what it should be
                self._check(name, self._hashed(origin, file))
        return _checked(self._files[name], self.folder)

    def _hashed(self, origin: UPath, target: Any) -> str:
        state = hashlib.sha256()
        with origin.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                state.update(block)
                if target is not None:
                    target.write(block)
        return state.hexdigest()

    def _check(self, name: str, sha256: str) -> None:
        if name not in self._files:
            raise OutputError(f"{self.folder}: its manifest names no {name}")
        if sha256 != self._files[name].sha256:
            raise OutputError(f"{self.folder / name} is not what the job wrote: its SHA-256 is another")


def _checked(file: OutputFile, folder: UPath) -> ReleaseFile:
    try:
        return ReleaseFile(path=file.path, bytes=file.bytes, sha256=file.sha256)
    except ValidationError as error:
        field = error.errors()[0]["loc"][0]
        raise OutputError(
            f"{folder}: manifest.json: {field}={getattr(file, str(field))!r} cannot be released"
        ) from None


def _corpus(uri: str, evaluation: Mapping[str, Any]) -> CorpusManifest:
    corpus = read_corpus(uri)
    for name in ("corpus_digest", "tokenizer_digest"):
        if evaluation[name] != getattr(corpus, name):
            raise DriftError(f"{EVALUATION}: {name} {evaluation[name]} is not that of the corpus {uri}")
    return corpus


def _lineage(order: Order, corpus: CorpusManifest, evaluation: Mapping[str, Any]) -> Lineage:
    return Lineage(
        data_uri=order.corpus_uri,
        data_digest=corpus.corpus_digest,
        tokenizer_digest=corpus.tokenizer_digest,
        config_digest=evaluation.get("config_digest") or digest(repr(sorted(order.config.items()))),
        code_digest=order.code_digest,
        dag_id=order.dag_id,
        run_id=order.run_id,
        jobs=order.jobs,
    )


def _draft(
    order: Order,
    claim: registry.Claim,
    home: UPath,
    evaluation: Mapping[str, Any],
    lineage: Lineage,
    corpus: CorpusManifest,
    files: tuple[ReleaseFile, ...],
) -> ModelRelease:
    """The record with the model's files alone, which is what the card tells of."""
    return ModelRelease(
        tenant=order.tenant,
        use_case=order.use_case,
        created_at=claim.claimed_at,  # so that a repeated task writes the same card
        model=order.name,
        version=claim.version,
        content_digest=claim.content_digest,
        model_uri=str(home / MODEL),
        card_uri=str(home / CARD),
        **{name: evaluation[name] for name in ("architecture", "size", "parameters")},
        base_model=order.base_model,
        lineage=lineage,
        config=order.config,
        metrics=metrics(evaluation),
        files=files,
        licences=tuple(sorted({licence for file in corpus.files for licence in file.licences})),
        cost=Cost(usd=order.usd, instance_seconds=order.instance_seconds),
    )


def _made(facts: card.Facts) -> Iterator[tuple[str, bytes]]:
    """Names and contents of what is written about a model."""
    about = facts.release
    title = f"{about.model}, version {about.version}: {about.size} {about.architecture}, {about.parameters:,} weights"
    yield card.CURVE, curve.draw(facts.evaluation, title)
    yield CARD, card.write(facts).encode()


def _write(home: UPath, name: str, data: bytes) -> ReleaseFile:
    write_bytes(home / name, data)
    return ReleaseFile(path=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def _tidy(home: UPath, wanted: set[str]) -> None:
    """Remove what a try that was killed left half-written."""
    for path in list_files(home).keys() - wanted - {_FILLING, LOCK}:
        log.warning("%s was left by an earlier try and is removed", home / path)
        (home / path).unlink(missing_ok=True)


@contextmanager
def _room(home: UPath) -> Iterator[None]:
    """PermanentError in one line if no space is left in the block."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise PermanentError(
            f"{home}: no space is left ({error.strerror}), so nothing was released: free some and clear the task"
        ) from error


def _rows(found: ModelRelease, unit: str) -> dict[tuple[str, int, int], float]:
    """Bits of each held-out document by source, number and size: where they are equal, so are the documents."""
    rows = read_json(location(found.uri) / PER_DOCUMENT)["documents"]
    name = found.lineage.data_digest
    return {(f"{name} {row['source']}", row["number"], row[unit]): row["model_bits"] for row in rows}


def _flat(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for name, one in value.items():
        if isinstance(one, Mapping):
            yield from _flat(one, f"{prefix}{name}.")
        elif isinstance(one, int | float) and not isinstance(one, bool):
            yield f"{prefix}{name}", float(one)
