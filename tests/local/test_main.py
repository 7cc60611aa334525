"""The launcher's verbs, as far as they need no Airflow."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import local.__main__ as launcher
from include.contracts import IngestionCounts, IngestionManifest
from include.errors import UserError
from include.rag.quality import measure
from include.storage import location, write_jsonl, write_record
from local.client import Client
from local.home import Home, Running
from local.processes import MARK, Ended
from local.workflows import Outcome, Workflow
from tests.local.fake_api import FakeApi, dag, task

COUNTS = IngestionCounts(
    found=7,
    unchanged=1,
    added=2,
    changed=1,
    empty=1,
    quarantined=2,
    still_quarantined=0,
    vanished=0,
    deleted=3,
    skipped=5,
    records_quarantined=1,
    chunks_written=11,
    chunks_embedded=10,
    chunks_reused=1,
    documents_total=40,
    chunks_total=400,
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    home = Home(tmp_path / "home")
    home.prepare()
    monkeypatch.setenv("FMOPS_AIRFLOW_HOME", str(home.path))
    return home


def serve(api: FakeApi, monkeypatch: pytest.MonkeyPatch, launcher_pid: int) -> list[str]:
    """Let the verbs find this fake where they look for a running Airflow; how often they looked."""
    looked: list[str] = []
    running = Running(url="http://airflow", mark="m", launcher=launcher_pid, started_at="", healthy=True)

    @contextmanager
    def running_airflow(_say: object) -> Iterator[tuple[Running, Callable[[], None]]]:
        looked.append(running.url)
        yield running, lambda: None

    monkeypatch.setattr(launcher, "running_airflow", running_airflow)
    monkeypatch.setattr(Client, "of", lambda _running, _password: api.client())
    return looked


def run(monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    monkeypatch.setattr(sys, "argv", ["local", *argv])
    return launcher.main()


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(("state", "status"), [("success", 0), ("failed", 1)])
def test_the_exit_status_of_dag_is_the_runs(monkeypatch: pytest.MonkeyPatch, state: str, status: int) -> None:
    api = FakeApi(dags=[dag("d", n=1)], moments=[("running", []), (state, [task("t", state)])])
    serve(api, monkeypatch, os.getpid())
    assert run(monkeypatch, "dag", "d", "--conf", '{"n": 2}') == status
    assert [made["conf"] for made in api.runs.values()] == [{"n": 2}]


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("conf", ["{", "[1]", "3", "'a'"])
def test_a_conf_that_is_no_json_object_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], conf: str
) -> None:
    assert run(monkeypatch, "dag", "d", f"--conf={conf}") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: CONF={conf} is not") and error.count("\n") == 1


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(("own", "state"), [(True, "failed"), (False, None)])
def test_an_interrupted_run_fails_with_its_airflow_and_goes_on_in_another(
    monkeypatch: pytest.MonkeyPatch, own: bool, state: str | None
) -> None:
    def interrupted(*_args: object, **_more: object) -> str:
        raise Ended(2)

    api = FakeApi(dags=[dag("d")])
    serve(api, monkeypatch, os.getpid() if own else 1)
    monkeypatch.setattr(launcher, "follow", interrupted)
    assert run(monkeypatch, "dag", "d") == 130
    assert [made.get("state") for made in api.runs.values()] == [state]


@pytest.mark.usefixtures("home")
def test_ingest_passes_the_folder_and_prints_what_came_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    uri, quarantine = (tmp_path / "manifest.json").as_uri(), (tmp_path / "quarantine.jsonl").as_uri()
    letters = [{"path": f"{n}.jsonl", "locator": "line 3" if n else None, "reason": "torn"} for n in range(7)]
    write_jsonl(location(quarantine), letters)
    report = measure([], {"hybrid": {}}, tenant="acme", use_case="help", index="notes", run_id="r", ledger_version=4)
    write_record(location((tmp_path / "retrieval.json").as_uri()), report)
    manifest = IngestionManifest(
        tenant="acme",
        use_case="help",
        index="notes",
        index_version=1,
        run_id="r",
        source_uri=tmp_path.as_uri(),
        store="lancedb",
        store_uri="file:///store",
        embedder="minilm",
        chunker="c",
        ledger_uri="file:///ledger",
        ledger_version=4,
        quarantine_uri=quarantine,
        counts=COUNTS,
    )
    write_record(location(uri), manifest)
    api = FakeApi(
        dags=[dag("rag_ingestion", source=None, index="docs", corpus="demo")],
        moments=[("success", [task("index.check", "success")])],
        xcoms={"index.check": {"manifest_uri": uri}},
    )
    serve(api, monkeypatch, os.getpid())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my notes").mkdir()
    assert run(monkeypatch, "ingest", "--from=my notes", "--index=notes") == 0
    (made,) = api.runs.values()
    assert made["conf"] == {"source": str(tmp_path / "my notes"), "index": "notes"}
    said = capsys.readouterr().out
    for words in (
        "7 found: 2 added, 1 changed, 1 unchanged, 1 empty, 2 quarantined\n",
        "set aside\n  0.jsonl: torn\n  1.jsonl, line 3: torn\n",
        "4.jsonl, line 3: torn\n  and 2 more\nquality\n",
        "Retrieval quality of index notes: MEASURED (0 questions)",
        f"{tmp_path.as_uri()}/retrieval.html",
        "3 deleted",
        "400 chunks",
    ):
        assert words in said
    for words in ("11 written, 10 embedded by minilm", "file:///ledger (version 4)", quarantine, uri):
        assert words in said
    assert "INDEX=notes" in said and "make up" in said


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(("corpus", "conf"), [("", {}), ("demo", {}), ("full", {"corpus": "full"})])
def test_the_demos_corpus(monkeypatch: pytest.MonkeyPatch, corpus: str, conf: dict[str, Any]) -> None:
    api = FakeApi(dags=[dag("rag_ingestion", corpus="demo")], moments=[("failed", [])])
    serve(api, monkeypatch, os.getpid())
    monkeypatch.setenv("CORPUS", corpus)
    assert run(monkeypatch, "demo") == 1
    assert [made["conf"] for made in api.runs.values()] == [conf]


def workflows(monkeypatch: pytest.MonkeyPatch, *names: str) -> list[tuple[str, Outcome]]:
    """Put these in the place of the project's, each with a task `end`; what is shown of them, as it comes."""
    shown: list[tuple[str, Outcome]] = []

    def workflow(name: str) -> Workflow:
        return Workflow(tasks=("end",), show=lambda outcome: shown.append((name, outcome)))

    monkeypatch.setattr(launcher, "WORKFLOWS", {name: workflow(name) for name in names})
    return shown


