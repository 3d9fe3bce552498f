"""One update of the parameters: the gradient of a batch, clipping and the optimizer, without waiting for the device.

The gradient comes from the whole batch at once, from micro-batches one after the other (gradient accumulation), or from several
processes, each with its own columns of every batch (data parallel training).
"""

import itertools
from collections.abc import Iterator
from concurrent.futures import Executor

import numpy as np

from bptt.backend import Array, HostArray, namespace
from bptt.data.batches import Batch, Window
from bptt.data.dataset import Position, epochs, make_rng
from bptt.distributed import reduction
from bptt.distributed.allreduce import AllReduce
from bptt.nn import gradient, model, segments, tree
from bptt.train_step import microbatches, threads
from bptt.train_step.microbatches import MicroBatch
from bptt.train_step.optimizer_step import apply_optimizer, learning_rate_at
from bptt.train_step.state import StepMetrics, TrainState, TrainTask

SYNC_CHECK_EVERY = 256  # updates from one comparison of the parameters of all processes to the next


def update(
    task: TrainTask, state: TrainState, window: Window, following: Position, executor: Executor | None = None
) -> tuple[TrainState, StepMetrics]:
    """One update by a window, given the position of the window after it; by the threads of an executor, if there is one."""
    loss, grad, states = loss_and_grad(task, state.params_vector, window, state.states, state.step, executor)
    learning_rate = learning_rate_at(task, state.step)
    params_vector, opt_state, average, norm = apply_optimizer(
        task, state.params_vector, state.opt_state, state.average, grad, learning_rate
    )
    xp = namespace(params_vector)
    finite = state.finite & xp.isfinite(loss) & xp.isfinite(norm)
    if not task.backend.is_host or not finite:  # on the host a look is cheaper than a copy of all parameters
        params_vector = xp.where(finite, params_vector, state.params_vector)
        average = average if state.average is None else xp.where(finite, average, state.average)
    metrics = StepMetrics(state.position, state.states, loss, norm, learning_rate, window.targets)
    return TrainState(state.step + 1, following, params_vector, opt_state, average, states, finite), metrics


def loss_and_grad(
    task: TrainTask,
    params_vector: Array,
    window: Window,
    states: Array | None,
    step: int,
    executor: Executor | None = None,
) -> tuple[Array, Array, Array]:
    """Loss, gradient and next states of a window; with several processes, all of them call this together.

    The states before and after are those of the columns of this process.
    """
    start = None if window.start else states
    if task.settings.micro_batches == 1:
        keep = dropout_masks(task, window.columns.shape[1], step)
        return _batch_loss_and_grad(task, params_vector, task.read(window), start, keep, None, executor)
    if step % SYNC_CHECK_EVERY == 0:
        task.group.assert_in_sync(params_vector, task.backend)
    micro_batches = {part.number: part for part in microbatches.split(window, task.settings.micro_batches)}
    total, after = _accumulate(task, params_vector, window, micro_batches, start, step, executor)
    if task.all_reduce is None:
        grad, loss = total
    else:
        loss, grad = _all_reduce(task, task.all_reduce, total, micro_batches)
    return loss, grad, after


def _accumulate(
    task: TrainTask,
    params_vector: Array,
    window: Window,
    micro_batches: dict[int, MicroBatch],
    start: Array | None,
    step: int,
    executor: Executor | None,
) -> tuple[tuple[Array, ...], Array]:
    """Gradient accumulation: (gradient, loss) added up over the micro-batches of this process, and its next states.

    Instead of (gradient, loss) it is () in a process whose columns have all ended.
    """
    group, (layers, units), put = task.group, (task.config.layers, task.config.hidden), task.backend.put
    width, masks = window.columns.shape[1], host_dropout_masks(task, window.columns.shape[1], step)
    count = put(np.array(float(window.targets)))
    ends: list[tuple[HostArray, Array]] = []

    def grad_and_loss(number: int) -> tuple[Array, Array] | None:
        if number not in micro_batches:
            return None
        part = micro_batches[number]
        local_columns = part.columns // group.size  # their places among the columns of this process
        part_start = None if start is None else microbatches.take_columns(start, local_columns, task.backend)
        keep = tuple(put(mask[part.columns]) for mask in masks)
        batch = task.read(part.window)
        loss, grad, after = _batch_loss_and_grad(task, params_vector, batch, part_start, keep, count, executor)
        ends.append((local_columns, after))
        return grad, loss

    number = task.settings.micro_batches
    total = reduction.pairwise_sum(grad_and_loss, number, group.rank, group.size, min(number, width)) or ()
    fields, local_width = len(task.config.definition.State._fields), len(range(group.rank, width, group.size))
    return total, microbatches.merge_states(ends, (layers, fields, local_width, units), task.backend)


