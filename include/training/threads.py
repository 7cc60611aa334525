"""How the threads of a matrix product wait for each other; torch reads it once, when it is loaded."""

from __future__ import annotations

import os

SPINS = 2000
"""Some 50 microseconds. A step of a small model has a thousand parallel parts; to be woken for each takes a sixth of
it (0.39 s for 0.47, four layers of `tiny`'s width on two cores); to spin for 100 times as long makes a step five times
as slow where cores are shared."""


def set_waiting() -> None:
    """Spin for a moment, then sleep; call it before torch is imported. What the environment says already stands."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
