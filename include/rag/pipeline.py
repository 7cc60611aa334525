"""The steps of an ingestion as tasks call them: plain values in, plain and small values out (an XCom holds 4 KB)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from include import lineage
from include.errors import UserError
from include.lineage import Data
from include.models.metering import Caller, Meter
from include.rag import check as checking
from include.rag import commit as committing
from include.rag import config as configuring
from include.rag import deletions
from include.rag import evaluate as evaluating
from include.rag import go_live as going_live
from include.rag import hand_over as handing_over
from include.rag.config import IngestConfig
from include.rag.embed import embed_shard
from include.rag.plan import deleted_uri, make_plan, read_deleted, read_plan
from include.rag.stages import stage
from include.release import release_digest

log = logging.getLogger(__name__)

XCOM_BYTES = 4000
"""What a task may hand on: it lies in Airflow's database, and larger values have broken runs."""


def prepare(params: Mapping[str, Any], run_id: str) -> dict[str, Any]:
    """Resolve and check everything before any work; build the demo's documents if no source is given."""
    config = configuring.resolve(params, run_id)
    value = config.model_dump(mode="json")
    if (size := len(json.dumps(value))) > XCOM_BYTES:
        raise UserError(
            f"source, golden, include and exclude take {size:,} bytes with the other Params, at most {XCOM_BYTES:,}: "
            "give shorter paths, or fewer and shorter patterns"
        )
    evaluating.check_golden(config)
    if config.embed_on == "job":
        handing_over.check(config, params)
    version = config.versions.choose(config.spec, run_id, rebuild=config.rebuild)
    value["version"] = version.number
    log.info("this run works on %s of index %s: %s", version.name, config.index, version.spec)
    log.info("release %s; this run: %s", release_digest(), config.model_dump_json(indent=1))
    if not params.get("source"):
        from include.documents.demo import build, demo_home

        documents = build(demo_home(config.root), params.get("corpus", "demo"))
        log.info("the demo's source holds %d documents", documents)
    return value


def plan(config: Mapping[str, Any]) -> list[str]:
    """Compare source and ledger; the names of the shards that mapped tasks are to embed."""
    run = IngestConfig(**config)
    with stage(run, "plan"):
        found = make_plan(run)
    return list(found.shards) if run.embed_on == "tasks" else []


def guard(config: Mapping[str, Any]) -> dict[str, Any]:
    """What would leave the index, and the question if that is too much to delete unasked."""
    run = IngestConfig(**config)
    indexed, list_uri = read_plan(run).indexed, str(deleted_uri(run))
    return deletions.evidence(run, read_deleted(run), indexed=indexed, list_uri=list_uri)


def settle(config: Mapping[str, Any], found: Mapping[str, Any], answer: Mapping[str, Any] | None) -> dict[str, Any]:
    """Decide whether what is gone from the source is deleted."""
    return deletions.settle(IngestConfig(**config), found, answer)


def embed(config: Mapping[str, Any], shard: str, *, dag_id: str, task_id: str) -> dict[str, Any]:
    """Embed one shard's documents, metered; its counts."""
    run = IngestConfig(**config)
    with Meter(root=run.root, caller=_caller(run, dag_id, task_id)) as meter, stage(run, f"embed {shard}", meter):
        return embed_shard(run, shard, meter)


def hand_over(
    config: Mapping[str, Any], params: Mapping[str, Any], *, dag_id: str, task_id: str
) -> dict[str, Any] | None:
    """The spec of the job that embeds all shards; None if no job is to."""
    return handing_over.hand_over(IngestConfig(**config), params, dag_id=dag_id, task_id=task_id)


def commit(config: Mapping[str, Any]) -> dict[str, Any]:
    """Write the store, then the ledger; small counts."""
    run = IngestConfig(**config)
    with stage(run, "commit"):
        return committing.commit(run)


def check(config: Mapping[str, Any]) -> dict[str, Any]:
    """Compare store and ledger; the run's counts and the URI of its manifest."""
    run = IngestConfig(**config)
    with stage(run, "check"):
        manifest, path = checking.check(run)
    ledger_version = str(manifest.ledger_version)
    lineage.record(
        inputs=[Data(uri=manifest.source_uri)],
        outputs=[
            Data(uri=manifest.store_uri, version=ledger_version, rows=manifest.counts.chunks_written),
            Data(uri=manifest.ledger_uri.rpartition("/")[0], version=ledger_version),
            Data(uri=str(path)),
        ],
    )
    return {"manifest_uri": str(path), **manifest.counts.model_dump()}


def evaluate(config: Mapping[str, Any], *, dag_id: str, task_id: str) -> dict[str, Any]:
    """Ask the index questions whose answers are known, metered; the URIs of the report and the verdict."""
    run = IngestConfig(**config)
    with Meter(root=run.root, caller=_caller(run, dag_id, task_id)) as meter:
        return evaluating.evaluate(run, meter)


def gate(evaluated: Mapping[str, Any]) -> str:
    """The verdict; GateError if the index is refused."""
    return evaluating.gate(evaluated["quality_uri"])


def switch(config: Mapping[str, Any]) -> dict[str, Any]:
    """Let readers have this run's version, now that the gate let it pass; whether it is live."""
    return going_live.go_live(IngestConfig(**config))


def publish(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """What to tell about the index; None if this version was told already, or is not live."""
    return going_live.news(IngestConfig(**config))


def remember(config: Mapping[str, Any], told: dict[str, Any]) -> None:
    """Note what was told, after it was."""
    going_live.remember(IngestConfig(**config), told)


def clean_up(config: Mapping[str, Any]) -> list[str]:
    """Remove versions that nobody needs; their names."""
    run = IngestConfig(**config)
    return going_live.clean_up(run.versions, run.keep_versions)


def _caller(run: IngestConfig, dag_id: str, task_id: str) -> Caller:
    return Caller(tenant=run.tenant, use_case=run.use_case, dag_id=dag_id, run_id=run.run_id, task_id=task_id)
