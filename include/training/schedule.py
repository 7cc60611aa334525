"""The learning rate over the steps of a run."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["cosine", "wsd"]
SCHEDULES: tuple[Schedule, ...] = ("cosine", "wsd")

WARM_UP = 0.05
"""Share of the steps in which the rate rises."""
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
    # To nothing, not to a tenth of the peak: the loss comes out lower (Bergsma et al., arXiv 2502.15938).
    share = (step - warm_up) / max(1, steps - warm_up)
    return peak * 0.5 * (1 + math.cos(math.pi * share))
