"""The errors a user can meet, named by cause; which of them a retry may help is decided in include/dag_defaults.py."""

from __future__ import annotations

from typing import Literal

Fault = Literal[
    "malformed",  # not what its suffix says, truncated, or torn
    "not_text",  # binary, undecodable, or half of a surrogate pair
    "encrypted",
    "unsupported",  # no loader for it, or its library is not installed
    "time_limit",
    "memory_limit",
    "size_limit",
    "crashed",  # the reading process died of it
    "unreadable",  # the source did not hand it out: permissions, a broken disk
    "not_embedded",  # the embedding model failed on it
    "refused",  # the vector store did not take one of its chunks
]
"""What is wrong with a document or a record that was set aside."""


class UserError(ValueError):
    """Something the user gave is not allowed; the message names the field, the value and what is allowed."""


class DocumentError(ValueError):
    """One document cannot be used; it is set aside with this reason and the run goes on."""

    def __init__(self, reason: str, fault: Fault = "malformed") -> None:
        super().__init__(reason)
        self.fault: Fault = fault


class StateMovedError(RuntimeError):
    """Another run committed since this run made its plan; clearing the plan task and what follows repairs it."""


class DriftError(RuntimeError):
    """Two records of the same thing disagree, such as a vector store and its ledger."""


class ToleranceError(RuntimeError):
    """More went wrong with the documents than the run was told to tolerate; nothing was committed."""


class EmbeddingError(RuntimeError):
    """An embedding model answered with something that cannot be its vectors, such as NaN or too few rows."""


class GateError(RuntimeError):
    """A quality gate refused a result; the message names the thresholds that it missed."""


class PermanentError(RuntimeError):
    """Something failed in a way that a second try would most likely repeat; a person has to look."""


class BusyError(RuntimeError):
    """A service kept refusing for its load until the deadline; the message names the service and the deadline."""
