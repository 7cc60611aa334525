"""What imports in a checkout imports on MWAA too, where include/ lies in the dags folder and plugins stand alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from mwaa_layout import dags_load, plugins_import, plugins_import_no_include, sync, triggers_lie_in_plugins

PROJECT = Path(__file__).resolve().parents[2]
STRAY = "from airflow.sdk import DAG\ndag = DAG('stray', schedule=None)\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An Airflow home and working directory that holds nothing to import."""
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.mark.airflow
def test_every_dag_loads(tmp_path: Path, home: Path) -> None:
    dags = sync(PROJECT, tmp_path)
    assert (dags / "include" / "config.py").is_file() and not (dags / "include").is_symlink()
    (dags / "include" / "stray.py").write_text(STRAY)  # .airflowignore hides it
    assert dags_load(dags, home) == []


@pytest.mark.airflow
def test_what_loads_only_in_a_checkout_is_caught(tmp_path: Path, home: Path) -> None:
    dags = sync(PROJECT, tmp_path)
    planted = dags / "operations"
    planted.mkdir(exist_ok=True)
    (planted / "needs_checkout.py").write_text(f"import local.airflow\n{STRAY}")
    (planted / "no_dag.py").write_text("NOTHING = 'an airflow dag'\n")
    (dags / "include" / "stray.py").write_text(STRAY)
    (dags / ".airflowignore").unlink()
    broken, stray, empty = dags_load(dags, home)
    assert broken.startswith("operations/needs_checkout.py does not load") and "No module named 'local'" in broken
    assert stray == "include/stray.py below include/ was taken for a DAG file"
    assert empty == "operations/no_dag.py holds no DAG that was found"


def test_plugins_stand_alone(home: Path) -> None:
    assert plugins_import_no_include(PROJECT / "plugins") == []
    assert plugins_import(PROJECT / "plugins", home) == []


def test_a_plugin_that_needs_include_is_caught(tmp_path: Path, home: Path) -> None:
    package = tmp_path / "plugins" / "planted"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "page.py").write_text("import include.config\n")
    (package / "late.py").write_text("def page():\n    from include import storage\n    return storage\n")
    (found,) = plugins_import(package.parent, home)
    assert found.startswith("plugins/planted/page.py does not import") and "No module named 'include'" in found
    assert plugins_import_no_include(package.parent) == [
        "planted/late.py:2: imports include",
        "planted/page.py:1: imports include.config",
    ]


def test_triggers_lie_in_plugins() -> None:
    assert triggers_lie_in_plugins(PROJECT / "include") == []
    assert triggers_lie_in_plugins(PROJECT / "dags") == []


def test_a_trigger_elsewhere_is_caught(tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text(
        "from airflow.triggers.base import BaseTrigger, StartTriggerArgs\n"
        "class JobTrigger(BaseTrigger):\n"
        "    def serialize(self):\n"
        "        return ('include.waits.JobTrigger', {})\n"
        "ARGS = StartTriggerArgs(trigger_cls='include.waits.Job', next_method='done')\n"
        "FINE = StartTriggerArgs(trigger_cls='fmops_plugins.triggers.Job', next_method='done')\n"
    )
    assert triggers_lie_in_plugins(tmp_path) == [
        "waits.py:2: class JobTrigger is a trigger; the triggerer imports only plugins/",
        "waits.py:5: trigger_cls='include.waits.Job' cannot be imported by the triggerer",
        "waits.py:4: 'include.waits.JobTrigger' names a trigger that the triggerer cannot import",
    ]
