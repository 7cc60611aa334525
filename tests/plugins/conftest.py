"""The plugins folder on the path, as Airflow has it."""

from __future__ import annotations

import sys

from local.home import PROJECT

sys.path.append(str(PROJECT / "plugins"))
