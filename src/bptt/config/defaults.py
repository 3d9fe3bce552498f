"""Default hyperparameters by the size of the text: hidden size, dropout, batch size, steps, learning rate."""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

from bptt.config.rules import COUNT, MAX_COUNT, check_number
from bptt.config.settings import Settings
from bptt.errors import option
from bptt.nn.cells import CELLS
from bptt.nn.optimizers import OPTIMIZERS
from bptt.nn.parametrization import Parametrization

AVERAGED = 0.1  # part of a run that the average of the weights is about as long as
EVALUATIONS = 10  # of the held-out part, in a run
TEMPERATURE = 0.8  # of texts that are generated: previews of a run, `bptt sample`, `model.sample`, the web page

# how units and steps follow from a time to train for, see `budget_hidden` and `budget_steps`
GROWTH = 0.25  # power of the time that the units grow with: more time goes into steps as well as into units
MOST_TIME = 16.0  # times that of the preset, however long the budget is: a longer run would only overfit
MIN_BUDGET_HIDDEN, MAX_BUDGET_HIDDEN = 32, 2048
BUDGET_STEPS_MULTIPLE = 10


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
    dropout: float  # of gru and lstm with these units; in proportion for more or fewer
    batch: float
    steps: float
    learning_rate: float  # of adam
    weight_decay: float


# short texts want noise and a pull towards zero: small batches, dropout, weight decay (bench/what_helps.py measures the parts)
PRESETS = {
    "lines": (
        Preset(2_000, 96, 0.5, 8, 1000, 8e-3, 1.0),
        Preset(20_000, 160, 0.4, 8, 1800, 4e-3, 0.5),
        Preset(200_000, 256, 0.2, 128, 4000, 5e-3, 0.3),
        Preset(1_000_000, 320, 0.2, 128, 5000, 6e-3, 0.1),
    ),
    "stream": (
        Preset(2_000, 64, 0.5, 8, 500, 8e-3, 1.0),
        Preset(20_000, 160, 0.4, 8, 700, 4e-3, 1.2),
        Preset(200_000, 256, 0.25, 16, 2000, 5e-3, 0.4),
        Preset(1_000_000, 320, 0.2, 16, 5000, 6e-3, 0.1),
    ),
}
MAX_DROPOUT = 0.5  # by default


def preset_for(mode: str, targets: int) -> Preset:
    """What suits a text of so many characters, on straight lines through `PRESETS` over the logarithm of the characters."""
    presets = PRESETS[mode]
    clamped = min(max(targets, presets[0].targets), presets[-1].targets)
    before, after = next((pair for pair in itertools.pairwise(presets) if clamped <= pair[1].targets), presets[-2:])
    share = math.log(clamped / before.targets) / math.log(after.targets / before.targets)
    logs = ((math.log(a), math.log(b)) for a, b in zip(before, after))
    return Preset(*(math.exp(a + share * (b - a)) for a, b in logs))


def _to_multiple(number: float, of: int) -> int:
    """Round to a multiple, at least one."""
    return max(1, round(number / of)) * of


class RunCost(NamedTuple):
    """What a run of one size takes on a machine, in seconds."""

    update: float
    evaluation: float = 0.0  # and all that comes with one: texts, a checkpoint, a picture

    def seconds(self, steps: int, evaluate_every: int | None = None) -> float:
        """What so many steps take with their evaluations, by default ten."""
        return steps * self.update + -(-steps // (evaluate_every or max(1, steps // EVALUATIONS))) * self.evaluation


def budget_hidden(hidden: int, preset_seconds: float, seconds: float) -> int:
    """The units of a run that may take so many seconds, where the preset of the text has `hidden` and takes `preset_seconds`.

    The units are those of the preset, times the `GROWTH`-th power of how many times the preset would fit into the time.
    """
    fitting = min(seconds / preset_seconds, MOST_TIME)
    return min(max(_to_multiple(hidden * fitting**GROWTH, 16), MIN_BUDGET_HIDDEN), MAX_BUDGET_HIDDEN)


def budget_steps(cost: RunCost, preset_seconds: float, seconds: float, evaluate_every: int | None = None) -> int:
    """The steps of a run that may take so many seconds: as many as fit, but no more than `MOST_TIME` times the preset takes."""
    usable = min(seconds, MOST_TIME * preset_seconds)
    if evaluate_every:
        periods, rest = divmod(usable, evaluate_every * cost.update + cost.evaluation)
        steps = periods * evaluate_every + max(0.0, rest - cost.evaluation) / cost.update
    else:
        steps = (usable - EVALUATIONS * cost.evaluation) / cost.update
    multiples = math.floor(min(max(steps, 0.0), MAX_COUNT) / BUDGET_STEPS_MULTIPLE)
    return max(1, multiples) * BUDGET_STEPS_MULTIPLE


def default_average(steps: int) -> float:
    """The decay of an average over about the last tenth of a run; 0, no average, for a very short one."""
    return min(max(0.0, round(1.0 - 1.0 / (AVERAGED * steps), 4)), 0.9999)


def resolve(settings: Settings, mode: str, targets: int, batches: Callable[[int, int], int]) -> Hyperparameters:
    """The plan for a text of so many targets; `batches(batch, length)` counts the batches of one pass."""
    preset = preset_for("lines" if mode == "lines" else "stream", targets)
    hidden = settings.hidden or _to_multiple(preset.hidden, 16)
    batch = settings.batch or round(preset.batch)
    length = settings.length or (256 if mode == "lines" else 64)
    steps = settings.steps or _to_multiple(preset.steps, 100)
    if settings.epochs:
        steps = check_number(
            f"{option('epochs', settings.epochs)} makes steps", COUNT, math.ceil(settings.epochs * batches(batch, length))
        )
    cell = CELLS[settings.cell] if isinstance(settings.cell, str) else settings.cell
    dropout = min(MAX_DROPOUT, round(preset.dropout * hidden / preset.hidden, 2))
    default_dropout: float = getattr(cell, "DROPOUT", dropout)
    optimizer = OPTIMIZERS[settings.optimizer]
    default_decay = round(preset.weight_decay, 2) if "weight_decay" in optimizer.options else 0.0
    evaluate_every = settings.evaluate_every or max(1, steps // EVALUATIONS)
    return Hyperparameters(
        hidden=hidden,
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
