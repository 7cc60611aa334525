"""The launcher's verbs, `python -m local VERB`; the Makefile has one of its own for each."""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from include.config import load_settings
from include.errors import UserError
from local.airflow import LocalAirflow, already_running, running_airflow
from local.client import Client
from local.home import PROJECT, USER, AirflowError, Home, Running, airflow_home
from local.processes import Ended, end_marked
from local.sync import SyncError, sync
from local.ui_mlflow import ui_mlflow
from local.watch import follow
from local.workflows import WORKFLOWS, Outcome

say = functools.partial(print, flush=True)

INGESTION = "rag_ingestion"
CORPORA = ("demo", "full")
END_TIMEOUT_S = 60.0


def up() -> int:
    """Run Airflow in the foreground until Ctrl-C or `make down`."""
    home = Home(airflow_home())
    if home.is_held():
        raise UserError(already_running(home))
    try:
        with LocalAirflow(say=say) as airflow:
            say(f"\n  {airflow.running.url}\n  user {USER}, password {airflow.home.password()}\n\nCtrl-C ends it.")
            while True:
                airflow.check_alive()
                time.sleep(1)
    except Ended:  # the orderly end of this verb
        say("airflow: ended, no process is left")
    return 0


def down() -> int:
    """End the Airflow that another launcher runs, or that a killed one left behind."""
    home = Home(airflow_home())
    running = home.read_running()
    if running is None:
        say(f"airflow: none runs on {home.path}")
        return 0
    if home.is_held():
        os.kill(running.launcher, signal.SIGTERM)
        deadline = time.monotonic() + END_TIMEOUT_S
        while home.is_held() and time.monotonic() < deadline:
            time.sleep(0.2)
    if home.read_running() is not None:  # its launcher was killed, or does not obey
        end_marked(running.mark)
        home.forget_running()
    say(f"airflow: ended the one at {running.url}")
    return 0


def dag(dag_id: str, conf: dict[str, Any]) -> int:
    """Run a DAG to its end on the running Airflow, or on one of its own, and print what came out; the exit status."""
    if not dag_id:
        raise UserError("DAG is not set: write for example make dag DAG=rag_ingestion")
    with running_airflow(say) as airflow:
        outcome = run_dag(*airflow, dag_id, conf)
    return tell(dag_id, outcome)


def run_dag(running: Running, check_alive: Callable[[], None], dag_id: str, conf: dict[str, Any]) -> Outcome:
    """Run a DAG to its end on an Airflow that runs."""
    started = time.monotonic()
    with Client.of(running, Home(airflow_home()).password()) as client:
        details = client.dag(dag_id)
        run_id = client.trigger(details, conf)
        say(f"{dag_id}: run {run_id}, {running.url}/dags/{dag_id}/runs/{quote(run_id)}")
        try:
            state = follow(client, dag_id, run_id, say=say, check_alive=check_alive)
        except Ended:
            if running.launcher == os.getpid():
                client.give_up(dag_id, run_id)  # else the next Airflow would take it up again
                say(f"{dag_id}: interrupted, the run is marked as failed")
            else:
                say(f"{dag_id}: the run goes on at {running.url}")
            raise
        succeeded, seconds = state == "success", time.monotonic() - started
        if workflow := WORKFLOWS.get(dag_id):
            return workflow.outcome(client, dag_id, run_id, succeeded=succeeded, seconds=seconds)
        return Outcome(succeeded=succeeded, seconds=seconds)


def tell(dag_id: str, outcome: Outcome) -> int:
    """Print what came out, of a workflow that has a way to; the exit status."""
    if workflow := WORKFLOWS.get(dag_id):
        workflow.show(outcome)
    return 0 if outcome.succeeded else 1


def demo(corpus: str) -> int:
    """Ingest the demo's documents, or all of them."""
    if corpus not in CORPORA:
        raise UserError(f"CORPUS={corpus} is not a corpus: write {' or '.join(CORPORA)}")
    return dag(INGESTION, {"corpus": "full"} if corpus == "full" else {})


def demo_all() -> int:
    """Run one workflow after the other with its defaults, all on one Airflow, up to the first that fails."""
    dag_ids = list(WORKFLOWS)
    with running_airflow(say) as airflow:
        for number, dag_id in enumerate(dag_ids, start=1):
            if status := tell(dag_id, run_dag(*airflow, dag_id, {})):
                rest = ", ".join(dag_ids[number:])
                say(f"demo-all: {dag_id} failed" + (f"; not run: {rest}" if rest else ""))
                return status
            say("")
    return 0


