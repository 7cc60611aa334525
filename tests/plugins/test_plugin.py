"""What Airflow loads of the plugins, in each of its processes."""

from __future__ import annotations

import json
import subprocess
import sys

LOAD = """
import json, sys
from airflow import plugins_manager
from airflow.listeners.listener import get_listener_manager
plugins_manager.ensure_plugins_loaded()
plugins_manager.integrate_macros_plugins()
ours = lambda: sorted(name for name in sys.modules if name.startswith("fmops_plugin") or name == "report_page")
at_load = ours()
get_listener_manager().hook.on_starting(component=object())
task, heavy = ours(), ["airflow.api_fastapi.core_api.security", "airflow.models.pool", "fmops_plugins.settings"]
loaded = [name for name in heavy if name in sys.modules]
apps = [(app["name"], app["url_prefix"]) for app in plugins_manager.get_fastapi_plugins()[0]]
links = [link.name for link in plugins_manager.get_global_operator_extra_links()]
errors = plugins_manager._get_plugins()[1]
print(json.dumps({"at_load": at_load, "task": task, "heavy": loaded, "apps": apps, "links": links, "errors": errors}))
"""


def test_a_task_loads_the_registration_and_the_listener_alone_and_the_api_server_the_pages() -> None:
    done = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "at_load": ["fmops_plugin"],
        "task": ["fmops_plugin", "fmops_plugins", "fmops_plugins.pools"],
        "heavy": [],
        "apps": [["FMOps", "/fmops"]],
        "links": ["Report", "Job"],
        "errors": {},
    }
