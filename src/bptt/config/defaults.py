"""What suits a text where the user does not choose: units, dropout, batch, steps, rate."""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

from bptt.config.settings import COUNT, Settings, check_number
from bptt.nn.cells import CELLS
from bptt.nn.optimizers import OPTIMIZERS
from bptt.nn.parametrization import Parametrization

AVERAGED = 0.1  # part of a run that the average of the weights is about as long as
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
    """What suits a text of so many characters; between two presets, all numbers are interpolated."""

    targets: float
    hidden: float
    dropout: float  # of gru and lstm
    batch_lines: float
    batch_stream: float
    steps: float
    learning_rate: float  # of adam
    weight_decay: float


# short texts want noise and a pull towards zero: small batches, dropout, weight decay (bench/what_helps.py measures the parts)
PRESETS = (
    Preset(2_000, 64, 0.5, 8, 8, 500, 8e-3, 0.5),
    Preset(20_000, 160, 0.4, 8, 8, 2000, 4e-3, 0.5),
    Preset(200_000, 256, 0.2, 128, 16, 6000, 5e-3, 0.3),
    Preset(1_000_000, 320, 0.2, 128, 16, 5000, 6e-3, 0.1),
)


def preset_for(targets: int) -> Preset:
    """What suits a text of so many characters, on straight lines through `PRESETS` over the logarithm of the characters."""
    clamped = min(max(targets, PRESETS[0].targets), PRESETS[-1].targets)
    before, after = next((pair for pair in itertools.pairwise(PRESETS) if clamped <= pair[1].targets), PRESETS[-2:])
    share = math.log(clamped / before.targets) / math.log(after.targets / before.targets)
    logs = ((math.log(a), math.log(b)) for a, b in zip(before, after))
    return Preset(*(math.exp(a + share * (b - a)) for a, b in logs))


def _to_multiple(number: float, of: int) -> int:
    """Round to a multiple, at least one."""
    return max(1, round(number / of)) * of


def default_average(steps: int) -> float:
    """The decay of an average over about the last tenth of a run; 0, no average, for a very short one."""
    return min(max(0.0, round(1.0 - 1.0 / (AVERAGED * steps), 4)), 0.9999)


def resolve(settings: Settings, mode: str, targets: int, batches: Callable[[int, int], int]) -> Hyperparameters:
    """The plan for a text of so many targets; `batches(batch, length)` counts the batches of one pass."""
    preset = preset_for(targets)
    batch = settings.batch or round(preset.batch_lines if mode == "lines" else preset.batch_stream)
    length = settings.length or (256 if mode == "lines" else 64)
    steps = settings.steps or _to_multiple(preset.steps, 100)
    if settings.epochs:
        steps = check_number(
            f"--epochs {settings.epochs:g} makes steps", COUNT, math.ceil(settings.epochs * batches(batch, length))
        )
    cell = CELLS[settings.cell] if isinstance(settings.cell, str) else settings.cell
    default_dropout: float = getattr(cell, "DROPOUT", round(preset.dropout, 2))
    optimizer = OPTIMIZERS[settings.optimizer]
    default_decay = round(preset.weight_decay, 2) if "weight_decay" in optimizer.options else 0.0
    evaluate_every = settings.evaluate_every or max(1, steps // EVALUATIONS)
    return Hyperparameters(
        hidden=settings.hidden or _to_multiple(preset.hidden, 16),
        dropout=default_dropout if settings.dropout is None else settings.dropout,
        batch=batch,
        length=length,
        steps=steps,
        learning_rate=settings.learning_rate or optimizer.learning_rate or round(preset.learning_rate, 4),
        weight_decay=default_decay if settings.weight_decay is None else settings.weight_decay,
        parametrization=settings.parametrization or ("mup" if "groups" in optimizer.options else "standard"),
        average=default_average(steps) if settings.average is None else settings.average,
        evaluate_every=evaluate_every,
        checkpoint_every=settings.checkpoint_every or evaluate_every,
    )
