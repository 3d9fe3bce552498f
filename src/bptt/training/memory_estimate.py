"""How much memory a run takes, and how much there is."""

import dataclasses
import itertools

import numpy as np

from bptt import system
from bptt.data.batches import Window
from bptt.data.dataset import epochs
from bptt.distributed.process_group import SINGLE_PROCESS
from bptt.errors import OutOfMemory, option
from bptt.nn import cells, model, segments, tree
from bptt.train_step import microbatches, threads
from bptt.train_step.state import TrainTask
from bptt.training import validation

# Numbers alive at the worst moment, as tracemalloc counts them: in an update 15 of each parameter (weights, gradient, the
# optimizer's two means, what replaces them), or 7 and, for each step of each sequence, the MEMORY of the cell (nn/cells.py)
# and 4 for a symbol. Measuring holds 4 of each parameter, and of larger batches less.
# Seen in the peaks of whole runs, which tests/test_memory_estimate.py compares with the estimate: this share of what the
# smaller of the two has freed does not serve the larger one, and matplotlib takes this many bytes from the first curve on.
NOT_REUSED, PLOTTING = 0.2, 38e6
SAMPLED_BATCHES = 10  # batches: nearly as large as the largest is one of so many


def update_numbers(task: TrainTask) -> float:
    """The floating-point numbers that are alive at the worst moment of an update, as the first batches tell."""
    parameters = tree.num_elements(model.shapes(task.config))
    first = itertools.islice(epochs(task.data, task.plan.batch, task.plan.length, task.settings.seed), SAMPLED_BATCHES)
    workers = max(1, threads.workers() // task.group.local_size) if task.backend.is_host else 1
    return _buffers(task) + max(15 * parameters, *(_in_update(task, window, parameters, workers) for _, window in first))


def evaluation_numbers(task: TrainTask) -> float:
    """The floating-point numbers that are alive at the worst moment of a measurement: its first batch is the largest one."""
    first = next(validation.windows(task, 0), None) if task.data.validation else None
    area = first.steps * first.columns.shape[1] if first else 0
    return _buffers(task) + 4 * tree.num_elements(model.shapes(task.config)) + area * _per_step(task.config, backward=False)


def _buffers(task: TrainTask) -> int:
    """Return how many numbers the buffers of `allreduce.AllReduce` hold, and the average of the parameters and the next one."""
    arrays = 3 * (task.group.size > 1) + 2 * (task.plan.average > 0)
    return arrays * tree.num_elements(model.shapes(task.config))


def _in_update(task: TrainTask, window: Window, parameters: int, workers: int) -> float:
    batch_arrays: int = 3 * window.steps * window.columns.shape[1]  # tokens and mask
    count = task.settings.micro_batches
    if count > 1:
        alone = task._replace(settings=dataclasses.replace(task.settings, micro_batches=1), group=SINGLE_PROCESS)
        each: list[float] = [_in_update(alone, part, parameters, workers) for part, _, _ in microbatches.split(window, count)]
        halves = len(each).bit_length() * parameters  # their sums wait for others
        exchanged = 2 * parameters * (task.group.size > 1)  # what a process adds up, and the sum
        width: int = window.columns.shape[1]
        gathered = 3 * width * _states(task.config) * (task.group.size > 1)  # when no update is computed
        return max(gathered, *each) + halves + exchanged + batch_arrays
    steps = window.lengths
    if task.backend.is_gpu:  # all columns are computed to the end
        steps = np.full_like(steps, window.steps)
    columns = threads.split_columns(task.config, steps) if task.backend.is_host else [slice(None)]
    blocks = sorted((_in_columns(task, steps[part].tolist(), window.steps, parameters) for part in columns), reverse=True)
    gradients = (2 if len(blocks) == 1 else 4) * parameters  # what is added, and the sum
    return 5 * parameters + gradients + sum(blocks[:workers]) + batch_arrays


def _in_columns(task: TrainTask, steps: list[int], T: int, parameters: int) -> float:
    """Return how many numbers the gradient of some columns takes at its peak; `steps` has the length of each column."""
    config, recompute_every = task.config, task.settings.recompute_every
    split_segments = segments.split(
        config, steps, T if recompute_every is None else segments.segment_length(recompute_every, T)
    )
    areas = [(segment.end - segment.first) * segment.width for segment in split_segments]
    states = _states(config) * sum(segment.width for segment in split_segments)
    gradients = parameters * (len(split_segments) > 1)  # the sum
    return gradients + states + (sum(areas) if recompute_every is None else max(areas)) * _per_step(config, backward=True)


def _states(config: model.Config) -> int:
    """Numbers in the states of a column."""
    return config.layers * config.hidden * len(config.definition.State._fields)


def _per_step(config: model.Config, *, backward: bool) -> float:
    """Numbers alive for each step of a column in an update, or in a forward pass alone."""
    update, forward = cells.memory(config.definition)
    first, each = update if backward else forward
    return (first + each * config.layers) * config.hidden + 4 * config.vocabulary


def needed_bytes(task: TrainTask, *, plotting: bool) -> float:
    """Bytes of memory that a run takes at most, what the process holds already included."""
    width = 8 if task.backend.dtype == "float64" else 4
    low, high = sorted([update_numbers(task), evaluation_numbers(task)])
    best = tree.num_elements(model.shapes(task.config))  # the weights of the best model so far
    return system.resident_memory() + PLOTTING * plotting + width * (best + high + NOT_REUSED * low)


def refuse_too_large(task: TrainTask) -> None:
    """Raise OutOfMemory for a run that this machine has no memory for, before the system kills the process for it."""
    if not task.backend.is_gpu and task.group.local_size * needed_bytes(task, plotting=False) > system.physical_memory():
        raise OutOfMemory(out_of_memory_message(task))


def out_of_memory_message(task: TrainTask) -> str:
    """What a run needs, what there is, and what to lower."""
    plan, config = task.plan, task.config
    parameters = tree.num_elements(model.shapes(config))
    weights = 15 * parameters > update_numbers(task) / 2
    size = f"{option('hidden', config.hidden)}, {option('layers', config.layers)}: {parameters:,} parameters"
    lower = "choose fewer units or layers" if weights else "choose a smaller batch or length, or fewer units"
    lower += "" if weights or task.settings.recompute_every else f", or {option('recompute_every', 'sqrt')}"
    batch = "" if weights else f" at {option('batch', plan.batch)}, {option('length', plan.length)}"
    has = "" if task.backend.is_gpu else f", this machine has {system.physical_memory() / 1e9:,.1f} GB"
    each = f" in each of {task.group.local_size} processes" if task.group.local_size > 1 else ""
    return f"out of memory: {size}{batch} need about {needed_bytes(task, plotting=False) / 1e9:,.1f} GB{each}{has}: {lower}"