@pytest.mark.usefixtures("home")
def test_demo_all_runs_one_workflow_after_the_other_on_one_airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = workflows(monkeypatch, "second", "first")
    api = FakeApi(
        dags=[dag("first", n=1), dag("second", n=1)],
        moments=[("success", [task("end", "success")])],
        xcoms={"end": "made"},
    )
    looked = serve(api, monkeypatch, os.getpid())
    assert run(monkeypatch, "demo-all") == 0
    triggered = [seen for seen in api.seen if seen.startswith("POST") and seen.endswith("dagRuns")]
    assert triggered == [f"POST /api/v2/dags/{name}/dagRuns" for name in ("second", "first")]
    assert [made["conf"] for made in api.runs.values()] == [{}, {}]
    assert [(name, one.succeeded, one.results) for name, one in shown] == [
        ("second", True, {"end": "made"}),
        ("first", True, {"end": "made"}),
    ]
    assert len(looked) == 1


@pytest.mark.usefixtures("home")
def test_demo_all_ends_with_the_first_that_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = workflows(monkeypatch, "a", "b", "c", "d")
    done, failed = [task("end", "success")], [task("end", "failed")]
    api = FakeApi(
        dags=[dag(name) for name in "abcd"], moments=[("success", done), ("failed", failed)], xcoms={"end": 1}
    )
    serve(api, monkeypatch, os.getpid())
    assert run(monkeypatch, "demo-all") == 1
    assert [(name, one.succeeded, list(one.failures)) for name, one in shown] == [
        ("a", True, []),
        ("b", False, ["end"]),
    ]
    assert len(api.runs) == 2
    assert capsys.readouterr().out.endswith("demo-all: b failed; not run: c, d\n")


