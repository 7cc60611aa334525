"""Lineage as it reaches OpenLineage: by what name, with which figures, from a task of a real Airflow, or not at all."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import airflow.settings  # noqa: F401 (replaces the handlers of logging, which caplog must survive)
import pytest

from include.lineage import Data, dataset_name, record
from local.airflow import LocalAirflow
from local.home import PROJECT
from local.watch import follow
from tests.real_airflow import home_with_database

TEXT = "only-the-document-says-this"
CODE = "only_the_code_says_this"

DAG = f"""
from pathlib import Path

from airflow.sdk import dag, task


@dag(dag_id="copied", schedule=None, params={{"source": "", "store": ""}})
def copied():
    @task
    def copy(params: dict):
        from include.lineage import Data, record

        {CODE} = Path(params["source"]).read_text()
        Path(params["store"]).write_text({CODE})
        record(
            inputs=[Data(uri="file://" + params["source"])],
            outputs=[Data(uri="file://" + params["store"], rows=3, version="2")],
        )

    @task
    def look(params: dict):
        assert Path(params["store"]).exists()

    copy() >> look()


copied()
"""


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("file:///data/hand book", ("file", "/data/hand book")),
        ("file:///data/what?#1/", ("file", "/data/what?#1")),
        ("s3://bucket/docs/a#1", ("s3://bucket", "docs/a#1")),
        ("s3://bucket", ("s3://bucket", "/")),
        ("https://search.example:9200/docs-v0001", ("https://search.example:9200", "docs-v0001")),
        ("https://me:hunter2@search.example/docs?token=hunter2#x", ("https://search.example", "docs")),
    ],
)
def test_dataset_name(uri: str, name: tuple[str, str]) -> None:
    assert dataset_name(uri) == name


def test_a_path_is_no_dataset() -> None:
    with pytest.raises(ValueError, match="'/data/handbook' is not a URI"):
        dataset_name("/data/handbook")


def test_file_and_s3_are_named_as_airflow_names_its_assets() -> None:
    """So that a DAG of somebody else's that writes the source, or reads the index, meets ours in one graph."""
    from airflow.providers.amazon.aws.assets import s3
    from airflow.providers.common.io.assets import file
    from airflow.sdk import Asset

    for uri, convert in [
        ("file:///data/docs", file.convert_asset_to_openlineage),
        ("s3://bucket/docs/a.md", s3.convert_asset_to_openlineage),
    ]:
        theirs = convert(Asset(uri), None)
        assert dataset_name(uri) == (theirs.namespace, theirs.name)


def test_without_the_provider_nothing_happens(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "airflow.providers.openlineage", None)
    record(inputs=[Data(uri="file:///a")], outputs=[Data(uri="file:///b")])
    assert caplog.records == []


@pytest.mark.parametrize("disabled", ["True", None])
def test_switched_off_nothing_happens(
    disabled: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By the option, or for want of a transport."""
    if disabled:
        monkeypatch.setenv("AIRFLOW__OPENLINEAGE__DISABLED", disabled)
        monkeypatch.setenv("AIRFLOW__OPENLINEAGE__TRANSPORT", transport(tmp_path / "events.jsonl"))
    record(inputs=[Data(uri="file:///a")], outputs=[Data(uri="file:///b")])
    assert caplog.records == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("{mistyped", "lineage was not recorded"),
        ('{"type": "console"}', "Are you running within an Airflow task?"),
    ],
    ids=["a transport that cannot be read", "outside a task"],
)
def test_a_failure_is_a_warning(
    option: str, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AIRFLOW__OPENLINEAGE__TRANSPORT", option)
    record(inputs=[Data(uri="file:///a")])
    [warning] = caplog.records
    assert warning.levelname == "WARNING"
    assert said in warning.getMessage()


def transport(file: Path) -> str:
    return json.dumps({"type": "file", "log_file_path": str(file), "append": True})


def ran(folder: Path, options: dict[str, str]) -> None:
    """Run the DAG above on an Airflow of its own, to success."""
    dags = folder / "dags"
    dags.mkdir()
    (dags / "include").symlink_to(PROJECT / "include")
    (dags / ".airflowignore").write_text("include/\n")
    (dags / "copied.py").write_text(DAG)
    (folder / "source.txt").write_text(TEXT)
    conf = {"source": str(folder / "source.txt"), "store": str(folder / "store.txt")}
    home = home_with_database(folder / "airflow")
    with LocalAirflow(home=home, dags=dags, plugins=dags / "none", port=0, options=options) as airflow:
        with airflow.client() as client:
            run_id = client.trigger(client.dag("copied"), conf)
            lines: list[str] = []
            state = follow(client, "copied", run_id, say=lines.append, check_alive=airflow.check_alive)
    assert state == "success", "\n".join(lines)


@pytest.mark.slow
@pytest.mark.airflow
def test_a_run_tells_what_it_read_and_wrote(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    ran(tmp_path, {"AIRFLOW__OPENLINEAGE__DISABLED": "False", "AIRFLOW__OPENLINEAGE__TRANSPORT": transport(file)})
    text = file.read_text()
    events: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]

    of_job: dict[str, list[str]] = {}
    for event in events:
        of_job.setdefault(event["job"]["name"], []).append(event["eventType"])
    assert of_job == {
        "copied": ["START", "COMPLETE"],
        "copied.copy": ["START", "RUNNING", "COMPLETE"],
        "copied.look": ["START", "COMPLETE"],
    }

    [told] = [event for event in events if event["eventType"] == "RUNNING"]
    [started] = [event for event in events if event["job"] == told["job"] and event["eventType"] == "START"]
    assert told["run"]["runId"] == started["run"]["runId"]
    [read], [written] = told["inputs"], told["outputs"]
    assert (read["namespace"], read["name"]) == ("file", str(tmp_path / "source.txt"))
    assert (written["namespace"], written["name"]) == ("file", str(tmp_path / "store.txt"))
    assert written["outputFacets"]["outputStatistics"]["rowCount"] == 3
    assert written["facets"]["version"]["datasetVersion"] == "2"

    assert TEXT not in text
    assert CODE not in text
    assert "sourceCode" not in text


@pytest.mark.slow
@pytest.mark.airflow
def test_a_run_without_openlineage_tells_nothing(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    ran(tmp_path, {"AIRFLOW__OPENLINEAGE__DISABLED": "True", "AIRFLOW__OPENLINEAGE__TRANSPORT": transport(file)})
    assert (tmp_path / "store.txt").read_text() == TEXT
    assert not file.exists()
