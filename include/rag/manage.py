"""Look after the versions of an index: list them, go back to an earlier one, remove those that nobody needs.

    python -m include.rag.manage show --index docs
    python -m include.rag.manage roll-back --index docs [--version 2]
    python -m include.rag.manage clean-up --index docs [--keep 2]
    python -m include.rag.manage adopt --index docs --store opensearch --place their-index --embedder minilm

On a machine that reaches the storage and the store; inside Airflow the DAG rag_index_versions does the first three.
"""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from include.config import Settings, load_settings
from include.errors import BusyError, EmbeddingError, UserError
from include.models import embeddings
from include.names import checked
from include.rag import stores
from include.rag.adopt import adopt, read_fields
from include.rag.go_live import clean_up, roll_back
from include.rag.versions import Versions, shown

ACTIONS = ("show", "roll-back", "clean-up", "adopt")


def manage(params: Mapping[str, Any], by: str) -> list[str]:
    """Do one of ACTIONS to the index that the Params name; what there is to tell, the versions last."""
    settings = load_settings()
    tenant = checked("tenant", params.get("tenant") or settings.tenant)
    versions = Versions(settings.root, tenant, checked("index", params["index"]))
    if params["action"] == "adopt":
        return [_adopt(versions, params, by, settings), *shown(versions)]
    if not versions.all():
        raise UserError(f"{versions} is not there: run the DAG rag_ingestion")
    told: list[str] = []
    if params["action"] == "roll-back":
        moved = roll_back(versions, params.get("version"), by=by)
        told = [f"{moved['to']} is live again instead of {moved['from']}"]
    elif params["action"] == "clean-up":
        removed = clean_up(versions, params["keep"])
        told = [f"removed: {', '.join(removed) or 'nothing'}"]
    return [*told, *shown(versions)]


def _adopt(versions: Versions, params: Mapping[str, Any], by: str, settings: Settings) -> str:
    version = adopt(
        versions,
        store=params.get("store") or stores.default_store(settings),
        place=params.get("place") or "",
        embedder=params.get("embedder") or embeddings.default_embedder(settings),
        fields=read_fields(params.get("fields") or ""),
        source=params.get("source") or None,
        by=by,
    )
    assert version.adopted is not None
    return f"{version.name} is {version.adopted.place}, {version.adopted.rows:,} rows; it is read only"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was done; 0, or 2 with one line if it cannot be."""
    parser = argparse.ArgumentParser(prog="python -m include.rag.manage")
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("--index", default="docs")
    parser.add_argument("--tenant")
    parser.add_argument("--version", type=int, help="of roll-back: where to; without it, the version before")
    parser.add_argument("--keep", type=int, default=2, help="of clean-up: how many stay, the live one included")
    parser.add_argument("--place", help="of adopt: an index of OpenSearch, or a LanceDB folder's URI and #TABLE")
    parser.add_argument("--store", help="of adopt: opensearch or lancedb")
    parser.add_argument("--embedder", help="of adopt: the model that its vectors are of")
    parser.add_argument("--source", help="of adopt: the folder that its paths belong to")
    parser.add_argument("--fields", help="of adopt: its fields as NAME=FIELD, where they are not LangChain's")
    try:
        told = manage(vars(parser.parse_args(arguments)), by=getpass.getuser())
    except (UserError, BusyError, EmbeddingError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write("\n".join(told) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
