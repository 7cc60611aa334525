"""The steps of a pre-training run as its DAG's tasks call them: plain values in, small plain values out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from upath import UPath

from include.jobs.source import read_source
from include.models import registry, registry_mlflow
from include.config import load_settings
from include.storage import digest, location
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
from include.training.tokenizer import train_tokenizer

log = logging.getLogger(__name__)

PACKING = 1
"""Raise it with every change that packs the same documents otherwise."""
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
    return curate_shard(
        location(listed["listing"]), shard, location(listed["curated"]), run.curation, root=run.root
    )


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
    return report.model_dump(mode="json", include={"vocab_size", "digest"})


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


def _parts(folder: UPath, listed: Mapping[str, Any], name: str) -> list[UPath]:
    return [folder / name / f"part-{shard:05d}.parquet" for shard in listed["shards"]]
