"""Every guard on every DAG file; a new file below dags/ is under them without a line here."""

from __future__ import annotations

from pathlib import Path

import pytest
from guards import parse, rules, snapshot
from guards.load import load_dag
from guards.parse import DAGS, Parsed, dag_files
from guards.templates import templates_render

every_dag = pytest.mark.parametrize("file", dag_files(), ids=lambda file: str(file.relative_to(DAGS)))


@every_dag
@pytest.mark.parametrize(
    "guard",
    [parse.parses, parse.within_budget, parse.loads_no_banned_module, parse.touches_nothing],
    ids=lambda guard: guard.__name__,
)
def test_parsing(guard, file: Path, parsed: dict[Path, Parsed]) -> None:
    assert guard(parsed[file]) == []


def test_parsing_all_together(parsed: dict[Path, Parsed]) -> None:
    assert parsed, "there is no DAG file below dags/"
    assert parse.within_budget_together(list(parsed.values())) == []


@every_dag
@pytest.mark.parametrize("guard", [rules.one_dag, templates_render], ids=lambda guard: guard.__name__)
def test_file(guard, file: Path) -> None:
    assert guard(file) == []


@every_dag
@pytest.mark.parametrize(
    "guard",
    [
        rules.documented,
        rules.runs_are_bounded,
        rules.tasks_are_looked_after,
        rules.params_are_typed,
        snapshot.equals_snapshot,
    ],
    ids=lambda guard: guard.__name__,
)
def test_dag(guard, file: Path) -> None:
    assert guard(load_dag(file)) == []


@every_dag
def test_persona(file: Path) -> None:
    assert rules.tagged(load_dag(file), file.parent.name) == []


def test_no_snapshot_without_a_dag() -> None:
    assert snapshot.orphans({file.stem for file in dag_files()}) == []
