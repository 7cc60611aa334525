"""Planted: names a module that is not there."""

import include.no_such_module  # noqa: F401