def _all_reduce(
    task: TrainTask, all_reduce: AllReduce, total: tuple[Array, ...], micro_batches: dict[int, MicroBatch]
) -> tuple[Array, Array]:
    """Data parallel: loss and gradient added up over all processes, to the same bits in each."""
    contributing = sorted({number % task.group.size for number in micro_batches})  # processes whose columns have not all ended
    vector = all_reduce(total, contributing)
    loss = namespace(vector).asarray(vector[-1, ...], copy=True)  # it is kept longer than the gradient
    return loss, vector[:-1]


def _batch_loss_and_grad(
    task: TrainTask,
    params_vector: Array,
    batch: Batch,
    start: Array | None,
    keep: tuple[Array, ...],
    count: Array | None,
    executor: Executor | None,
) -> tuple[Array, Array, Array]:
    """Loss, gradient and next states of a batch; of a micro-batch, its part of the mean over `count` targets."""
    arguments = params_vector, task.config, batch.x, batch.y, batch.mask, start, keep
    recompute = task.settings.recompute_every
    if task.backend.is_host:
        lengths = batch.window.lengths
        return threads.loss_and_grad(*arguments, count=count, lengths=lengths, recompute_every=recompute, executor=executor)
    # on a GPU one column takes as long as many do: none is skipped
    column_lengths = None if task.backend.is_gpu else batch.window.lengths.tolist()
    return segments.loss_and_grad(*arguments, count=count, lengths=column_lengths, recompute_every=recompute)


def dropout_masks(task: TrainTask, columns: int, step: int) -> tuple[Array, ...]:
    """The dropout masks of an update of so many columns; they depend on the seed and the step alone."""
    return tuple(task.backend.put(mask) for mask in host_dropout_masks(task, columns, step))


def host_dropout_masks(task: TrainTask, columns: int, step: int) -> tuple[HostArray, ...]:
    """The dropout masks of an update as host arrays."""
    if not task.plan.dropout:
        return ()
    return model.dropout_masks(task.config, make_rng(task.settings.seed, 3, step), task.plan.dropout, columns)


def first_nonfinite(task: TrainTask, params_vector: Array, step: int, position: Position, states: Array | None) -> str:
    """The name of the first tensor that is not finite in the update after `step` others, in the order of computation.

    With several processes, all of them call this together.
    """
    params = tree.unravel(params_vector, model.shapes(task.config))
    _, window = next(epochs(task.data, task.plan.batch, task.plan.length, task.settings.seed, position))
    loss, grad, _ = loss_and_grad(task, params_vector, window, states, step)
    tensors = itertools.chain(
        ((f"the weights {name}", array) for name, array in tree.named_leaves(params)),
        _forward_tensors(task, params, window, microbatches.gather_states(states, task.group, task.backend), step),
        [("the loss", loss)],
        (
            (f"the gradient of {name}", array)
            for name, array in tree.named_leaves(tree.unravel(grad, model.shapes(task.config)))
        ),
    )
    bad = (name for name, array in tensors if not np.isfinite(task.backend.get(array)).all())
    first = next(bad, "the norm of the gradient") if task.group.rank == 0 else ""  # which has the states of all columns
    return task.group.broadcast(first)


def _forward_tensors(
    task: TrainTask, params: model.Params, window: Window, states: Array | None, step: int
) -> Iterator[tuple[str, Array]]:
    """The states and the logits of an update, as many columns and steps at a time as an update holds in memory."""
    start, masks = None if window.start else states, host_dropout_masks(task, window.columns.shape[1], step)
    for part, columns, _ in microbatches.split(window, task.settings.micro_batches):
        batch, T, every, after = task.read(part), part.steps, task.settings.recompute_every, None
        if start is not None:
            after = gradient.unstack_states(task.config, microbatches.take_columns(start, columns, task.backend))
        keep = tuple(task.backend.put(mask[columns]) for mask in masks)
        k = T if every is None else segments.segment_length(every, T)
        for t in range(0, T, k):
            logits, after, cache = model.forward(task.config, params, batch.x[t : min(t + k, T), ...], after, keep)
            yield from ((f"the states of layer {layer}", layer_cache.a) for layer, layer_cache in enumerate(cache.layers))
            yield "the logits", logits
