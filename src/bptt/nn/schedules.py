"""Learning-rate schedules: a linear warm-up, then a decay from the peak to a final rate.

`cosine` is that of Loshchilov and Hutter (2017, arXiv 1608.03983). `wsd` (warm-up, stable, decay: Hu et al. 2024, arXiv
2404.06395) keeps the peak for 80 % of the updates after the warm-up and then falls linearly.
"""

import math
from collections.abc import Callable
from typing import Literal

STABLE = 0.8  # fraction of a "wsd" run after the warm-up at the peak, before the rate decays

ScheduleName = Literal["cosine", "linear", "constant", "wsd"]
# progress after the warm-up, from 0 to 1 -> where the rate is between the final rate (0) and the peak (1)
SCHEDULES: dict[ScheduleName, Callable[[float], float]] = {
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
    "linear": lambda progress: 1.0 - progress,
    "constant": lambda progress: 1.0,
    "wsd": lambda progress: min(1.0, (1.0 - progress) / (1.0 - STABLE)),
}


def learning_rate(
    step: int, peak: float, *, schedule: ScheduleName = "cosine", warmup: int, total_steps: int, final_rate: float = 0.02
) -> float:
    """The learning rate of the update after `step` others, in a run of `total_steps`.

    The rate rises to `peak` in the first `warmup` updates and then follows the schedule down to `final_rate` times the peak.
    Two updates have the peak: the last one of the warm-up, and the first one after it. Saved runs, which resume bit for bit,
    have these rates.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    return peak * (final_rate + (1.0 - final_rate) * SCHEDULES[schedule](progress))
