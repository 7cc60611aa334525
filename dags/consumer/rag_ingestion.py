"""
# RAG ingestion

Turns a folder or a bucket of documents into an index that answers questions: reads, chunks and embeds what is new or
changed since the last run, removes what is gone, and tells whoever waits for the index that it is ready.

```
 source                embed                  index
 prepare -> plan  ->   shard [0..n]     ->    commit -> check -> publish -> remember
 resolve    list and   read, chunk,           store,    store    asset      that it
 Params     compare    embed; one Parquet     then      against  event      was told
            digests    part per 16 documents  ledger    ledger   `rag_index`
```

**Inputs.** Text, Markdown, HTML and JSON lines below `source`; with no source, the documentation inside the installed
Airflow packages. **Outputs**, below `<storage root>/<tenant>/rag/<index>/`: the vector store, the ledger of its
documents, a manifest for each run (`runs/<run>/manifest.json`, written last), and `quarantine.jsonl` beside it with the
documents that could not be read and why.

**Cost.** With the defaults nothing but this machine's time: about 35 chunks a second on two cores. A run without
changes embeds nothing and leaves the index untouched. Every embedding is metered under `<tenant>/usage/`.

**Run it.** Trigger it with its defaults, or `make demo`; your own folder: `make ingest FROM=folder`; then
`make ask Q="..."`. Any task may be cleared and run again with the same result. Runs are serialised: an index has one
writer.
"""

from __future__ import annotations

from airflow.sdk import Asset, Param, dag, task, task_group
from airflow.sdk.exceptions import AirflowSkipException

from include.dag_defaults import default_args
from include.names import NAME

RAG_INDEX = Asset("rag_index")

# Together they stay below the 4 KB that tasks hand on.
PATTERNS = {"type": "array", "maxItems": 12, "items": {"type": "string", "maxLength": 100}}

PARAMS = {
    "source": Param(
        None,
        type=["null", "string"],
        title="Source",
        description="Folder or prefix to read: a path, file:///... or s3://bucket/prefix. "
        "Empty: the documentation inside the installed Airflow packages.",
        examples=["/data/handbook", "s3://my-bucket/handbook"],
        section="What to read",
    ),
    "corpus": Param(
        "demo",
        enum=["demo", "full"],
        title="Demo corpus",
        description="How much of Airflow's documentation, where no source is given: about 90 seconds of embedding "
        "on two cores, or all of it.",
        section="What to read",
    ),
    "include": Param(
        [],
        **PATTERNS,
        description="Shell patterns on the path below the source, such as guides/*.md (* crosses folders). "
        "Empty: every file of a kind that can be read. What a pattern no longer takes in leaves the index.",
        section="What to read",
    ),
    "exclude": Param(
        [],
        **PATTERNS,
        description="Shell patterns of paths to leave out; they win over include.",
        section="What to read",
    ),
    "index": Param(
        "docs", type="string", pattern=NAME, description="Name of the index to bring up to date.", section="Index"
    ),
    "tenant": Param(
        None,
        type=["null", "string"],
        pattern=NAME,
        description="Whose index it is. Empty: the setting FMOPS_TENANT.",
        section="Index",
    ),
    "use_case": Param(
        None,
        type=["null", "string"],
        pattern=NAME,
        description="What it is for; usage is reported by it. Empty: the setting FMOPS_USE_CASE.",
        section="Index",
    ),
    "embedder": Param(
        None,
        type=["null", "string"],
        description="Embedding model; an index keeps to one. Empty: the target's own.",
        examples=["minilm", "hashing"],
        section="How",
    ),
    "store": Param(
        None,
        type=["null", "string"],
        description="Vector store. Empty: the target's own.",
        examples=["lancedb"],
        section="How",
    ),
    "chunk_tokens": Param(
        200,
        type="integer",
        minimum=16,
        description="Longest chunk in the embedder's tokens, its title and headings included.",
        section="How",
    ),
    "overlap_tokens": Param(
        30,
        type="integer",
        minimum=0,
        description="Tokens that neighbouring chunks share; less than chunk_tokens.",
        section="How",
    ),
    "documents_per_shard": Param(
        50, type="integer", minimum=1, description="Documents of one mapped task.", section="How"
    ),
}


@task
def prepare(*, params: dict | None = None, run_id: str | None = None):
    """Resolve and check the Params before any work; build the demo's documents if they are the source."""
    from include.rag import pipeline

    return pipeline.prepare(params, run_id)


@task
def plan(config: dict) -> list[str]:
    """Compare the source with the ledger; the names of the shards to embed."""
    from include.rag import pipeline

    return pipeline.plan(config)


@task(task_id="shard", map_index_template="{{ task.op_kwargs['shard'] }}")
def embed(config: dict, shard: str, *, ti=None):
    """Read, chunk and embed one shard's documents; finished parts are found again."""
    from include.rag import pipeline

    return pipeline.embed(config, shard, task_id=f"{ti.task_id}[{ti.map_index}]", dag_id=ti.dag_id)


@task(trigger_rule="none_failed")  # a run without anything to embed skips the shards
def commit(config: dict):
    """Write the store, then the ledger."""
    from include.rag import pipeline

    return pipeline.commit(config)


@task
def check(config: dict):
    """Compare store and ledger, then write the run's manifest."""
    from include.rag import pipeline

    return pipeline.check(config)


@task(outlets=[RAG_INDEX])
def publish(config: dict, *, outlet_events=None):
    """Tell that the index is ready, unless this version of it was told before."""
    from include.rag import pipeline

    news = pipeline.publish(config)
    if news is None:
        raise AirflowSkipException("nothing changed, so there is nothing to tell")
    outlet_events[RAG_INDEX].extra = news
    return news


@task
def remember(config: dict, told: dict) -> None:
    """Note what was told, now that it was: a run that dies in between tells it again rather than never."""
    from include.rag import pipeline

    pipeline.remember(config, told)


@dag(
    schedule=None,
    catchup=False,
    max_active_runs=1,  # an index has one writer
    default_args=default_args(),
    params=PARAMS,
    tags=["consumer", "rag"],
    doc_md=__doc__,
)
def rag_ingestion():
    @task_group(group_id="source")
    def read_source():
        config = prepare()
        return config, plan(config)

    @task_group(group_id="embed")
    def embed_shards(config, shards):
        return embed.partial(config=config).expand(shard=shards)

    @task_group(group_id="index")
    def write_index(config):
        committed = commit(config)
        told = publish(config)
        committed >> check(config) >> told
        remember(config, told)
        return committed

    config, shards = read_source()
    embed_shards(config, shards) >> write_index(config)


rag_ingestion()
