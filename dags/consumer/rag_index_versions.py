"""
# RAG index versions

Looks after the versions of an index that `rag_ingestion` built: shows them, lets readers have an earlier one again, or
removes those that nobody needs.

```
 look_after -> tell
 show, roll     that another
 back, clean    version is
 up             live
```

**Inputs.** The name of an index, and what to do. **Outputs.** The list of versions in the task's log and result; after
a roll back an event of the asset `rag_index`, for those who listen. **Cost.** None: nothing is read or embedded; a roll
back moves one pointer, and on OpenSearch one alias.

**Run it.** Trigger it with `action` = `roll-back`; or, without Airflow, `make rollback INDEX=docs`. A version that was
rolled back does not go live again by itself: a run of `rag_ingestion` with the same pipeline says so, and how to go on.
"""

from __future__ import annotations

from airflow.sdk import Asset, Param, dag, task
from airflow.sdk.exceptions import AirflowSkipException

from include.dag_defaults import default_args
from include.names import NAME

RAG_INDEX = Asset("rag_index")

PARAMS = {
    "action": Param(
        "show",
        enum=["show", "roll-back", "clean-up"],
        description="What to do. roll-back: let readers have an earlier version; clean-up: remove what lies before it.",
    ),
    "index": Param("docs", type="string", pattern=NAME, description="Name of the index."),
    "tenant": Param(
        None, type=["null", "string"], pattern=NAME, description="Whose index it is. Empty: the setting FMOPS_TENANT."
    ),
    "version": Param(
        None,
        type=["null", "integer"],
        minimum=0,
        description="Of roll-back: the version to go to. Empty: the one before the live one.",
    ),
    "keep": Param(
        2, type="integer", minimum=1, description="Of clean-up: how many versions stay, the live one included."
    ),
}


@task
def look_after(*, params: dict | None = None, run_id: str | None = None) -> list[str]:
    """Do what was asked; a line for each version."""
    import logging

    from include.rag.manage import manage

    told = manage(params, by=run_id)
    logging.getLogger(__name__).info("\n".join(told))
    return told


@task(outlets=[RAG_INDEX])
def tell(told: list[str], *, params: dict | None = None, outlet_events=None) -> None:
    """Tell those who listen that another version is live."""
    if params["action"] != "roll-back":
        raise AirflowSkipException("no other version went live")
    outlet_events[RAG_INDEX].extra = {"index": params["index"], "tenant": params["tenant"], "news": told[0]}


@dag(
    schedule=None,
    catchup=False,
    max_active_runs=1,
    default_args=default_args(),
    params=PARAMS,
    tags=["consumer", "rag"],
    doc_md=__doc__,
)
def rag_index_versions():
    tell(look_after())


rag_index_versions()
