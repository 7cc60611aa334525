"""Each guard on a planted DAG that breaks it, and on a planted one that breaks none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from guards import parse, rules, snapshot
from guards.load import load_dag
from guards.parse import BAD, GOOD, Parsed
from guards.templates import templates_render

TIDY = GOOD / "tidy.py"


@pytest.mark.parametrize(
    ("guard", "stem", "message"),
    [
        (parse.parses, "does_not_parse", "No module named 'include.no_such_module'"),
        (parse.parses, "dies", "the parsing process ended with 3"),
        (parse.within_budget, "slow_parse", "s of CPU; allowed is less than 1.0 s"),
        (parse.loads_no_banned_module, "heavy_import", "loads pyarrow while parsing (from "),
        (parse.touches_nothing, "reads_variable", "reads_variable.py:6: Variable.get('source',)"),
        (parse.touches_nothing, "reads_connection", "reads_connection.py:6: Connection.get('opensearch',)"),
        (parse.touches_nothing, "connects", "connects.py:6: socket.getaddrinfo ('127.0.0.1', 9"),
        (parse.touches_nothing, "reads_file", "reads_file.py:5: open /etc/hostname"),
        (parse.touches_nothing, "starts_process", "starts_process.py:5: subprocess.Popen ['git', '--version']"),
    ],
)
def test_parsing(guard, stem: str, message: str, planted: dict[str, Parsed]) -> None:
    assert any(message in line for line in guard(planted[stem]))
    assert guard(planted["tidy"]) == []


def test_parsing_all_together(planted: dict[str, Parsed]) -> None:
    tidy = planted["tidy"]
    assert parse.within_budget_together([tidy]) == []
    eleven = [replace(tidy, cpu_s=0.95)] * 11
    assert [parse.within_budget(p) for p in eleven] == [[]] * 11
    assert "parsing all files takes 10.45 s" in parse.within_budget_together(eleven)[0]


def test_the_bans_are_not_hollow(measured_planted: tuple[object, list[str]]) -> None:
    """What Airflow itself loads this guard cannot see in a DAG; ruff's rule alone still holds it out."""
    assert measured_planted[1] == ["upath"]


def test_templates() -> None:
    found = templates_render(BAD / "dated_templates.py")
    without = {line.split(" does ")[0]: line.split("date: ")[1] for line in found if " without a " in line}
    with_date = {line.split(" does ")[0] for line in found if " with a " in line}
    assert without == {
        "plain.op_args": "UndefinedError: 'ds' is undefined",
        "named.op_kwargs": "UndefinedError: 'logical_date' is undefined",
        "named.map_index_template": "UndefinedError: 'ts_nodash' is undefined",
        "misspelt.bash_command": "UndefinedError: 'parms' is undefined",
        "settings.bash_command": "UndefinedError: 'var' is undefined",
        "broken.bash_command": "TemplateSyntaxError: unexpected '}'",
        "literals.bash_command": "UndefinedError: 'data_interval_start' is undefined",
        "kwargs.cwd": "UndefinedError: 'ds_nodash' is undefined",
    }
    assert with_date == {"misspelt.bash_command", "settings.bash_command", "broken.bash_command"}


def test_templates_of_a_dag_whose_params_break() -> None:
    assert "Invalid input for param too_small" in templates_render(BAD / "bad_params.py")[0]


def test_rules() -> None:
    dag = load_dag(BAD / "untidy.py")
    assert rules.one_dag(BAD / "untidy.py") == [
        "holds the DAGs ['another_name']; must hold exactly one, with dag_id 'untidy'"
    ]
    assert rules.documented(dag) == [
        "doc_md has 1 lines of text; needs 5 (doc_md=__doc__)",
        "doc_md shows no graph of the tasks (a line with -> between them)",
    ]
    assert rules.runs_are_bounded(dag) == ["catchup is on", "max_active_runs is not set"]
    assert rules.tasks_are_looked_after(dag) == [
        "task lonely has no owner",
        "task lonely has retries=0; needs 1 or more",
        "task lonely has neither retry_policy nor retry_delay",
        "task lonely has no on_failure_callback",
    ]


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("consumer", "has the persona tags ['consumer', 'provider']; in consumer/ must have ['consumer']"),
        ("operations", "in operations/ must have ['operations']"),
        ("misc", "lies in misc/; allowed: consumer, fine_tuner, operations, provider"),
    ],
)
def test_persona(folder: str, message: str) -> None:
    (found,) = rules.tagged(load_dag(BAD / "untidy.py"), folder)
    assert message in found


def test_params() -> None:
    assert rules.params_are_typed(load_dag(BAD / "bad_params.py")) == [
        "Param too_small cannot run with its default: 0 is less than the minimum of 1",
        "Param required cannot run with its default: No value passed and Param has no default value",
        "Param silent has no description",
        "Param untyped has no type",
        "Param bare has no description",
        "Param bare has no type",
    ]


def test_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tidy = load_dag(TIDY)
    monkeypatch.delenv("UPDATE_SNAPSHOTS", raising=False)
    assert "has no snapshot tidy.json" in snapshot.equals_snapshot(tidy, tmp_path)[0]

    monkeypatch.setenv("UPDATE_SNAPSHOTS", "1")
    assert snapshot.equals_snapshot(tidy, tmp_path) == []
    monkeypatch.delenv("UPDATE_SNAPSHOTS")
    assert snapshot.equals_snapshot(load_dag(TIDY), tmp_path) == []

    tidy.get_task("report").trigger_rule = "all_done"
    tidy.params["limit"] = 11
    (found,) = snapshot.equals_snapshot(tidy, tmp_path)
    assert '-   "trigger_rule": "all_success"' in found
    assert '+   "trigger_rule": "all_done"' in found
    assert '+   "default": 11' in found
    assert snapshot.orphans({"tidy"}, tmp_path) == []
    assert snapshot.orphans({"another"}, tmp_path) == ["tidy.json is the snapshot of no DAG"]


def test_the_good_dag_passes() -> None:
    dag = load_dag(TIDY)
    assert rules.one_dag(TIDY) == []
    assert rules.documented(dag) == []
    assert rules.tagged(dag, "consumer") == []
    assert rules.runs_are_bounded(dag) == []
    assert rules.tasks_are_looked_after(dag) == []
    assert rules.params_are_typed(dag) == []
    assert templates_render(TIDY) == []
