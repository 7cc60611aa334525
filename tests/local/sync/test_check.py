"""Nothing is sent that does not load as it will lie on MWAA."""

from __future__ import annotations

import pytest

from include.errors import UserError
from tests.local.sync.deployment import DAG, Deployment


@pytest.mark.airflow
def test_what_loads_is_sent(mine: Deployment) -> None:
    mine.edit("dags/uses_plugin.py", f"import mine.page\n{DAG.format('p')}")
    assert mine.sync()[-1] == "fmops-release.json" and mine.is_whole()
    assert "loading DAGs as they will lie on MWAA ...\n  2 load" in mine.said


@pytest.mark.airflow
def test_what_does_not_load_stops_it(mine: Deployment) -> None:
    mine.edit("dags/consumer/needs_checkout.py", f"import local.airflow\n{DAG.format('n')}")
    mine.edit("plugins/mine/page.py", "import mine\nimport include.config\n")
    with pytest.raises(UserError, match="nothing was sent") as raised:
        mine.sync()
    lines = str(raised.value).splitlines()
    assert lines[1:] == [
        "  dags/consumer/needs_checkout.py:1: ModuleNotFoundError: No module named 'local'",
        "  plugins/mine/page.py:2: ModuleNotFoundError: No module named 'include'",
    ]
    assert mine.lie() == {}
