"""Learning-rate schedules: a linear warm-up, then a decay from the peak to a final rate."""

import math
from collections.abc import Callable
from typing import Literal

STABLE = 0.8  # fraction of a "wsd" run after the warm-up at the peak, before the rate decays

ScheduleName = Literal["cosine", "linear", "constant", "wsd"]
# progress after the warm-up, from 0 to 1 -> where the rate is between the final rate (0) and the peak (1)
SCHEDULES: dict[ScheduleName, Callable[[float], float]] = {
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),  # Loshchilov and Hutter 2017
    "linear": lambda progress: 1.0 - progress,
    "constant": lambda progress: 1.0,
    "wsd": lambda progress: min(1.0, (1.0 - progress) / (1.0 - STABLE)),  # warm-up, stable, decay: Hu et al. 2024
}


def learning_rate(
    step: int, peak: float, *, schedule: ScheduleName = "cosine", warmup: int, total_steps: int, final_rate: float = 0.02
) -> float:
    """The learning rate of the update after `step` others, in a run of so many steps.

    It rises to the peak in `warmup` equal steps and then follows the schedule, from the peak down to `final_rate` times it. So
    two updates have the peak: the last one of the warm-up, and the first one after it. It would take other rates for the rest
    of the run to change that, and saved runs, which resume bit for bit, have these.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    return peak * (final_rate + (1.0 - final_rate) * SCHEDULES[schedule](progress))
