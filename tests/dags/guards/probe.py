"""Parses DAG files, each in a process of its own, and prints what each parse did and cost, as JSON.

One interpreter imports Airflow once and forks for every file, as Airflow's own DAG processor does. So a child starts
with exactly the modules that Airflow itself loads, and its CPU clock at zero. Run by parse.py as `python -I probe.py`
with a JSON object on stdin: files, path (for imports), own (folders whose code is ours), banned (module names).
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import signal
import sys
import time
import traceback
from importlib.abc import MetaPathFinder

LIMIT_S = 30

# Refused whoever does it.
REMOTE = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "sqlite3.connect"}
# Ours only where no import lies between: importing a library opens files, and Airflow's own croniter runs `file`.
PROCESSES = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"}
FILES = {"open", "os.listdir", "os.scandir", "os.mkdir", "os.remove", "os.rename"}


class Watch:
    """Writes down what a parse does that it should not; what reaches out of the process is refused as well."""

    def __init__(self, own: list[str]) -> None:
        self.own = tuple(own)
        self.found: list[str] = []
        self.on = False

    def caller(self, through_imports: bool) -> str | None:
        """The nearest line of ours that led here; None if there is none, or an import lies between."""
        frame = sys._getframe(2)
        while frame is not None:
            name = frame.f_code.co_filename
            if name.startswith(self.own):
                return f"{os.path.relpath(name, os.path.commonpath(self.own))}:{frame.f_lineno}"
            if not through_imports and (name.startswith("<frozen importlib") or "/importlib/" in name):
                return None
            frame = frame.f_back
        return None

    def audit(self, event: str, args: tuple[object, ...]) -> None:
        if not self.on:
            return
        if event in REMOTE:
            self.refuse(f"{event} {args[-1] if event == 'socket.connect' else args}")
        elif event in PROCESSES and (where := self.caller(through_imports=False)):
            self.found.append(f"{where}: {event} {args[1] if event == 'subprocess.Popen' else args}")
        elif event in FILES and isinstance(args[0], (str, bytes, os.PathLike)):
            path = os.fsdecode(args[0])
            # Source files are opened by tracebacks, warnings and decorators, which look at the code itself.
            if not path.endswith((".py", ".pyc")) and (where := self.caller(through_imports=False)):
                self.found.append(f"{where}: {event} {path}")

    def refuse(self, what: str) -> None:
        """Write it down, and raise in place of doing it."""
        self.found.append(f"{self.caller(through_imports=True) or 'an import'}: {what}")
        raise PermissionError(f"not while parsing: {what}")


class ImportTrace(MetaPathFinder):
    """Remembers which line of ours led to the first import of each banned module; finds nothing itself."""

    def __init__(self, banned: list[str], watch: Watch) -> None:
        self.banned, self.watch = set(banned), watch
        self.by: dict[str, str] = {}

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in self.banned and name not in self.by:
            self.by[name] = self.watch.caller(through_imports=True) or "unknown"


def refuse_airflow_lookups(watch: Watch) -> None:
    """Make every way to read a Variable or a Connection refuse, the SDK's and the database's."""
    import airflow.models
    import airflow.sdk

    def refusing(what: str) -> classmethod:
        return classmethod(lambda cls, *args, **kwargs: watch.refuse(f"{what}{args}"))

    for kind, names in {
        airflow.sdk.Variable: ("get", "set", "keys", "delete"),
        airflow.sdk.Connection: ("get", "async_get"),
        airflow.models.Variable: ("get", "set", "delete"),
        airflow.models.Connection: ("get_connection_from_secrets",),
    }.items():
        for name in names:
            setattr(kind, name, refusing(f"{kind.__name__}.{name}"))


def parse(file: str, banned: list[str], watch: Watch) -> dict[str, object]:
    """Import one file as Airflow does; what it did, what it loaded, what it cost in CPU seconds."""
    trace = ImportTrace(banned, watch)
    sys.meta_path.insert(0, trace)
    sys.addaudithook(watch.audit)
    loader = importlib.machinery.SourceFileLoader("parsed_dag_file", file)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    sys.modules[loader.name] = module
    before, error = set(sys.modules), None
    watch.on, start = True, time.process_time()
    try:
        loader.exec_module(module)
    except BaseException:
        error = traceback.format_exc(limit=-3)
    cpu_s, watch.on = time.process_time() - start, False
    loaded = set(sys.modules) - before
    return {
        "cpu_s": cpu_s,
        "error": error,
        "banned": {name: trace.by.get(name, "unknown") for name in banned if name in loaded},
        "access": watch.found,
    }


def in_a_child(file: str, banned: list[str], watch: Watch) -> dict[str, object]:
    """`parse`, in a forked child; a child that hangs or dies is an error of the file."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        signal.alarm(LIMIT_S)
        os.dup2(2, 1)  # what the file prints must not mix with our answer
        with os.fdopen(writing, "w") as pipe:
            json.dump(parse(file, banned, watch), pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        why = f"did not finish in {LIMIT_S} s" if status == -signal.SIGALRM else f"ended with {status}"
        return {"cpu_s": 0.0, "error": f"the parsing process {why}", "banned": {}, "access": []}
    return json.loads(answer)


def main() -> None:
    order = json.load(sys.stdin)
    sys.path += order["path"]
    import airflow.sdk  # noqa: F401 (its cost is not a DAG's)

    watch = Watch(order["own"])
    refuse_airflow_lookups(watch)
    json.dump(
        {
            "loaded_by_airflow": [name for name in order["banned"] if name in sys.modules],
            "files": {file: in_a_child(file, order["banned"], watch) for file in order["files"]},
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
