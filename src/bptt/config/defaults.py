"""What suits a text where the user does not choose: units, dropout, batch, steps, rate."""

import math
from collections.abc import Callable
from typing import NamedTuple

from bptt.config.settings import COUNT, Settings, check_number
from bptt.nn.cells import CELLS
from bptt.nn.optimizers import OPTIMIZERS
from bptt.nn.parametrization import Parametrization

WEIGHT_DECAY = 0.0
AVERAGE = 0.0
EVALUATIONS = 10  # of the held-out part, in a run


class Hyperparameters(NamedTuple):
    """The settings that suit a text, where the user did not choose."""

    hidden: int
    dropout: float
    batch: int
    length: int
    steps: int
    learning_rate: float
    weight_decay: float
    parametrization: Parametrization
    average: float  # decay of the moving average of the parameters; 0: none
    evaluate_every: int  # steps
    checkpoint_every: int


class Preset(NamedTuple):
    """What suits texts of up to `targets` characters."""

    targets: float
    hidden: int
    dropout: float  # of gru and lstm
    batch: dict[str, int]  # by mode
    steps: int
    rate: float  # of adam


# short texts want noise: small batches, high rates, half of the units dropped; but dropout harms the tanh network everywhere
PRESETS = (
    Preset(2_000, 64, 0.5, {"lines": 8, "stream": 8}, 500, 8e-3),
    Preset(20_000, 128, 0.5, {"lines": 8, "stream": 8}, 2000, 8e-3),
    Preset(150_000, 128, 0.3, {"lines": 32, "stream": 16}, 3000, 4e-3),
    Preset(math.inf, 256, 0.3, {"lines": 128, "stream": 32}, 6000, 4e-3),
)


def resolve(settings: Settings, mode: str, targets: int, batches: Callable[[int, int], int]) -> Hyperparameters:
    """The plan for a text of so many targets; `batches(batch, length)` counts the batches of one pass."""
    size = preset_for(targets)
    batch = settings.batch or size.batch[mode]
    length = settings.length or (256 if mode == "lines" else 64)
    steps = settings.steps or size.steps
    if settings.epochs:
        steps = check_number(
            f"--epochs {settings.epochs:g} makes steps", COUNT, math.ceil(settings.epochs * batches(batch, length))
        )
    cell = CELLS[settings.cell] if isinstance(settings.cell, str) else settings.cell
    default_dropout: float = getattr(cell, "DROPOUT", size.dropout)
    optimizer = OPTIMIZERS[settings.optimizer]
    default_decay = WEIGHT_DECAY if "weight_decay" in optimizer.options else 0.0
    evaluate_every = settings.evaluate_every or max(1, steps // EVALUATIONS)
    return Hyperparameters(
        hidden=settings.hidden or size.hidden,
        dropout=default_dropout if settings.dropout is None else settings.dropout,
        batch=batch,
        length=length,
        steps=steps,
        learning_rate=settings.learning_rate or optimizer.learning_rate or size.rate,
        weight_decay=default_decay if settings.weight_decay is None else settings.weight_decay,
        parametrization=settings.parametrization or "standard",
        average=AVERAGE if settings.average is None else settings.average,
        evaluate_every=evaluate_every,
        checkpoint_every=settings.checkpoint_every or evaluate_every,
    )


def preset_for(targets: int) -> Preset:
    """The row of PRESETS for a text of so many targets."""
    return next(size for size in PRESETS if targets <= size.targets)
