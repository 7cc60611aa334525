"""The steps of an ingestion as tasks call them: plain values in, plain and small values out (an XCom holds 4 KB)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from include.models.metering import Caller, Meter
from include.rag import commit as committing
from include.rag import config as configuring
from include.rag.config import IngestConfig
from include.rag.embed import embed_shard
from include.rag.plan import make_plan
from include.release import release_digest

log = logging.getLogger(__name__)


def prepare(params: Mapping[str, Any], run_id: str) -> dict[str, Any]:
    """Resolve and check everything before any work; build the demo's documents if no source is given."""
    config = configuring.resolve(params, run_id)
    log.info("release %s; this run: %s", release_digest(), config.model_dump_json(indent=1))
    if not params.get("source"):
        from include.rag.demo import build

        documents = build(configuring.demo_home(config.root), params.get("corpus", "demo"))
        log.info("the demo's source holds %d documents", documents)
    return config.model_dump(mode="json")


def plan(config: Mapping[str, Any]) -> list[str]:
    """Compare source and ledger; the names of the shards to embed."""
    return list(make_plan(IngestConfig(**config)).shards)


def embed(config: Mapping[str, Any], shard: str, *, dag_id: str, task_id: str) -> dict[str, Any]:
    """Embed one shard's documents, metered; its counts."""
    run = IngestConfig(**config)
    caller = Caller(tenant=run.tenant, use_case=run.use_case, dag_id=dag_id, run_id=run.run_id, task_id=task_id)
    with Meter(root=run.root, caller=caller) as meter:
        return embed_shard(run, shard, meter)


def commit(config: Mapping[str, Any]) -> dict[str, Any]:
    """Write the store, then the ledger; small counts."""
    return committing.commit(IngestConfig(**config))


def check(config: Mapping[str, Any]) -> dict[str, Any]:
    """Compare store and ledger; the run's counts and the URI of its manifest."""
    manifest, path = committing.check(IngestConfig(**config))
    return {"manifest_uri": str(path), **manifest.counts.model_dump()}


def publish(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """What to tell about the index; None if this version was told already."""
    return committing.news(IngestConfig(**config))


def remember(config: Mapping[str, Any], told: dict[str, Any]) -> None:
    """Note what was told, after it was."""
    committing.remember(IngestConfig(**config), told)
