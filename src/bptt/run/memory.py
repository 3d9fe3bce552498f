"""How much memory a run takes, and how much there is."""

import numpy as np

from bptt.nn import model, packing, recomputation
from bptt.run import environment
from bptt.run.data import HELD_OUT_LINES, HELD_OUT_STREAMS
from bptt.run.evaluation import WINDOW
from bptt.run.training import Task
from bptt.text import corpus
from bptt.text.sequences import Sequences

# Numbers alive at the worst moment, as tracemalloc counts them: in an update 14 of each parameter (weights, gradient, the
# optimizer's two means, what replaces them), or 7 and, for each step of each sequence, so many for a unit of the first layer
# and so many more for one of each layer, and 4 for a symbol. Measuring holds 4 of each parameter, and of larger batches less.
UPDATE = {"vanilla": (4.0, 2), "gru": (18.0, 6), "lstm": (15.0, 7)}
FORWARD = {"vanilla": (2.2, 1), "gru": (8.2, 5), "lstm": (10.2, 6)}
# Seen in the peaks of whole runs, which tests/test_memory.py holds against the estimate: so much of what the smaller of the two
# has freed is in pieces that do not serve the larger one, and matplotlib takes so many bytes from the first curve on.
NOT_REUSED, PLOTTING = 0.2, 38e6
PADDED = 0.9  # of the longest line in a batch: about the shortest beside it


class OutOfMemory(MemoryError):
    """A run that needs more memory than there is; says how much, and which flag to lower."""


def updating(task: Task) -> float:
    """The floating-point numbers that are alive at the worst moment of an update."""
    plan, parameters = task.plan, packing.count(model.shapes(task.config))
    width, steps = _largest(task.data.mode, task.data.training, plan.batch, plan.length)
    if (every := task.settings.recompute_every) is None:
        return max(14 * parameters, 7 * parameters + width * steps * _per_row(task.config, UPDATE))
    k = recomputation.length(every, steps)
    states = len(model.CELLS[task.config.cell].State._fields) * task.config.layers * task.config.hidden
    column = k * _per_row(task.config, UPDATE) + -(-steps // k) * states + 3 * steps  # and tokens and mask of all steps
    return max(14 * parameters, 9 * parameters + width * column)


def measuring(task: Task) -> float:
    """The floating-point numbers that are alive at the worst moment of a measurement."""
    held_out, mode = task.data.held_out, task.data.mode
    width, steps = _largest(mode, held_out, HELD_OUT_LINES if mode == "lines" else HELD_OUT_STREAMS, WINDOW)
    return 4 * packing.count(model.shapes(task.config)) + width * steps * _per_row(task.config, FORWARD)


def _per_row(config: model.Config, table: dict[str, tuple[float, int]]) -> float:
    first, each = table[config.cell]
    return (first + each * config.layers) * config.hidden + 4 * config.vocabulary


def _largest(mode: corpus.Mode, sequences: Sequences, batch: int, length: int) -> tuple[int, int]:
    """How many sequences and steps the largest batch has, about: lines share one with lines that are nearly as long."""
    if not sequences:
        return 0, 0
    if mode == "stream":
        targets = int(sequences.lengths[0])
        return min(batch, max(1, targets // length)), min(length, targets)
    lengths, counts = np.unique(sequences.lengths, return_counts=True)
    upto = np.concatenate([[0], np.cumsum(counts)])  # lines that are shorter than each length
    widths = np.minimum(upto[1:] - upto[np.searchsorted(lengths, PADDED * lengths)], batch)
    steps = np.minimum(lengths.astype(np.int64), length)
    largest = np.argmax(widths * steps)
    return int(widths[largest]), int(steps[largest])


def needed(task: Task, *, plotting: bool) -> float:
    """Bytes of memory that a run takes at most, what the process holds already included."""
    width = 8 if task.backend.dtype == "float64" else 4
    low, high = sorted([updating(task), measuring(task)])
    best = packing.count(model.shapes(task.config))  # the weights of the best model so far
    return environment.resident() + PLOTTING * plotting + width * (best + high + NOT_REUSED * low)


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
    lower += "" if weights or task.settings.recompute_every else ", or --recompute-every sqrt"
    batch = "" if weights else f" at --batch {plan.batch} --length {plan.length}"
    has = "" if task.backend.name == "cupy" else f", this machine has {environment.physical() / 1e9:,.1f} GB"
    return f"out of memory: {size}{batch} need about {needed(task, plotting=False) / 1e9:,.1f} GB{has}: {lower}"
