"""Look after the versions of an index: list them, go back to an earlier one, remove those that nobody needs.

    python -m include.rag.manage show --index docs
    python -m include.rag.manage roll-back --index docs [--version 2]
    python -m include.rag.manage clean-up --index docs [--keep 2]

On a machine that reaches the storage and the store; inside Airflow the DAG rag_index_versions does the same.
"""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from include.config import load_settings
from include.errors import UserError
from include.names import checked
from include.rag.go_live import clean_up, roll_back
from include.rag.versions import Versions, shown

ACTIONS = ("show", "roll-back", "clean-up")


def manage(params: Mapping[str, Any], by: str) -> list[str]:
    """Do one of ACTIONS to the index that the Params name; what there is to tell, the versions last."""
    settings = load_settings()
    tenant = checked("tenant", params.get("tenant") or settings.tenant)
    versions = Versions(settings.root, tenant, checked("index", params["index"]))
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was done; 0, or 2 with one line if it cannot be."""
    parser = argparse.ArgumentParser(prog="python -m include.rag.manage")
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("--index", default="docs")
    parser.add_argument("--tenant")
    parser.add_argument("--version", type=int, help="of roll-back: where to; without it, the version before")
    parser.add_argument("--keep", type=int, default=2, help="of clean-up: how many stay, the live one included")
    try:
        told = manage(vars(parser.parse_args(arguments)), by=getpass.getuser())
    except (UserError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write("\n".join(told) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
