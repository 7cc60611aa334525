"""A view of the releases in MLflow: written from their manifests alone, by one task at a time; deleted, it comes back.

For each model a registered model `<tenant>.<name>`, whose version numbers and aliases are the registry's own; for each
version a run with parameters, metrics, the training curve as their history, and the release's small files. Jobs never
import MLflow; a task does so within sync_mlflow() only.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.config import Settings
from include.contracts import ModelRelease
from include.errors import UserError
from include.models import registry
from include.storage import exclusive, location, read_json

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

TAG_ROOT, TAG_RELEASE, TAG_MANIFEST = "fmops.root", "fmops.release", "fmops.manifest"
"""Whose view it is, which release, and the digest of the manifest that it was made from."""
SQLITE = "sqlite:///"
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Of an experiment: MLflow's pages on model training show its runs."""
VARIABLE = "MLFLOW_TRACKING_URI"
"""Where MLflow keeps what is set for the whole process."""
FOLDER = "release"
"""Of a run's artifacts."""
EVALUATION = "evaluation.json"
MAX_DESCRIPTION, MAX_METRICS, MAX_PARAMS, MAX_RUNS = 4900, 1000, 100, 1000
"""Characters that MLflow's databases hold; items that it takes or gives in one call."""
ALIASES = (registry.CHAMPION, registry.CHALLENGER)


@dataclass(frozen=True, kw_only=True, slots=True)
class Synced:
    """What the view holds, and how much of it this call wrote."""

    models: int
    versions: int
    written: int


def tracking_uri(settings: Settings) -> str | None:
    """Where the view lies; None where there is none, on storage that MLflow's own SQLite file cannot lie on."""
    if settings.mlflow_tracking_uri is not None:
        return settings.mlflow_tracking_uri
    if not settings.root.startswith("file://"):
        return None
    return f"sqlite:///{settings.root.removeprefix('file://')}/mlflow.db"


def quiet() -> None:
    """Keep MLflow from telling its makers what it is used for, and a log where runs are shown; before its import."""
    names = ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT")
    os.environ |= dict.fromkeys(names, "true")


def sync_mlflow(root: str, tenant: str, uri: str) -> Synced:
    """Bring the view of a tenant's models up to date; a second call writes nothing, and from nothing it is the same.

    A registered model whose versions are not those of the releases is made anew. UserError if one of that name is not
    ours, or shows the releases of another storage root. Models whose releases are all gone are left alone.
    """
    versions = {name: registry.list_versions(root, tenant, name) for name in registry.list_models(root, tenant)}
    with _client(uri) as client:
        written = sum(_Model(client, root, releases, uri).sync() for releases in versions.values())
    found = Synced(models=len(versions), versions=sum(map(len, versions.values())), written=written)
    log.info("MLflow at %s shows %d models, %d versions; %d written", uri, found.models, found.versions, written)
    return found


@contextmanager
def _client(uri: str) -> Iterator[MlflowClient]:
    quiet()
    import mlflow

    file = location(f"file://{uri.removeprefix(SQLITE)}") if uri.startswith(SQLITE) else None
    # A server answers one call after the other; of its file two processes would make tables and models at once.
    with exclusive(file.with_name(f"{file.name}.lock")) if file is not None else nullcontext():
        if not uri.startswith("arn:"):  # SageMaker's plugin warns at each call to a server that is not its own
            logging.getLogger("mlflow.tracking.request_header.registry").setLevel(logging.ERROR)
        before = os.environ.get(VARIABLE)
        mlflow.set_tracking_uri(uri)  # SageMaker's plugin signs for the server that is set so, whatever the client's is
        try:
            yield mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
        finally:
            mlflow.set_tracking_uri(before or "")
            if before is None:
                del os.environ[VARIABLE]


