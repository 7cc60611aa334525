"""Show the released models in MLflow's own pages, on this machine alone, until Ctrl-C."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from include.config import Settings
from include.errors import UserError
from include.models.registry_mlflow import SQLITE, quiet, sync_mlflow, tracking_uri
from local.home import PROJECT, AirflowError, chosen_port, usable_port
from local.processes import MARK, Ended, end_marked, ending_on_signals, signals_held_off

PORT_VARIABLE, PORT = "FMOPS_MLFLOW_PORT", 5000
START_TIMEOUT_S = 180.0
"""It takes 10 s on two cores; a machine that is busy besides gets many times that."""


def ui_mlflow(settings: Settings, environ: Mapping[str, str], say: Callable[[str], None]) -> int:
    """Bring the view up to date and serve it; of a server that runs elsewhere only say where it is.

    UserError if the settings have no view, or the port is taken; AirflowError if MLflow does not start.
    """
    uri = tracking_uri(settings)
    if uri is None:
        raise UserError(
            f"no MLflow is set for {settings.root}: set FMOPS_MLFLOW_TRACKING_URI to a server's URL, or to the ARN of "
            "one that SageMaker manages"
        )
    if not uri.startswith(SQLITE):
        say(_elsewhere(uri))
        return 0
    port = usable_port(chosen_port(PORT_VARIABLE, PORT, environ), PORT_VARIABLE)
    try:
        with ending_on_signals():
            synced = sync_mlflow(settings.root, settings.tenant, uri)
            say(f"mlflow: {synced.models} models, {synced.versions} versions of tenant {settings.tenant}, in {uri}")
            with _serving(uri, port) as check_alive:
                say(f"\n  http://127.0.0.1:{port}/#/models\n\nCtrl-C ends it.")
                while True:
                    check_alive()
                    time.sleep(1)
    except Ended:  # the orderly end of this verb
        say("mlflow: ended, no process is left")
    return 0


def _elsewhere(uri: str) -> str:
    if not uri.startswith("arn:"):
        return f"mlflow: the models are shown at {uri}"
    region, kind, name = uri.split(":")[3], *uri.split(":")[5].split("/")[:2]
    if kind != "mlflow-tracking-server":
        return f"mlflow: the models are shown by {uri}; open it from SageMaker Studio"
    return (
        f"mlflow: the models are shown by {uri}; this prints a URL that is good for five minutes:\n  "
        f"aws sagemaker create-presigned-mlflow-tracking-server-url --region {region} --tracking-server-name {name}"
    )


@contextmanager
def _serving(uri: str, port: int) -> Iterator[Callable[[], None]]:
    """MLflow's server as long as the block runs; gives what raises AirflowError once the server has ended by itself."""
    quiet()
    mark, folder = uuid.uuid4().hex, Path(uri.removeprefix(SQLITE)).parent
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", uri]
    command += ["--artifacts-destination", str(folder / "mlflow-artifacts")]
    # Job runners and a gateway to language models: nobody here uses them.
    off = dict.fromkeys(("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "MLFLOW_ENABLE_AI_GATEWAY"), "false")
    environment = {**os.environ, MARK: mark, **off}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # the terminal's Ctrl-C is ours to pass on
        )

        def check_alive() -> None:
            if process.poll() is not None:
                log.seek(0)
                last = "\n  ".join(log.read().splitlines()[-15:])
                raise AirflowError(f"mlflow ended with status {process.returncode}; its last words:\n  {last}")

        try:
            _wait(f"http://127.0.0.1:{port}/health", check_alive)
            yield check_alive
        finally:
            with signals_held_off():
                left = end_marked(mark)
                process.wait()
            if left:
                raise AirflowError(f"these processes do not end, even by SIGKILL: {sorted(one.pid for one in left)}")


def _wait(url: str, check_alive: Callable[[], None]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        check_alive()
        try:
            if httpx.get(url, timeout=5, trust_env=False).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.3)
    raise AirflowError(f"mlflow did not answer at {url} within {START_TIMEOUT_S:.0f} s")
