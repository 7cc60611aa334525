"""
# RAG ingestion

Turns a folder or a bucket of documents into an index that answers questions: reads, chunks and embeds what is new or
changed since the last run, removes what is gone, measures how well the index finds things, and tells whoever waits for
it that it is ready.

```
 source                embed                  index              quality               live
 prepare -> plan  ->   shard [0..n], job ->   commit -> check -> evaluate -> gate  ->  switch -> publish -> remember
 resolve    list and   read, chunk,           store,    store    questions   refuse    readers   asset      that it
 Params     compare    embed; one Parquet     then      against  with known  a bad     get this  event      was told
            stamps     part per 16 documents  ledger    ledger   answers     version   version
                                                                                              -> clean_up
                                                                                                 old versions
```

A run with the live version's embedder, chunker and store brings that version up to date. With another one of these it
builds the next version beside it, which nobody reads until it has been compared with the live one and let pass.

**Inputs.** Text, Markdown, HTML, PDF, DOCX, PPTX, XLSX, CSV, mail, JSON, JSON lines and Parquet below `source`; with no
source, the documentation inside the installed Airflow packages and a few samples. **Outputs**, below
`<storage root>/<tenant>/rag/<index>/`: the vector store, the ledger of its documents, and for each run, in
`runs/<run>/`, `manifest.json` (where it exists, the index is whole), `quarantine.jsonl` (what could not be read, and
why) and `retrieval.html` (how good retrieval is; linked from the task `quality.evaluate`).

**Cost.** With the defaults nothing but this machine's time: about 35 chunks a second on two cores. A run without
changes opens no document that has rested, embeds nothing and leaves the index untouched. Another embedder embeds
everything anew. With `embed_on` = `job` on SageMaker, its instances for as long as they run. Every embedding is metered
under `<tenant>/usage/`.

**Run it.** Trigger it with its defaults, or `make demo`; your own folder: `make ingest FROM=folder`; then
`make ask Q="..."`. Back to the version before: `make rollback`, or the DAG `rag_index_versions`. Any task may be
cleared and run again with the same result. Runs are serialised: an index has one writer.
"""

from __future__ import annotations

from airflow.sdk import Asset, Param, dag, task, task_group
from airflow.sdk.exceptions import AirflowSkipException

from include.approval import ask_a_person
from include.dag_defaults import default_args
from include.jobs.operator import JobOperator
from include.names import NAME

RAG_INDEX = Asset("rag_index")

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
        description="Embedding model; a change builds the next version. Empty: the target's own.",
        examples=["minilm", "hashing", "titan-v2", "cohere-multilingual-v3", "openai"],
        section="How",
    ),
    "store": Param(
        None,
        type=["null", "string"],
        description="Vector store. Empty: the target's own.",
        examples=["lancedb", "opensearch"],
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
    "embed_on": Param(
        "tasks",
        enum=["tasks", "job"],
        title="Embed on",
        description="tasks: mapped tasks. job: one processing job, for more than the workers can take; on target aws "
        "it runs on SageMaker.",
        section="Where to embed",
    ),
    "instance_type": Param(
        None,
        type=["null", "string"],
        description="Of a job on SageMaker, such as ml.c5.4xlarge. Empty: the catalog's default.",
        section="Where to embed",
    ),
    "job_instances": Param(
        1, type="integer", minimum=1, maximum=100, description="They share the shards.", section="Where to embed"
    ),
    "job_hours": Param(
        12, type="number", exclusiveMinimum=0, maximum=120, description="Ends the job.", section="Where to embed"
    ),
    "tolerate": Param(
        "bad_data",
        enum=["none", "bad_data", "all"],
        title="Tolerate",
        description="What may be set aside without failing the run. none: nothing. bad_data: documents and records "
        "that cannot be read. all: also what storage or the embedding model fail on.",
        section="Bad documents",
    ),
    "replay_quarantine": Param(
        False,
        type="boolean",
        title="Replay the quarantine",
        description="Try again what was set aside and has not changed since.",
        section="Bad documents",
    ),
    "max_deleted_percent": Param(
        10,
        type="number",
        minimum=0,
        maximum=100,
        description="Ask a person before more than this share of the source's documents leaves the index. Fewer than "
        "5 documents are never asked about.",
        section="Deletions",
    ),
    "on_many_deletions": Param(
        "ask",
        enum=["ask", "keep", "delete"],
        title="On many deletions",
        description="What to do above that share. ask: a person decides, under Required Actions. keep: delete nothing; "
        "the documents can still be found. delete: delete them unasked.",
        section="Deletions",
    ),
    "answer_hours": Param(
        24,
        type="number",
        exclusiveMinimum=0,
        maximum=720,
        description="How long to wait for that answer; without one, nothing is deleted. Other runs wait meanwhile.",
        section="Deletions",
    ),
    "golden": Param(
        None,
        type=["null", "string"],
        title="Golden questions",
        description='Your own questions: a JSON lines file, one {"question": "...", "relevant": ["path", ...]} a line. '
        "Empty: made from the source.",
        examples=["/data/handbook-questions.jsonl", "s3://my-bucket/questions.jsonl"],
        section="Quality",
    ),
    "min_recall_at_5": Param(
        0.5,
        type="number",
        minimum=0,
        maximum=1,
        description="Refuse the index if recall@5 surely lies below; 0 switches it off.",
        section="Quality",
    ),
    "min_mrr": Param(
        0.4,
        type="number",
        minimum=0,
        maximum=1,
        description="Refuse the index if the mean reciprocal rank surely lies below; 0 switches it off.",
        section="Quality",
    ),
    "max_drop": Param(
        0.02,
        type="number",
        minimum=0,
        maximum=1,
        description="Refuse a next version that is surely worse than the live one by more than this (recall@5, MRR).",
        section="Quality",
    ),
    "rebuild": Param(
        False, type="boolean", description="Build the next version though nothing changed.", section="Versions"
    ),
    "keep_versions": Param(
        2,
        type="integer",
        minimum=1,
        description="Versions that stay, the live one included; the others are what a roll back can go to.",
        section="Versions",
    ),
}