class _Model:
    """The view of one model."""

    def __init__(self, client: MlflowClient, root: str, releases: Sequence[ModelRelease], uri: str) -> None:
        self.client, self.root, self.releases, self.uri = client, root, releases, uri
        self.tenant, self.short_name = releases[0].tenant, releases[0].model
        self.name = f"{self.tenant}.{self.short_name}"  # no name of ours holds a dot

    def sync(self) -> int:
        """How many versions were written."""
        there = self._versions() if self._is_there() else {}
        if not self._fits(there):
            log.warning("%s is made anew: its versions are not those of the releases", self.name)
            self.client.delete_registered_model(self.name)
            there = {}
        if not there and not self._is_there():
            self._create()
        due = [one for one in self.releases if one.version not in there]
        for release in due:
            self._write(release)
        self._set_aliases()
        return len(due)

    def _is_there(self) -> bool:
        """Whether it is there and ours; UserError if it is there and not ours."""
        names = self.client.search_registered_models(filter_string=f"name = '{self.name}'")
        if not names:
            return False
        if (owner := names[0].tags.get(TAG_ROOT)) != self.root:
            whose = f"shows the releases below {owner}" if owner else "was not made from releases"
            raise UserError(
                f"MLflow at {self.uri}: the registered model {self.name!r} {whose}, not those below {self.root}: set "
                "another tenant, or another mlflow_tracking_uri"
            )
        return True

    def _create(self) -> None:
        home = registry.model_home(self.root, self.tenant, self.short_name)
        text = f"Releases of `{self.short_name}`, tenant `{self.tenant}`. The manifests below `{home}` are the truth."
        self.client.create_registered_model(self.name, tags={TAG_ROOT: self.root}, description=text)

    def _versions(self) -> dict[int, str]:
        """Number -> digest of the manifest that it was made from."""
        found = _pages(lambda token: self.client.search_model_versions(f"name = '{self.name}'", page_token=token))
        return {int(one.version): one.tags.get(TAG_MANIFEST, "") for one in found}

    def _fits(self, there: dict[int, str]) -> bool:
        """Whether all that is there is right, and what is missing comes after it."""
        wanted = {one.version: _manifest_digest(one) for one in self.releases}
        is_right = all(wanted.get(number) == found for number, found in there.items())
        return is_right and min(wanted.keys() - there.keys(), default=math.inf) > max(there, default=0)

    def _write(self, release: ModelRelease) -> None:
        """A run and a version of the release's own number; MLflow counts up, so numbers in between are used up."""
        run_id, artifacts = self._run(release)
        # A server takes no path on another machine's disk as a source; there the run's artifacts stand for the model.
        is_local = release.model_uri.startswith("file://") and not self.uri.startswith(SQLITE)
        source = f"{artifacts}/{FOLDER}" if is_local else release.model_uri
        while True:
            made = self.client.create_model_version(
                self.name,
                source,
                run_id,
                tags=_version_tags(release),
                description=_description(release),
                await_creation_for=0,
            )
            if int(made.version) >= release.version:
                break
            self.client.delete_model_version(self.name, made.version)
        if int(made.version) != release.version:
            log.warning("%s: MLflow calls version %d %s", self.name, release.version, made.version)

    def _run(self, release: ModelRelease) -> tuple[str, str]:
        """Id and artifact folder of the release's run: the one that is whole, or a new one."""
        experiment, digest = self._experiment(), _manifest_digest(release)
        condition = f"tags.`{TAG_RELEASE}` = '{release.reference}'"
        for run in self.client.search_runs([experiment], condition, max_results=MAX_RUNS):
            if run.info.status == "FINISHED" and run.data.tags.get(TAG_MANIFEST) == digest:
                return run.info.run_id, run.info.artifact_uri
            self.client.delete_run(run.info.run_id)  # of a sync that was killed, or of another manifest
        at = _milliseconds(release)
        name = f"{release.model} {release.version}"
        run = self.client.create_run(experiment, start_time=at, tags=_tags(release), run_name=name)
        self._fill(run.info.run_id, release)
        self.client.set_terminated(run.info.run_id, "FINISHED", end_time=at)  # last: now it is whole
        return run.info.run_id, run.info.artifact_uri

    def _experiment(self) -> str:
        name = f"{self.tenant}/{self.short_name}"
        if (found := self.client.get_experiment_by_name(name)) is not None:
            return str(found.experiment_id)
        folder = None  # a server's own choice
        if self.uri.startswith(SQLITE):
            beside = Path(self.uri.removeprefix(SQLITE)).parent / "mlflow-artifacts"
            folder = str(beside / self.tenant / self.short_name)
        return str(self.client.create_experiment(name, artifact_location=folder, tags=KIND))

    def _fill(self, run_id: str, release: ModelRelease) -> None:
        from mlflow.entities import Metric, Param

        at = _milliseconds(release)
        about = {"architecture": release.architecture, "size": release.size, "parameters": release.parameters}
        params = [Param(name, str(value)) for name, value in {**about, **release.config}.items()]
        for first in range(0, len(params), MAX_PARAMS):
            self.client.log_batch(run_id, params=params[first : first + MAX_PARAMS])
        step = int(release.metrics.get("step", 0))
        metrics = [Metric(name, value, at, step) for name, value in release.metrics.items()]
        metrics += [Metric(name, value, at, step) for name, value, step in _curve(release)]
        for first in range(0, len(metrics), MAX_METRICS):
            self.client.log_batch(run_id, metrics=metrics[first : first + MAX_METRICS])
        with tempfile.TemporaryDirectory() as folder:
            for name in (*_small_files(release), registry.MANIFEST):
                Path(folder, name).write_bytes((location(release.uri) / name).read_bytes())
            self.client.log_artifacts(run_id, folder, FOLDER)

    def _set_aliases(self) -> None:
        wanted = registry.read_aliases(self.root, self.tenant, self.short_name)
        aliases = self.client.get_registered_model(self.name).aliases
        there = {alias: int(version) for alias, version in aliases.items()}  # a file tells numbers, a server texts
        for alias in ALIASES:
            version = getattr(wanted, alias)
            if version is None and alias in there:
                self.client.delete_registered_model_alias(self.name, alias)
            elif version is not None and there.get(alias) != version:
                self.client.set_registered_model_alias(self.name, alias, str(version))


