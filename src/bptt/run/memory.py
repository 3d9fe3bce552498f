"""How much memory a run takes, and how much there is."""

from bptt.nn import model, packing
from bptt.run import environment
from bptt.run.data import HELD_OUT_LINES, HELD_OUT_STREAMS, widest
from bptt.run.evaluation import WINDOW
from bptt.run.training import Task
from bptt.text.sequences import Sequences

# Numbers alive at the worst moment, as tracemalloc counts them: in an update 14 of each parameter (weights, gradient, the
# optimizer's two means, what replaces them), or 7 and, for each step of each sequence, so many for a unit of the first layer
# and so many more for one of each layer, and 4 for a symbol. Measuring holds less, but of larger batches.
UPDATE = {"vanilla": (4.0, 2), "gru": (18.0, 6), "lstm": (15.0, 7)}
FORWARD = {"vanilla": (1.2, 2), "gru": (7.2, 6), "lstm": (9.2, 8)}
# Seen in the peaks of whole runs, which tests/test_memory.py holds against the estimate: so much of what the smaller of the two
# has freed does not serve the larger one, and matplotlib takes so many bytes beside the arrays of a small run.
NOT_REUSED, PLOTTING, SMALL = 0.4, 25e6, 20e6


class OutOfMemory(MemoryError):
    """A run that needs more memory than there is; says how much, and which flag to lower."""


def updating(task: Task) -> float:
    """The floating-point numbers that are alive at the worst moment of an update."""
    data, plan, parameters = task.data, task.plan, packing.count(model.shapes(task.config))
    rows = widest(data, plan.batch, plan.length) * min(plan.length, _longest(data.training))
    return max(14 * parameters, 7 * parameters + rows * _per_row(task.config, UPDATE))


def measuring(task: Task) -> float:
    """The floating-point numbers that are alive at the worst moment of a measurement, besides those of the run."""
    held_out = task.data.held_out
    wide = min(HELD_OUT_LINES, len(held_out)) if task.data.mode == "lines" else HELD_OUT_STREAMS
    rows = wide * min(WINDOW, _longest(held_out)) if held_out else 0
    return 3 * packing.count(model.shapes(task.config)) + rows * _per_row(task.config, FORWARD)


def _per_row(config: model.Config, table: dict[str, tuple[float, int]]) -> float:
    first, each = table[config.cell]
    return (first + each * config.layers) * config.hidden + 4 * config.vocabulary


def _longest(sequences: Sequences) -> int:
    return int(sequences.lengths.max(initial=0))


def needed(task: Task, *, plotting: bool) -> float:
    """Bytes of memory that a run takes at most, what the process holds already included."""
    width = 8 if task.backend.dtype == "float64" else 4
    low, high = sorted([width * updating(task), width * measuring(task)])
    return environment.resident() + max(high + NOT_REUSED * low, PLOTTING * plotting + min(high, SMALL))


def refuse_too_large(task: Task) -> None:
    """Raise OutOfMemory for a run that this machine has no memory for, before the system kills the process for it."""
    if task.backend.name != "cupy" and needed(task, plotting=False) > environment.physical():
        raise OutOfMemory(advice(task))


def advice(task: Task) -> str:
    """What a run needs, what there is, and what to lower."""
    plan, config = task.plan, task.config
    parameters = packing.count(model.shapes(config))
    weights = 14 * parameters > updating(task) / 2
    size = f"--hidden {config.hidden} --layers {config.layers}: {parameters:,} parameters"
    lower = "choose fewer units or layers" if weights else "choose a smaller --batch or --length, or fewer --hidden"
    batch = "" if weights else f" at --batch {plan.batch} --length {plan.length}"
    has = "" if task.backend.name == "cupy" else f", this machine has {environment.physical() / 1e9:,.1f} GB"
    return f"out of memory: {size}{batch} need about {needed(task, plotting=False) / 1e9:,.1f} GB{has}: {lower}"
