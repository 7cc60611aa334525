"""The environment that a local Airflow runs in: the shared options of airflow.env, and what differs on one machine."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from include.config import load_settings
from local.home import PROJECT, USER, Home, Running
from local.processes import MARK
from local.setup_environment import JOBS

_NOT_INHERITED = (
    "AIRFLOW_CONFIG",  # another Airflow's
    "PYTHONDONTWRITEBYTECODE",  # would cost each start half a minute
    "PYTHONPATH",  # Amazon MWAA refuses it: what runs here has to run there
)


def read_options(path: Path) -> dict[str, str]:
    """The NAME=value lines of an option file such as airflow.env."""
    lines = (line.strip() for line in path.read_text().splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def environment(
    home: Home, running: Running, *, dags: Path, plugins: Path, options: Mapping[str, str]
) -> dict[str, str]:
    """What every process of this Airflow gets; `options` come last but for what ends and finds the processes.

    The project's own options win over what the shell happens to hold for another Airflow.
    """
    return {
        **{name: value for name, value in os.environ.items() if name not in _NOT_INHERITED},
        **read_options(PROJECT / "airflow.env"),
        "AIRFLOW_HOME": str(home.path),
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        # With more, the scheduler dies of "database is locked" under a hundred mapped tasks.
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(plugins),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{running.url}/execution/",
        "AIRFLOW__CORE__AUTH_MANAGER": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home.password_file),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home.path}/airflow.db",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home.path / "logs"),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": running.url.rpartition(":")[2],
        "AIRFLOW__API__BASE_URL": running.url,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "FMOPS_STORAGE_ROOT": load_settings().root,  # the web server's page of reports cannot ask include/config.py
        # In Airflow's home: a file transport needs a local folder that exists.
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(
            {"type": "file", "log_file_path": str(home.path / "lineage.jsonl"), "append": True}
        ),
        **_jobs_python(os.environ),
        **options,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        MARK: running.mark,
        "SPT_NOENV": "1",  # else setproctitle writes process titles over the environment that bears the mark
    }


def _jobs_python(environ: Mapping[str, str]) -> dict[str, str]:
    """Where the jobs environment is, if it was moved; beside the project it is found without."""
    if not environ.get(JOBS.variable) or environ.get("FMOPS_JOB_PYTHON"):
        return {}
    return {"FMOPS_JOB_PYTHON": str(JOBS.path(PROJECT, environ) / "bin" / "python")}