def _manifest_digest(release: ModelRelease) -> str:
    return hashlib.sha256((location(release.uri) / registry.MANIFEST).read_bytes()).hexdigest()


def _small_files(release: ModelRelease) -> list[str]:
    """What lies beside the model's own folder."""
    return [file.path for file in release.files if "/" not in file.path]


def _curve(release: ModelRelease) -> Iterator[tuple[str, float, int]]:
    """(metric, value, step) of the points of the training curve; what is no number is left out."""
    if EVALUATION not in _small_files(release):
        return
    for point in read_json(location(release.uri) / EVALUATION).get("curve", ()):
        for name, value in point.items():
            if name != "step" and value is not None and math.isfinite(value):
                yield f"train/{name}", float(value), int(point["step"])


def _tags(release: ModelRelease) -> dict[str, str]:
    lineage = release.lineage.model_dump()
    return {
        TAG_RELEASE: release.reference,
        TAG_MANIFEST: _manifest_digest(release),
        **{name: _told(value) for name, value in lineage.items()},
        "content_digest": release.content_digest,
        "base_model": release.base_model or "none",
        "model_uri": release.model_uri,
        "card_uri": release.card_uri,
        "licences": _told(release.licences),
        "use_case": release.use_case,
        "cost_usd": "unknown" if release.cost.usd is None else str(release.cost.usd),
        "instance_seconds": str(release.cost.instance_seconds),
    }


def _version_tags(release: ModelRelease) -> dict[str, str]:
    """Those that tell versions apart: a list of versions shows all of its tags."""
    tags = _tags(release)
    names = ("run_id", "base_model", "data_digest", "tokenizer_digest", "config_digest", "code_digest", "model_uri")
    return {name: tags[name] for name in (TAG_RELEASE, TAG_MANIFEST, *names)}


def _told(value: str | Sequence[str]) -> str:
    return value if isinstance(value, str) else ", ".join(value)


def _description(release: ModelRelease) -> str:
    """The card without its image, which MLflow would not find; cut where its database would."""
    text = location(release.card_uri).read_text(encoding="utf-8")
    text = re.sub(r"^!\[[^]]*\]\([^)]*\)\n\n", "", text, flags=re.MULTILINE)
    return text if len(text) <= MAX_DESCRIPTION else f"{_closed(text[:MAX_DESCRIPTION])}\n\n(cut: see card.md)"


def _closed(text: str) -> str:
    """The text up to the last heading, so that no block of code stays open."""
    return text[: text.rindex("\n## ")] if "\n## " in text else ""


def _milliseconds(release: ModelRelease) -> int:
    return int(release.created_at.timestamp() * 1000)


def _pages(search: Callable[[str | None], Any]) -> Iterator[Any]:
    """All that a search finds, page by page."""
    token: str | None = None
    while True:
        page = search(token)
        yield from page
        if not (token := page.token):
            return
