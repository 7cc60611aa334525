"""
# Pre-training

Pre-trains a language model from scratch, from raw documents to a released version that anything can load: curates a
corpus, trains a tokenizer, trains the model in four segments, measures it against what needs no training, and releases
it only if it is better.

```
 plan                         corpus                                train                  release
 prepare -> list_documents -> curate [0..n] -> deduplicate       -> order -> segment_1  -> evaluate -> gate -> publish
 resolve    and cost: plan    read, filter,    near duplicates,              segment_2     export,     beat    version,
 Params     -> approve        13-grams of      hold out                      segment_3     reload,     n-gram  card,
            -> settle         evaluation       -> tokenizer                  segment_4     measure     and     alias
            a person, if it   sets             -> pack [0..n]                25 % of the             zlib    -> register
            is not cheap                       -> finish                     steps each                           MLflow
```

**Inputs.** `sources`: folders of documents, JSON lines or Parquet of records, or an ingestion index, each with its
licence; with none, the documentation that the ingestion demo reads. **Outputs**, below
`<storage root>/<tenant>/training/`: `corpora/<digest>/` (token files, tokenizer, what was kept and dropped and why) and
`releases/<model_name>/<version>/` (`model/` for transformers, `card.md`, `evaluation.json`, `curve.png`; where
`manifest.json` exists, the release is whole). Asset `released_model` tells whoever fine-tunes or evaluates it.

**Cost.** With the defaults nothing but some minutes of two cores. On SageMaker an instance for as long as it
trains: the plan shows tokens, FLOPs, memory, hours and dollars before anything is spent, refuses what exceeds
`budget_usd`, and asks a person above `approve_above_usd`. A machine that is lost costs what was done since the last
checkpoint, at most `checkpoint_every_s`. Work that was done for the same inputs is not done again.

**Run it.** Trigger it with its defaults, or `make dag DAG=pretraining`; the encoder-decoder:
`make dag DAG=pretraining CONF='{"architecture": "encoder_decoder"}'`. Larger: `size`. `make ui-mlflow` shows the
releases.
"""

from __future__ import annotations

from airflow.sdk import Asset, Param, dag, task, task_group

from include.approval import ask_a_person
from include.dag_defaults import default_args
from include.jobs.operator import JobOperator
from include.names import NAME

RELEASED_MODEL = Asset("released_model")
SEGMENTS = 4


def optional(kind: str, description: str, section: str, **schema) -> Param:
    """A Param that may stay empty."""
    return Param(None, type=["null", kind], description=description, section=section, **schema)


