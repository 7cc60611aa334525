"""The REST client against a fake server: finding DAGs, refusing confs, repeating what was lost."""

from __future__ import annotations

from datetime import datetime

import httpx
import pytest

from include.errors import UserError
from local.client import Client
from local.home import AirflowError
from tests.local.fake_api import PARSED, FakeApi, dag, task, ticking


@pytest.fixture
def fast_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines pass after a few looks at the clock instead of minutes."""
    clock = ticking(3.0)
    monkeypatch.setattr("local.client.time.monotonic", lambda: next(clock))


def test_a_conf_reaches_the_run() -> None:
    api = FakeApi(dags=[dag("d", n=1)])
    with api.client() as client:
        run_id = client.trigger(client.dag("d"), {"n": 2})
    assert api.runs[run_id]["conf"] == {"n": 2} and api.runs[run_id]["logical_date"] is None


def test_an_unknown_conf_key_is_refused_with_those_allowed() -> None:
    api = FakeApi(dags=[dag("d", limit=1, source="x")])
    with api.client() as client, pytest.raises(UserError, match="no key limt in DAG d: allowed are limit, source"):
        client.trigger(client.dag("d"), {"limt": 2, "source": "y"})
    assert api.runs == {}


def test_a_conf_value_that_airflow_refuses_is_one_line() -> None:
    with FakeApi(dags=[dag("d", n=1)]).client() as client:
        with pytest.raises(UserError, match="conf of DAG d: .*param n: 'x' is not of type 'integer'") as error:
            client.trigger(client.dag("d"), {"n": "x"})
    assert "\n" not in str(error.value)


def test_a_trigger_whose_answer_was_lost_makes_one_run() -> None:
    api = FakeApi(dags=[dag("d")], lose_answer_to="POST")
    with api.client() as client:
        details = client.dag("d")
        run_id = client.trigger(details, {})
    assert list(api.runs) == [run_id]
    assert api.seen.count("POST /api/v2/dags/d/dagRuns") == 2


def test_a_paused_dag_is_unpaused() -> None:
    api = FakeApi(dags=[dag("d", paused=True)])
    with api.client() as client:
        client.trigger(client.dag("d"), {})
    assert api.dags[0]["is_paused"] is False


def test_an_unknown_dag_lists_the_known_ones(fast_clock: None) -> None:
    with FakeApi(dags=[dag("b"), dag("a")]).client() as client:
        with pytest.raises(UserError, match="^no DAG c: known are a, b$"):
            client.dag("c")


def test_a_dag_that_cannot_be_imported_shows_why(fast_clock: None) -> None:
    errors = [{"filename": "broken.py", "stack_trace": "Traceback\n  line 3\nNameError: name 'x' is not defined"}]
    with FakeApi(dags=[dag("d", broken=True)], import_errors=errors).client() as client:
        with pytest.raises(UserError, match=r"broken\.py cannot be imported:(.|\n)*NameError: name 'x'"):
            client.dag("d")


def test_a_dag_is_not_taken_before_this_airflow_has_parsed_it(fast_clock: None) -> None:
    before = datetime.fromisoformat("2026-01-01T23:59:59+00:00")
    after = datetime.fromisoformat("2026-01-02T00:00:01+00:00")
    api = FakeApi(dags=[dag("d", parsed=PARSED)])
    with api.client(started_at=before) as client:
        assert client.dag("d")["dag_id"] == "d"
    with api.client(started_at=after) as client, pytest.raises(UserError, match="no DAG d"):
        client.dag("d")


def test_listings_are_read_to_their_end() -> None:
    tasks = [task("t", "success", map_index=i) for i in range(250)]
    api = FakeApi(moments=[("success", tasks)])
    with api.client() as client:
        client.run_state("d", "r")
        assert client.task_instances("d", "r") == tasks


def test_passing_faults_are_waited_out() -> None:
    faults: list[httpx.Response | httpx.TransportError] = [
        httpx.ConnectError("refused"),
        httpx.Response(503, text="starting"),
        httpx.Response(500, json={"detail": "database is locked"}),
    ]
    with FakeApi(faults=faults, moments=[("running", [])]).client() as client:
        assert client.run_state("d", "r") == "running"


def test_a_dead_airflow_is_one_line(fast_clock: None) -> None:
    faults: list[httpx.Response | httpx.TransportError] = [httpx.ConnectError("refused")] * 100
    with FakeApi(faults=faults).client() as client:
        with pytest.raises(AirflowError, match="Airflow at http://airflow does not answer .ConnectError: refused.$"):
            client.run_state("d", "r")


def test_a_wrong_password_is_one_line() -> None:
    client = Client("http://airflow", "wrong", transport=httpx.MockTransport(FakeApi()))
    with client, pytest.raises(AirflowError, match="POST /auth/token: 401"):
        client.run_state("d", "r")


def test_an_xcom_comes_as_its_value() -> None:
    with FakeApi(xcoms={"index.check": {"manifest_uri": "file:///m"}}).client() as client:
        assert client.xcom("d", "r", "index.check") == {"manifest_uri": "file:///m"}
        with pytest.raises(AirflowError, match="404 nothing at .*/other/"):
            client.xcom("d", "r", "other")


def test_the_end_of_a_log_holds_the_exception_and_its_cause() -> None:
    log = [
        {"event": "::group::Pre Execute"},
        *({"event": f"line {i}"} for i in range(20)),
        {
            "event": "Task failed with exception",
            "error_detail": [
                {
                    "exc_type": "RuntimeError",
                    "exc_value": "late",
                    "frames": [{"filename": "a.py", "lineno": 1, "name": "f"}],
                },
                {"exc_type": "KeyError", "exc_value": "'k'", "frames": []},
            ],
        },
        {"event": "::endgroup::"},
    ]
    with FakeApi(logs=log).client() as client:
        lines = client.log_end(task("t", "failed", try_number=2), num_lines=6)
    assert lines == [
        "line 19",
        "Task failed with exception",
        "KeyError: 'k'",
        "  at None:None in None",
        "RuntimeError: late",
        "  at a.py:1 in f",
    ]
