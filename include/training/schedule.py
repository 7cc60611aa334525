"""The learning rate over the steps of a run."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["cosine", "wsd"]
SCHEDULES: tuple[Schedule, ...] = ("cosine", "wsd")

WARM_UP = 0.05
"""Share of the steps in which the rate rises."""
LOWEST = 0.1
"""Of the peak, at the end of `cosine`."""
DECAY = 0.3
"""Share of the steps in which `wsd` falls, to nothing: warm-up, stable, decay (Hu et al., arXiv 2404.06395)."""


def learning_rate(step: int, steps: int, peak: float, schedule: Schedule) -> float:
    """The rate of a step, from 0 on, of a run of so many; the same wherever a run is interrupted."""
    warm_up = max(1, round(steps * WARM_UP))
    if step < warm_up:
        return peak * (step + 1) / warm_up
    if schedule == "wsd":
        falling = max(1, round(steps * DECAY))
        return peak * min(1.0, (steps - step) / falling)
    share = (step - warm_up) / max(1, steps - warm_up)
    return peak * (LOWEST + (1 - LOWEST) * 0.5 * (1 + math.cos(math.pi * share)))