PARAMS = {
    "sources": Param(
        None,
        type=["null", "array"],
        items={"type": "object"},
        description="Each {name, uri, kind: folder | records | index, licence}, and for records text_field. "
        "Empty: the documentation inside the installed Airflow packages.",
        examples=[[{"name": "handbook", "uri": "s3://my-bucket/handbook", "licence": "CC-BY-4.0"}]],
        section="Corpus",
    ),
    "languages": Param(
        ["en"],
        type="array",
        items={"type": "string"},
        description="Codes of ISO 639 of what is kept; any: all, and none is detected.",
        section="Corpus",
    ),
    "min_characters": Param(
        200, type="integer", minimum=1, description="Shorter documents are left out.", section="Corpus"
    ),
    "evaluation_sets": Param(
        [],
        type="array",
        items={"type": "string"},
        description="URIs of JSON lines; a document that shares 13 words in a row with one of their texts is left out.",
        section="Corpus",
    ),
    "min_near_duplicate": Param(
        0.8,
        type="number",
        exclusiveMinimum=0,
        maximum=1,
        description="Similarity (Jaccard, of 5-word shingles) from which one of two documents is left out.",
        section="Corpus",
    ),
    "held_out_share": Param(
        0.05,
        type="number",
        minimum=0,
        maximum=0.5,
        description="Of each source's documents, that are never trained on and measure the model.",
        section="Corpus",
    ),
    "architecture": Param(
        "decoder",
        enum=["decoder", "encoder_decoder"],
        description="Llama's, which predicts the next token, or T5's, which fills in spans that were left out.",
        section="Model",
    ),
    "size": Param(
        "tiny",
        enum=["tiny", "mini", "small", "1b"],
        description="2, 17, 110 or 930 million weights; what is not set below follows from it.",
        section="Model",
    ),
    "vocab_size": optional("integer", "Tokens of the vocabulary.", "Model", minimum=360, maximum=65_536),
    "model_name": Param("docs-lm", type="string", pattern=NAME, description="What is released.", section="Model"),
    "steps": optional("integer", "Of the optimiser, over all segments.", "Training", minimum=SEGMENTS),
    "batch_tokens": optional("integer", "Tokens of one step.", "Training", minimum=1),
    "learning_rate": optional("number", "At its peak.", "Training", exclusiveMinimum=0, maximum=1),
    "schedule": Param(
        "cosine",
        enum=["cosine", "wsd"],
        description="Of the learning rate after its warm-up: falling all the time, or steady and falling at the end.",
        section="Training",
    ),
    "precision": Param(
        "auto",
        enum=["auto", "fp32", "bf16"],
        description="auto: bfloat16 where the hardware multiplies it faster.",
        section="Training",
    ),
    "parallelism": Param(
        "auto",
        enum=["auto", "single", "ddp", "fsdp"],
        description="Of several processes: the whole model in each (ddp), or a part (fsdp).",
        section="Training",
    ),
    "processes": optional(
        "integer", "On each instance. Empty: one for each GPU; on a CPU two for tiny, else one.", "Training", minimum=1
    ),
    "compile": Param(
        "auto", enum=["auto", "on", "off"], description="torch.compile; auto: on GPUs.", section="Training"
    ),
    "seed": Param(
        0, type="integer", minimum=0, description="Of weights, order and what is held out.", section="Training"
    ),
    "checkpoint_every_s": optional(
        "number", "Seconds of work that an interruption costs at most.", "Training", exclusiveMinimum=0
    ),
    "instance_type": optional("string", "Such as ml.p5.4xlarge; locally there is one machine.", "Machines and cost"),
    "instance_count": optional("integer", "Instances of one segment.", "Machines and cost", minimum=1),
    "spot": Param(
        False,
        type="boolean",
        description="Cheaper capacity that can be taken away; a segment goes on from its last checkpoint.",
        section="Machines and cost",
    ),
    "usd_per_hour": optional(
        "number", "Of one instance, in your region. Empty: the catalog's.", "Machines and cost", exclusiveMinimum=0
    ),
    "budget_usd": optional("number", "Refuse a run whose plan costs more.", "Machines and cost", exclusiveMinimum=0),
    "approve_above_usd": Param(
        5.0, type="number", minimum=0, description="Ask a person if it costs more.", section="Machines and cost"
    ),
    "answer_hours": Param(
        24,
        type="number",
        exclusiveMinimum=0,
        maximum=720,
        description="Until a question that nobody answered counts as answered with no.",
        section="Machines and cost",
    ),
    "baseline_margin": Param(
        0.0,
        type="number",
        minimum=0,
        exclusiveMaximum=1,
        description="By which share of their cost the model must beat the baselines.",
        section="Release",
    ),
    "accept_doubt": Param(
        False, type="boolean", description="Release a model that is better, but not surely.", section="Release"
    ),
    "tenant": optional("string", "Whose model it is. Empty: the setting FMOPS_TENANT.", "Release", pattern=NAME),
    "use_case": optional("string", "What it is for. Empty: the setting FMOPS_USE_CASE.", "Release", pattern=NAME),
    "force": Param(
        False, type="boolean", description="Train although a run with the same inputs has.", section="Release"
    ),
}


@task
def prepare(*, params: dict | None = None, run_id: str | None = None):
    """Resolve and check the Params before any work."""
    from include.training import pipeline

    return pipeline.prepare(params, run_id)


@task
def list_documents(config: dict):
    """List the sources, and index the evaluation sets."""
    from include.training import pipeline

    return pipeline.list_documents(config)


