"""The steps of a pre-training run as its DAG's tasks call them: plain values in, small plain values out."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from upath import UPath

from include.config import load_settings
from include.jobs.source import read_source
from include.models import registry, registry_mlflow
from include.storage import digest, location, read_json, write_json
from include.training import cost_gate
from include.training import gate as gating
from include.training import plan as planning
from include.training import release as releasing
from include.training.config import SEGMENTS, PretrainConfig, resolve
from include.training.corpus.config import curation_digest
from include.training.corpus.curate import curate_shard
from include.training.corpus.decontaminate import index_evaluation_sets
from include.training.corpus.deduplicate import deduplicate as deduplicate_parts
from include.training.corpus.listing import list_shards
from include.training.corpus.report import make_report, table
from include.training.corpus_manifest import check_enough
from include.training.packing import finish_corpus, pack_part
from include.training.plan import Plan
from include.training.tokenizer import train_tokenizer

log = logging.getLogger(__name__)

PACKING = 1
"""Raise it with every change that packs the same documents otherwise."""
EVALUATION_S = 4 * 3600
"""Longest runtime of the evaluation, which reads a bounded part of what is held out."""
REASON_CHARACTERS = 300
PRETRAIN, EVALUATE = "include.training.pretrain", "include.training.evaluate_base"


def prepare(params: Mapping[str, Any], run_id: str) -> dict[str, Any]:
    """Resolve and check the Params; the run's instructions."""
    config = resolve(params, run_id)
    log.info("instructions: %s", config.model_dump_json(indent=1))
    return config.model_dump(mode="json")


def list_documents(config: Mapping[str, Any]) -> dict[str, Any]:
    """List the sources and index the evaluation sets; where the corpus will lie, by the digest of all it is made of."""
    run = PretrainConfig(**config)
    place = run.run_home / "listing"
    listing = list_shards(
        run.open_sources(), root=run.root, tenant=run.tenant, target=place, shard_bytes=run.shard_bytes
    )
    sets = run.curation.evaluation_sets
    evaluation = index_evaluation_sets(sets, place).digest if sets else ""
    curated = curation_digest(listing.digest, run.curation, evaluation)
    packed = digest(curated, str(run.vocab_size), str(run.tokenizer_sample_bytes), str(run.seed), str(PACKING))[:32]
    log.info("%d documents or files of records, %d bytes, %d shards", listing.units, listing.bytes, len(listing.shards))
    return {
        "listing": str(place),
        "curated": str(run.home / "curated" / curated[:32]),
        "corpus": str(run.corpora_home / packed),
        "corpus_digest": packed,
        "bytes": listing.bytes,
        "shards": [shard.index for shard in listing.shards],
    }


def curate(config: Mapping[str, Any], listed: Mapping[str, Any], shard: int) -> dict[str, Any]:
    """Read and filter one shard; its counts."""
    run = PretrainConfig(**config)
    return curate_shard(location(listed["listing"]), shard, location(listed["curated"]), run.curation, root=run.root)


def deduplicate(config: Mapping[str, Any], listed: Mapping[str, Any]) -> dict[str, Any]:
    """Keep one of each document, and hold some out; counts."""
    run = PretrainConfig(**config)
    target = location(listed["curated"])
    counts = deduplicate_parts(_parts(target, listed, "curated"), target, run.curation)
    log.info("what became of the documents:\n%s", table(make_report(target, location(listed["listing"]))))
    return counts


def make_tokenizer(config: Mapping[str, Any], listed: Mapping[str, Any]) -> dict[str, Any]:
    """Train the tokenizer on train documents; its digest and what it makes of each source."""
    run = PretrainConfig(**config)
    curated = location(listed["curated"])
    report = train_tokenizer(
        _parts(curated, listed, "curated"),
        _parts(curated, listed, "kept"),
        location(listed["corpus"]),
        vocab_size=run.vocab_size,
        sample_bytes=run.tokenizer_sample_bytes,
        seed=run.seed,
    )
    return report.model_dump(mode="json", include={"vocab_size", "tokenizer_digest"})


def pack(listed: Mapping[str, Any], shard: int) -> dict[str, Any] | None:
    """Turn one shard's documents into token ids; how many. None if the corpus is whole already."""
    curated, corpus = location(listed["curated"]), location(listed["corpus"])
    part, kept = (curated / name / f"part-{shard:05d}.parquet" for name in ("curated", "kept"))
    packed = pack_part(part, kept, corpus / "tokenizer.json", corpus, shard)
    return packed.totals.model_dump(mode="json") if packed else None


def finish(config: Mapping[str, Any], listed: Mapping[str, Any]) -> dict[str, Any]:
    """Write the corpus' report and manifest; its place and its tokens. UserError if they are not enough to train on."""
    run = PretrainConfig(**config)
    curated, corpus = location(listed["curated"]), location(listed["corpus"])
    report = make_report(curated, location(listed["listing"]))
    manifest = finish_corpus(
        corpus, num_parts=len(listed["shards"]), corpus_digest=listed["corpus_digest"], report=report
    )
    check_enough(manifest, run.batch_tokens, run.preset.context)
    log.info("%d tokens to train on, %d held out: %s", manifest.train.tokens, manifest.held_out.tokens, corpus)
    return {"uri": str(corpus), "tokens": manifest.train.tokens, "held_out_tokens": manifest.held_out.tokens}


