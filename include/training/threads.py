"""How the threads of a matrix product wait for each other; torch reads it once, when it is loaded."""

from __future__ import annotations

import os

SPINS = 200_000
"""About a third of a millisecond: a step of `tiny` has a thousand parallel parts, and to be woken for each of them
takes a fifth of it; to spin for good slows whatever shares the cores, and so the slowest thread."""


def set_waiting() -> None:
    """Spin for a moment, then sleep; call it before torch is imported. What the environment says already stands."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