@task(task_id="plan")
def make_plan(config: dict, listed: dict):
    """Parameters, tokens, FLOPs, memory, hours and dollars; refuses what cannot be, or costs too much."""
    from include.training import pipeline

    return pipeline.plan(config, listed)


@task(trigger_rule="none_failed")  # without a question, its task is skipped
def settle(config: dict, found: dict, answer: dict | None):
    """Go on only if the cost is approved."""
    from include.training import pipeline

    return pipeline.settle(config, found, answer)


@task
def shards(listed: dict, settled: dict) -> list[int]:
    """The numbers of the shards that mapped tasks curate and pack."""
    return listed["shards"]


@task
def curate(config: dict, listed: dict, shard: int):
    """Read one shard's documents, and leave out what is too short, foreign, poor or part of an evaluation set."""
    from include.training import pipeline

    return pipeline.curate(config, listed, shard)


@task
def deduplicate(config: dict, listed: dict):
    """Keep one of the same and of nearly the same documents, and hold some out."""
    from include.training import pipeline

    return pipeline.deduplicate(config, listed)


@task
def tokenizer(config: dict, listed: dict):
    """Train a byte-level BPE."""
    from include.training import pipeline

    return pipeline.make_tokenizer(config, listed)


@task
def pack(listed: dict, shard: int):
    """Turn one shard's documents into token ids."""
    from include.training import pipeline

    return pipeline.pack(listed, shard)


@task
def finish(config: dict, listed: dict):
    """Write the corpus' report and manifest: from now on it is whole."""
    from include.training import pipeline

    return pipeline.finish(config, listed)


@task(multiple_outputs=True)
def order(config: dict, packed: dict):
    """The specs of the jobs."""
    from include.training import pipeline

    return pipeline.order(config, packed)


@task
def gate(config: dict, evaluated: dict):
    """Refuse a model that does not surely beat what needs no training."""
    from include.training import pipeline

    return pipeline.gate(config, evaluated)


@task(pool="registry", outlets=[RELEASED_MODEL])
def publish(config: dict, packed: dict, jobs: list, judged: dict, *, ti=None, outlet_events=None):
    """Make the release, make it champion if it is the best one, and tell it."""
    from include.training import pipeline

    released = pipeline.release(config, packed, jobs, dag_id=ti.dag_id)
    outlet_events[RELEASED_MODEL].extra = released
    return released


@task(pool="registry")
def register(config: dict, released: dict):
    """Bring MLflow's view of the releases up to date."""
    from include.training import pipeline

    return pipeline.register(config)


@dag(
    schedule=None,
    catchup=False,
    max_active_runs=4,
    default_args=default_args(),
    params=PARAMS,
    tags=["provider"],
    doc_md=__doc__,
)
def pretraining():
    config = prepare()
    listed = list_documents(config)
    found = make_plan(config, listed)
    answer = ask_a_person(found, task_id="approve", unanswered="Reject")
    settled = settle(config, found, answer.output)

    @task_group(group_id="corpus")
    def build_corpus():
        numbers = shards(listed, settled)
        deduplicated = deduplicate(config, listed)
        vocabulary = tokenizer(config, listed)
        packed = pack.partial(listed=listed).expand(shard=numbers)
        curate.partial(config=config, listed=listed).expand(shard=numbers) >> deduplicated >> vocabulary >> packed
        whole = finish(config, listed)
        packed >> whole
        return whole

    @task_group(group_id="train")
    def train(packed):
        specs = order(config, packed)
        segments = []
        for number in range(1, SEGMENTS + 1):
            before = {"previous": segments[-1].output} if segments else {}
            name = f"segment_{number}"
            segments.append(JobOperator(task_id=name, spec=specs[name], channels=before, pool="jobs"))
        return segments, specs

    @task_group(group_id="release")
    def release(packed, segments, specs):
        last = {"model": segments[-1].output}
        evaluated = JobOperator(task_id="evaluate", spec=specs["evaluate"], channels=last, pool="jobs")
        judged = gate(config, evaluated.output)
        released = publish(config, packed, [job.output for job in (*segments, evaluated)], judged)
        register(config, released)

    packed = build_corpus()
    release(packed, *train(packed))


pretraining()