def plan(config: Mapping[str, Any], listed: Mapping[str, Any]) -> dict[str, Any]:
    """What the run will take, before anything is spent; the question whether it may, if it is one to ask."""
    run = PretrainConfig(**config)
    made = planning.plan(run, listed["bytes"])
    log.info("plan:\n%s", planning.as_text(made))
    write_json(_plan_file(run), made.model_dump(mode="json"))
    return cost_gate.question(run, made)


def settle(config: Mapping[str, Any], found: dict[str, Any], answer: Mapping[str, Any] | None) -> dict[str, Any]:
    """Go on only if the cost is approved; the decision."""
    return cost_gate.settle(PretrainConfig(**config), found, answer)


def order(config: Mapping[str, Any], packed: Mapping[str, Any]) -> dict[str, Any]:
    """The jobs' specs by their tasks: segment_1 and so on, and evaluate."""
    run = PretrainConfig(**config)
    made = Plan.model_validate(read_json(_plan_file(run)))
    common = {
        "tenant": run.tenant,
        "use_case": run.use_case,
        "channels": {"corpus": packed["uri"]},
        "force": run.force,
    }
    resources = {
        "image": "torch-gpu" if made.compute.is_gpu else "torch-cpu",
        "instance_type": None if run.is_local else run.instance_type,
        "volume_gb": made.work.volume_gb,
    }
    specs: dict[str, Any] = {
        f"segment_{number}": {
            **common,
            "name": "pretrain",
            "script": PRETRAIN,
            "hyperparameters": run.hyperparameters(number),
            "resources": {**resources, "instance_count": run.instance_count, "spot": run.spot},
            "max_runtime_s": made.cost.max_runtime_s[number - 1],
        }
        for number in range(1, SEGMENTS + 1)
    }
    specs["evaluate"] = {
        **common,
        "name": "evaluate-base",
        "script": EVALUATE,
        "hyperparameters": {"seed": run.seed},
        "resources": {**resources, "spot": run.spot},
        "max_runtime_s": EVALUATION_S,
    }
    return specs


def gate(config: Mapping[str, Any], evaluated: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse a model that does not surely beat the baselines; the verdict and its reasons."""
    decision = gating.judge(*gating.read_evaluation(location(evaluated["output_uri"])), _thresholds(config))
    for reason in decision.reasons:
        log.info("%s", reason)
    gating.require(decision)
    return {"verdict": decision.verdict, "reasons": [reason[:REASON_CHARACTERS] for reason in decision.reasons]}


def release(
    config: Mapping[str, Any],
    packed: Mapping[str, Any],
    jobs: Sequence[Mapping[str, Any]],
    *,
    dag_id: str,
) -> dict[str, Any]:
    """Make a release of what the last of the jobs evaluated; what to tell about it, and which alias it has."""
    run = PretrainConfig(**config)
    made = Plan.model_validate(read_json(_plan_file(run)))
    seconds = math.fsum(job["billed_s"] for job in jobs)
    price = made.cost.usd_per_hour
    found = releasing.release(
        run.root,
        releasing.Order(
            tenant=run.tenant,
            use_case=run.use_case,
            name=run.model_name,
            output_uri=jobs[-1]["output_uri"],
            corpus_uri=packed["uri"],
            config={**run.hyperparameters(SEGMENTS), "vocab_size": run.vocab_size},
            code_digest=digest(read_source(PRETRAIN).digest, read_source(EVALUATE).digest),
            jobs=tuple(job["job"] for job in jobs),
            instance_seconds=seconds,
            hardware=made.compute.name,
            usd=None if price is None else seconds / 3600 * price,
            dag_id=dag_id,
            run_id=run.run_id,
        ),
        _thresholds(config),
    )
    by = f"{dag_id} {run.run_id}"
    promoted = registry.promote(run.root, run.tenant, found.model, found.version, better=releasing.better, by=by)
    log.info("%s: %s", found.reference, promoted)
    return {**releasing.summary(found), "alias": promoted.alias}


def register(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Bring MLflow's view of the releases up to date; None where there is no MLflow."""
    run = PretrainConfig(**config)
    uri = registry_mlflow.tracking_uri(load_settings())
    if uri is None:
        return None
    synced = registry_mlflow.sync_mlflow(run.root, run.tenant, uri)
    return {"tracking_uri": uri, "models": synced.models, "versions": synced.versions}


def _thresholds(config: Mapping[str, Any]) -> gating.Thresholds:
    margin = config["baseline_margin"]
    return gating.Thresholds(
        ngram_margin=margin, zlib_margin=margin, unigram_margin=margin, is_doubt_allowed=config["accept_doubt"]
    )


def _plan_file(run: PretrainConfig) -> UPath:
    return run.run_home / "plan.json"


def _parts(folder: UPath, listed: Mapping[str, Any], name: str) -> list[UPath]:
    return [folder / name / f"part-{shard:05d}.parquet" for shard in listed["shards"]]
