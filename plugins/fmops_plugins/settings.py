"""The project's settings that the plugin needs: on Amazon MWAA it has not include/config.py, which reads the others."""

from __future__ import annotations

import os

from airflow.configuration import conf

from fmops_plugins.answers import PageError


def setting(name: str) -> str:
    """FMOPS_<NAME>, else Airflow's option fmops.<name>; "" if neither is set."""
    return os.environ.get(f"FMOPS_{name.upper()}") or str(conf.get("fmops", name, fallback=""))


def storage_root() -> str:
    """The storage root as this process is told it, a URI without a trailing slash; PageError 503 if it is not."""
    root = setting("storage_root")
    if not root:
        raise PageError(
            503,
            "The API server does not know the storage root: set FMOPS_STORAGE_ROOT in its environment, or Airflow's "
            "option fmops.storage_root.",
        )
    return root.rstrip("/")
