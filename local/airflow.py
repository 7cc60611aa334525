"""Start one Airflow on this machine, wait until it is healthy, and end all of it whatever happens.

Its four components are started one by one, not by `airflow standalone`: that one listens on all interfaces for task
logs (ports 8793, 8794) and obeys SIGINT alone.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

import httpx

from local.client import Client
from local.home import PROJECT, AirflowError, Home, Running, airflow_home, airflow_port, usable_port
from local.options import environment
from local.processes import end_marked, ending_on_signals, signals_held_off

COMPONENTS = {
    "api-server": ["api-server"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}
START_TIMEOUT_S = 240.0
"""A cold start takes 20-50 s on two cores; a machine that is busy besides gets several times that."""

_HEALTH = ("metadatabase", "scheduler", "dag_processor", "triggerer")


class LocalAirflow:
    """A context manager: an Airflow with SQLite and few slots that lives as long as its `with` block.

    `home`, `dags`, `plugins` and `port` default to the project's (port 0 takes any free one); `options` are further
    environment variables; `say` gets lines of progress. Raises UserError where the user can help it, AirflowError
    where Airflow does not start.
    """

    def __init__(
        self,
        *,
        home: Path | None = None,
        dags: Path = PROJECT / "dags",
        plugins: Path = PROJECT / "plugins",
        port: int | None = None,
        options: Mapping[str, str] | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.home = Home(home or airflow_home())
        self.dags, self.plugins = dags, plugins
        self.port = airflow_port() if port is None else port
        self.options = dict(options or {})
        self.say = say
        self._components: dict[str, subprocess.Popen[bytes]] = {}
        self._put_away = ExitStack()

    def client(self) -> Client:
        """A client that is logged in here; close it, or use it in a `with` block."""
        return Client.of(self.running, self.home.password())

    def __enter__(self) -> LocalAirflow:
        with ExitStack() as stack:
            self.home.prepare()
            if not self.home.hold():
                raise AirflowError(already_running(self.home))
            stack.callback(self.home.release)
            self.end_leftovers()
            self.running = self._describe(usable_port(self.port))
            stack.enter_context(ending_on_signals())
            stack.callback(self._stop)
            self._start()
            self._put_away = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._put_away.__exit__(kind, error, trace)

    def _describe(self, port: int) -> Running:
        return Running(
            url=f"http://127.0.0.1:{port}",
            mark=uuid.uuid4().hex,
            launcher=os.getpid(),
            started_at=datetime.now(UTC).isoformat(),
            healthy=False,
        )

    def end_leftovers(self) -> None:
        """End what a launcher that was itself killed left running here."""
        left = self.home.read_running()
        if left:
            self.say("airflow: ending what an earlier launcher left running")
            _end(left.mark)
            self.home.forget_running()

    def check_alive(self) -> None:
        """AirflowError with the log's last lines if a component has ended by itself."""
        for name, process in self._components.items():
            if process.poll() is not None:
                raise AirflowError(f"airflow {name} ended with status {process.returncode}{self._log_end(name)}")

    def _start(self) -> None:
        started = time.monotonic()
        self.home.password()
        self._environment = environment(
            self.home, self.running, dags=self.dags, plugins=self.plugins, options=self.options
        )
        self.home.write_running(self.running)
        self._migrate()
        for name in COMPONENTS:
            self._components[name] = self._spawn(name, COMPONENTS[name])
        self._wait_until_healthy(started)
        self.running = replace(self.running, healthy=True)
        self.home.write_running(self.running)

    def _spawn(self, name: str, arguments: list[str]) -> subprocess.Popen[bytes]:
        log = self._log(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            return subprocess.Popen(
                # Not `python -m airflow`: that would put the working directory on the path, which MWAA does not do.
                [str(Path(sys.executable).with_name("airflow")), *arguments],
                env=self._environment,
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # the terminal's Ctrl-C is the launcher's to pass on
            )

    def _migrate(self) -> None:
        """Make the database, or bring it up to this Airflow's version; skipped where that was done before."""
        done = database_mark(self.home.path)
        if done.exists() and (self.home.path / "airflow.db").exists():
            return
        self.say("airflow: making its database")
        if self._spawn("database", ["db", "migrate"]).wait():
            raise AirflowError(f"airflow db migrate failed{self._log_end('database')}")
        done.touch()

    def _wait_until_healthy(self, started: float) -> None:
        said = ""
        while True:
            self.check_alive()
            waiting = unhealthy(self.running.url)
            waited = time.monotonic() - started
            if not waiting:
                self.say(f"airflow: healthy after {waited:.0f} s")
                return
            if waited > START_TIMEOUT_S:
                name = waiting[0].replace("_", "-")
                raise AirflowError(f"{name} was not healthy after {waited:.0f} s{self._log_end(name)}")
            if (line := f"waiting for {', '.join(waiting)}") != said:
                self.say(f"airflow: {line} ({waited:.0f} s)")
                said = line
            time.sleep(0.5)

    def _stop(self) -> None:
        with signals_held_off():
            _end(self.running.mark)
            for process in self._components.values():
                process.wait()
            self.home.forget_running()

    def _log(self, name: str) -> Path:
        return self.home.path / "logs" / "launcher" / f"{name}.log"

    def _log_end(self, name: str, num_lines: int = 15) -> str:
        log = self._log(name)
        lines = log.read_text(errors="replace").splitlines()[-num_lines:] if log.exists() else []
        return "; ".join(["", f"its log {log} ends:"]) + "".join(f"\n  {line}" for line in lines)


def database_mark(home: Path) -> Path:
    """What says that the database of a home is of this Airflow's version."""
    return home / f"database-{importlib.metadata.version('apache-airflow-core')}"


def _end(mark: str) -> None:
    left = end_marked(mark)
    if left:
        raise AirflowError(f"these processes do not end, even by SIGKILL: {sorted(p.pid for p in left)}")


def unhealthy(url: str) -> list[str]:
    """The parts of an Airflow that do not say that they are healthy."""
    try:
        health = httpx.get(f"{url}/api/v2/monitor/health", timeout=5, trust_env=False).json()
    except (httpx.HTTPError, ValueError):
        return ["api_server"]
    return [part for part in _HEALTH if (health.get(part) or {}).get("status") != "healthy"]


def already_running(home: Home) -> str:
    """One line about the Airflow that holds a home."""
    running = home.read_running()
    where = f"{running.url} (process {running.launcher})" if running else "a launcher that has just begun"
    return f"an Airflow already runs on {home.path}: {where}; end it with `make down`, or set FMOPS_AIRFLOW_HOME"


@contextmanager
def running_airflow(say: Callable[[str], None] = print) -> Iterator[tuple[Running, Callable[[], None]]]:
    """The project's Airflow: the one that runs already (it goes on afterwards), or one for this block alone.

    The second value raises AirflowError when called after that Airflow has ended.
    """
    home = Home(airflow_home())
    if home.is_held():
        with ending_on_signals():
            running = wait_for_other(home)
            say(f"airflow: using the one that runs at {running.url}")
            yield running, functools.partial(check_held, home)
        return
    with LocalAirflow(say=say) as airflow:
        yield airflow.running, airflow.check_alive


def wait_for_other(home: Home) -> Running:
    """What another launcher runs on this home, once it is healthy; AirflowError if it gives up meanwhile."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        check_held(home)
        running = home.read_running()
        if running and running.healthy:
            return running
        time.sleep(0.5)
    raise AirflowError(f"the Airflow on {home.path} did not become healthy: try `make down`")


def check_held(home: Home) -> None:
    """AirflowError if no launcher holds this home."""
    if not home.is_held():
        raise AirflowError(f"the Airflow on {home.path} has ended")