@task
def prepare(*, params: dict | None = None, run_id: str | None = None):
    """Resolve and check the Params before any work; build the demo's documents if they are the source."""
    from include.rag import pipeline

    return pipeline.prepare(params, run_id)


@task
def plan(config: dict) -> list[str]:
    """Compare the source with the ledger; the names of the shards that mapped tasks embed."""
    from include.rag import pipeline

    return pipeline.plan(config)


@task
def guard(config: dict):
    """Ask a person first if much would leave the index."""
    from include.rag import pipeline

    return pipeline.guard(config)


@task(trigger_rule="none_failed")  # without a question, its task is skipped
def settle(config: dict, found: dict, answer: dict | None):
    """Decide by the answer what is deleted; without one, nothing."""
    from include.rag import pipeline

    return pipeline.settle(config, found, answer)


@task(task_id="shard", map_index_template="{{ task.op_kwargs['shard'] }}")
def embed(config: dict, shard: str, *, ti=None):
    """Read, chunk and embed one shard's documents; finished parts are found again."""
    from include.rag import pipeline

    return pipeline.embed(config, shard, task_id=f"{ti.task_id}[{ti.map_index}]", dag_id=ti.dag_id)


@task
def hand_over(config: dict, *, params: dict | None = None, ti=None):
    """Hand the shards over to a processing job, if one is to embed them."""
    from include.rag import pipeline

    spec = pipeline.hand_over(config, params, dag_id=ti.dag_id, task_id="embed.job")
    if spec is None:
        raise AirflowSkipException("mapped tasks embed, or there is nothing to embed")
    return spec


@task(trigger_rule="none_failed")  # either the shards or the job are skipped, or both
def commit(config: dict):
    """Write the store, then the ledger."""
    from include.rag import pipeline

    return pipeline.commit(config)


@task
def check(config: dict):
    """Compare store and ledger, then write the run's manifest."""
    from include.rag import pipeline

    return pipeline.check(config)


@task
def evaluate(config: dict, *, ti=None):
    """Ask the index questions whose answers are known; write the report beside the manifest."""
    from include.rag import pipeline

    return pipeline.evaluate(config, dag_id=ti.dag_id, task_id=ti.task_id)


@task
def gate(evaluated: dict) -> str:
    """Refuse an index that surely finds less than it must."""
    from include.rag import pipeline

    return pipeline.gate(evaluated)


@task
def switch(config: dict):
    """Let readers have the version that the gate let pass."""
    from include.rag import pipeline

    return pipeline.switch(config)


@task(outlets=[RAG_INDEX])
def publish(config: dict, *, outlet_events=None):
    """Tell that the index is ready, unless it is not live or was told before."""
    from include.rag import pipeline

    news = pipeline.publish(config)
    if news is None:
        raise AirflowSkipException("nothing that is live changed, so there is nothing to tell")
    outlet_events[RAG_INDEX].extra = news
    return news


@task
def remember(config: dict, told: dict) -> None:
    """Note what was told, now that it was: a run that dies in between tells it again rather than never."""
    from include.rag import pipeline

    pipeline.remember(config, told)


@task
def clean_up(config: dict) -> list[str]:
    """Remove old versions; their names."""
    from include.rag import pipeline

    return pipeline.clean_up(config)


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
        shards = plan(config)
        found = guard(config)
        shards >> found
        answer = ask_a_person(found, task_id="approve", unanswered="Keep them")
        return config, shards, settle(config, found, answer.output)

    @task_group(group_id="embed")
    def embed_shards(config, shards):
        embed.partial(config=config).expand(shard=shards)
        spec = hand_over(config)
        shards >> spec
        JobOperator(task_id="job", spec=spec, pool="jobs")

    @task_group(group_id="index")
    def write_index(config):
        commit(config) >> check(config)

    @task_group(group_id="quality")
    def judge(config):
        gate(evaluate(config))

    @task_group(group_id="live")
    def go_live(config):
        told = publish(config)
        switch(config) >> [told, clean_up(config)]
        remember(config, told)

    config, shards, settled = read_source()
    [embed_shards(config, shards), settled] >> write_index(config) >> judge(config) >> go_live(config)


rag_ingestion()
