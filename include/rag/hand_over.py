"""hand_over(): a run's shards to a processing job, in files beside the run's plan; check(): what a job cannot be given.

A job has no credentials of a worker and none of its environment, and its files lie in storage: so no secret is handed
over, and a run that needs one is refused before any work.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from include.aws import region
from include.config import Settings, load_settings
from include.errors import UserError
from include.jobs.base import default_backend, open_backend
from include.jobs.images import WORKER
from include.jobs.source import read_source
from include.jobs.spec import name_spec, read_spec
from include.models.embeddings import get_embedder
from include.models.remote_embeddings import Bedrock, OpenAICompatible
from include.rag.config import IngestConfig
from include.rag.embed_job import RUN_CHANNEL, RUN_FILE, SHARDS_CHANNEL
from include.rag.plan import num_documents, read_plan
from include.storage import digest, write_json

NAME, SCRIPT = "rag-embed", "include.rag.embed_job"
SETTINGS = ("embedding_", "model_", "opensearch_")
"""First letters of what the job must know of the settings; all else that it needs stands in the run's configuration."""
NO_KEY = Settings.model_fields["embedding_api_key"].default


def check(config: IngestConfig, params: Mapping[str, Any], settings: Settings | None = None) -> None:
    """UserError in one line if a job cannot embed this run here."""
    settings = settings or load_settings()
    backend = default_backend(settings)
    for what, advice in (*_secrets(config, settings), *_out_of_reach(config, settings, backend)):
        raise UserError(f"embed_on='job': {what}: {advice}, or embed_on=tasks")
    spec = read_spec({**_spec(config, params, count=1), "dag_id": "", "run_id": "", "task_id": ""})
    open_backend(backend, settings).check(name_spec(spec, read_source(SCRIPT)))


def hand_over(config: IngestConfig, params: Mapping[str, Any], *, dag_id: str, task_id: str) -> dict[str, Any] | None:
    """The spec of the job that embeds what the plan found due; None if tasks do, or if there is nothing to embed.

    The same work is handed over in the same files, so that a repeated call names the job that was started before.
    """
    plan = read_plan(config)
    if config.embed_on != "job" or not plan.shards:
        return None
    settings = load_settings()
    run = {
        "config": config.model_dump(mode="json"),
        "environment": _environment(settings),
        "caller": {"dag_id": dag_id, "task_id": task_id},
        "due": plan.due,
    }
    folder = config.run_home / "job" / digest(json.dumps(run, sort_keys=True))[:16]
    if not (folder / RUN_CHANNEL / RUN_FILE).exists():
        for shard in plan.shards:
            write_json(folder / SHARDS_CHANNEL / f"{shard}.json", {"documents": num_documents(config, plan, shard)})
        write_json(folder / RUN_CHANNEL / RUN_FILE, run)
    channels = {name: str(folder / name) for name in (RUN_CHANNEL, SHARDS_CHANNEL)}
    return {**_spec(config, params, count=len(plan.shards)), "channels": channels, "sharded": [SHARDS_CHANNEL]}


def _spec(config: IngestConfig, params: Mapping[str, Any], count: int) -> dict[str, Any]:
    return {
        "name": NAME,
        "kind": "processing",
        "script": SCRIPT,
        "resources": {
            "image": WORKER,
            "instance_type": params.get("instance_type"),
            "instance_count": min(params.get("job_instances", 1), count),  # each has a shard at least
        },
        "max_runtime_s": round(params.get("job_hours", 12) * 3600),
        "tenant": config.tenant,
        "use_case": config.use_case,
    }


def _environment(settings: Settings) -> dict[str, str]:
    """Variables that stand for the settings, without secrets, and for the region, which not every container knows."""
    secret = {name for name, field in Settings.model_fields.items() if field.annotation is SecretStr}
    known = settings.model_dump(mode="json", exclude=secret, exclude_unset=True, exclude_none=True)
    given = {f"FMOPS_{name.upper()}": str(value) for name, value in known.items() if name.startswith(SETTINGS)}
    return {**given, "AWS_DEFAULT_REGION": region()} if default_backend(settings) == "sagemaker" else given


def _secrets(config: IngestConfig, settings: Settings) -> Iterator[tuple[str, str]]:
    """What the run would need a secret for, and how it could do without."""
    if isinstance(get_embedder(config.embedder), OpenAICompatible):
        if settings.embedding_api_key != NO_KEY:
            yield "FMOPS_EMBEDDING_API_KEY is a secret", "take an embedder of Bedrock, which a role signs in to"
        if urlsplit(settings.embedding_url or "").password:
            yield "FMOPS_EMBEDDING_URL holds a password", "take it out"
    if "opensearch" in _stores(config) and settings.opensearch_auth == "basic":
        yield "FMOPS_OPENSEARCH_PASSWORD is a secret", "set FMOPS_OPENSEARCH_AUTH=sigv4, by which a role signs in"


def _out_of_reach(config: IngestConfig, settings: Settings, backend: str) -> Iterator[tuple[str, str]]:
    """What the job could not get at, and where it could."""
    if backend == "local":
        signs_in = "opensearch" in _stores(config) and settings.opensearch_auth == "sigv4"
        needs = [uri for uri in (config.root, config.source) if uri.startswith("s3://")]
        needs += [f"embedder {config.embedder}"] if isinstance(get_embedder(config.embedder), Bedrock) else []
        needs += ["FMOPS_OPENSEARCH_AUTH=sigv4"] if signs_in else []
        if needs:
            yield f"{needs[0]} needs AWS credentials, which local jobs do not get", "set FMOPS_JOB_BACKEND=sagemaker"
    elif backend == "sagemaker" and not config.source.startswith("s3://"):
        yield f"source={config.source!r} lies on this machine", "copy it to s3://"


def _stores(config: IngestConfig) -> set[str]:
    """Where shards look for vectors: the run's store, and that of the live version."""
    versions = config.versions
    live = versions.live().version
    former = [] if live is None else [versions.get(live)]
    return {config.store, *(version.spec.store for version in former if version.adopted is None)}