@pytest.mark.usefixtures("home")
def test_dag_shows_what_came_out_of_a_workflow(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = workflows(monkeypatch, "w")
    serve(FakeApi(dags=[dag("w", n=1)], moments=[("success", [])]), monkeypatch, os.getpid())
    assert run(monkeypatch, "dag", "w", '--conf={"n": 2}') == 0
    assert [name for name, _ in shown] == ["w"]


@pytest.mark.parametrize("folder", ["", "no/such", __file__])
def test_what_is_no_folder_is_one_line(folder: str) -> None:
    with pytest.raises(UserError, match=f"FROM={folder} is not a folder"):
        launcher.ingest(folder, "my-docs")


def test_dag_without_a_dag_is_one_line() -> None:
    with pytest.raises(UserError, match="DAG is not set"):
        launcher.dag("", {})


def test_an_unknown_corpus_is_one_line() -> None:
    with pytest.raises(UserError, match="CORPUS=big is not a corpus: write demo or full"):
        launcher.demo("big")


def test_up_beside_a_running_airflow_says_where_that_is(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home.write_running(Running(url="http://127.0.0.1:1", mark="m", launcher=7, started_at="", healthy=True))
    assert home.hold()
    assert run(monkeypatch, "up") == 2
    assert "already runs" in (error := capsys.readouterr().err) and "http://127.0.0.1:1" in error
    home.release()


def test_down_ends_what_a_killed_launcher_left(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = uuid.uuid4().hex
    with subprocess.Popen(["sleep", "600"], env={**os.environ, MARK: mark}) as left:
        home.write_running(Running(url="http://127.0.0.1:1", mark=mark, launcher=7, started_at="", healthy=True))
        assert run(monkeypatch, "down") == 0
        assert left.wait() != 0
    assert home.read_running() is None
    assert run(monkeypatch, "down") == 0
    assert "none runs" in capsys.readouterr().out


def test_down_ends_a_launcher_and_waits_for_it(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
import os, sys
from pathlib import Path
from local.home import Home, Running
from local.processes import Ended, ending_on_signals
import signal
home = Home(Path(sys.argv[1]))
assert home.hold()
running = Running(url="http://127.0.0.1:1", mark="none", launcher=os.getpid(), started_at="", healthy=True)
with ending_on_signals():
    home.write_running(running)
    try:
        print("ready", flush=True)
        signal.pause()
    except Ended:
        home.forget_running()
"""
    command = [sys.executable, "-c", code, str(home.path)]
    with subprocess.Popen(command, cwd=launcher.PROJECT, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "ready\n"
        assert run(monkeypatch, "down") == 0
        assert not home.is_held()
        assert other.wait() == 0


@pytest.mark.parametrize(("answer", "gone"), [("y\n", True), ("\n", False), ("", False)])
def test_reset_asks_first(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, gone: bool) -> None:
    (data := tmp_path / "data").mkdir()
    (tmp_path / "answer").write_text(answer)
    with (tmp_path / "answer").open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert launcher.reset(home, data, confirmed=False) == (0 if gone else 1)
    assert (not data.exists() and not home.path.exists()) is gone


def test_reset_refuses_while_an_airflow_runs(home: Home, tmp_path: Path) -> None:
    assert home.hold()
    with pytest.raises(UserError, match="already runs"):
        launcher.reset(Home(home.path), tmp_path / "data", confirmed=True)
    home.release()
    assert launcher.reset(home, tmp_path / "data", confirmed=True) == 0
    assert launcher.reset(home, tmp_path / "data", confirmed=True) == 0


def test_reset_refuses_a_folder_that_is_no_airflow_home(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UserError, match="FMOPS_AIRFLOW_HOME names the wrong folder"):
        launcher.reset(Home(tmp_path), tmp_path / "data", confirmed=True)
    assert (tmp_path / "thesis.txt").exists()
