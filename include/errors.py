"""The errors a user can meet, named by cause; which of them a retry may help is decided in include/dag_defaults.py."""

from __future__ import annotations


class UserError(ValueError):
    """Something the user gave is not allowed; the message names the field, the value and what is allowed."""


class DocumentError(ValueError):
    """One document cannot be used; it is set aside with this reason and the run goes on."""


class StateMovedError(RuntimeError):
    """Another run committed since this run made its plan; clearing the plan task and what follows repairs it."""


class DriftError(RuntimeError):
    """Two records of the same thing disagree, such as a vector store and its ledger."""