def ingest(folder: str, index: str) -> int:
    """Ingest a folder of the user's."""
    path = Path(folder).expanduser().absolute()
    if not folder or not path.is_dir():
        raise UserError(f"FROM={folder} is not a folder: name the folder that holds your documents")
    return dag(INGESTION, {"source": str(path), "index": index})


def sync_to_mwaa(environ: Mapping[str, str]) -> int:
    """Put the project into the bucket of an Amazon MWAA environment, or show what would change."""
    texts = {name: environ.get(name, "") for name in ("BUCKET", "PREFIX", "SETTINGS", "DRY_RUN")}
    return sync(
        texts["BUCKET"],
        prefix=texts["PREFIX"],
        settings=texts["SETTINGS"],
        dry_run=texts["DRY_RUN"] not in ("", "0"),
    )


def reset(home: Home, data: Path, confirmed: bool) -> int:
    """Delete Airflow's home and the project's data, once the user has said yes."""
    if home.is_held():
        raise UserError(already_running(home))
    # Not every folder that FMOPS_AIRFLOW_HOME can name is ours to delete.
    doomed = [path for path in (home.path, data) if path.exists()]
    if home.path in doomed and not home.is_made():
        raise UserError(f"{home.path} was not made by this launcher: FMOPS_AIRFLOW_HOME names the wrong folder")
    if not doomed:
        say("reset: nothing to delete")
        return 0
    names = " and ".join(map(str, doomed))
    if not confirmed:
        say(f"delete {names}? [y/N] ", end="")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            say("reset: nothing deleted (YES=1 answers the question)")
            return 1
    for path in doomed:
        shutil.rmtree(path)
    say(f"reset: deleted {names}")
    return 0


def parse_conf(text: str) -> dict[str, Any]:
    """A run's configuration from JSON; empty text is no configuration."""
    try:
        conf = json.loads(text or "{}")
    except ValueError as error:
        raise UserError(f"CONF={text} is not JSON: {error}") from None
    if not isinstance(conf, dict):
        raise UserError(f"CONF={text} is not a JSON object: write for example CONF='{{\"limit\": 3}}'")
    return conf


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m local", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("up", help="run Airflow until Ctrl-C")
    verbs.add_parser("down", help="end the Airflow that runs")
    verbs.add_parser("demo", help="ingest the demo's documents (CORPUS=full: all of them)")
    verbs.add_parser("demo-all", help="run one workflow after the other with its defaults")
    verb = verbs.add_parser("dag", help="run a DAG to its end")
    verb.add_argument("dag_id")
    verb.add_argument("--conf", default="", help="the run's Params as a JSON object")
    verb = verbs.add_parser("ingest", help="ingest a folder")
    verb.add_argument("--from", dest="folder", required=True)
    verb.add_argument("--index", default="my-docs")
    verbs.add_parser("sync", help="put the project into a bucket (BUCKET, PREFIX, SETTINGS, DRY_RUN) of Amazon MWAA")
    verbs.add_parser("ui-mlflow", help="show the released models in MLflow until Ctrl-C")
    verbs.add_parser("reset", help="delete Airflow's home and the data (YES=1: without asking)")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    if args.verb == "up":
        return up()
    if args.verb == "down":
        return down()
    if args.verb == "demo":
        return demo(os.environ.get("CORPUS") or "demo")
    if args.verb == "demo-all":
        return demo_all()
    if args.verb == "dag":
        return dag(args.dag_id, parse_conf(args.conf))
    if args.verb == "ingest":
        return ingest(args.folder, args.index or "my-docs")
    if args.verb == "sync":
        return sync_to_mwaa(os.environ)
    if args.verb == "ui-mlflow":
        return ui_mlflow(load_settings(), os.environ, say)
    return reset(Home(airflow_home()), PROJECT / "data", os.environ.get("YES") == "1")


def main() -> int:
    """Entry point; errors that a user can meet are one line."""
    try:
        return run(arguments())
    except (UserError, AirflowError, SyncError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    except Ended as ended:
        return ended.status
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
