"""One update of the parameters: the gradient of a batch, clipping and the optimizer, without waiting for the device.

The gradient comes from the whole batch at once, from micro-batches one after the other (gradient accumulation), or from several
processes, each with its own columns of every batch (data parallel training).
"""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import Any, NamedTuple

import numpy as np

from bptt.backend import Array, Backend, HostArray, namespace
from bptt.config.defaults import Hyperparameters
from bptt.config.settings import Settings
from bptt.data.batches import Batch, Window
from bptt.data.dataset import Dataset, Position, epochs, make_rng
from bptt.distributed import reduction
from bptt.distributed.allreduce import AllReduce
from bptt.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from bptt.nn import gradient, model, optimizers, segments, tree
from bptt.nn.optimizers import OPTIMIZERS, OptimizerName
from bptt.train_step import microbatches, threads
from bptt.train_step.microbatches import MicroBatch

SYNC_CHECK_EVERY = 256  # updates from one comparison of the parameters of all processes to the next
WARMUP_STEPS = 200  # steps of learning-rate warm-up; a tenth of a run of fewer than 2,000 steps


class TrainTask(NamedTuple):
    """What stays the same from the first update to the last."""

    config: model.Config
    backend: Backend
    data: Dataset
    settings: Settings
    plan: Hyperparameters
    read: Callable[[Window], Batch]  # of `data`, its held-out part included
    ids: Array | None  # (N,) of `data` on the device, if they fit
    group: ProcessGroup = SINGLE_PROCESS
    all_reduce: AllReduce | None = None  # over the group; None for a single process


class TrainState(NamedTuple):
    """What the next updates depend on besides the task; random numbers depend on the seed and the step alone."""

    step: int  # updates so far
    position: Position  # of the next batch
    params_vector: Array  # (P,)
    opt_state: Any  # the state of the optimizer
    # (L, S, B, H): from which the next batch continues; of all columns, or inside `run_updates` of this process's columns
    # (`microbatches.rank_states`); None before the first batch
    states: Array | None
    finite: Array  # (): False once a loss or a gradient was not finite; the parameters stay as they are from then on


class StepMetrics(NamedTuple):
    """The numbers of an update; loss and norm are read from the device later."""

    position: Position  # of its batch
    start_states: Array | None  # (L, S, B, H) that its batch continued from
    loss: Array  # (), nats per character
    grad_norm: Array  # (): before clipping
    learning_rate: float
    targets: int


def initial_state(params: model.Params, optimizer: OptimizerName) -> TrainState:
    """The state before the first update."""
    params_vector = tree.ravel(params)
    xp, opt_state = namespace(params_vector), OPTIMIZERS[optimizer].init(params_vector)
    return TrainState(0, Position(0, 0), params_vector, opt_state, None, xp.all(xp.isfinite(params_vector)))


def update(
    task: TrainTask, state: TrainState, window: Window, following: Position, executor: Executor | None = None
) -> tuple[TrainState, StepMetrics]:
    """One update by a window, given the position of the window after it; by the threads of an executor, if there is one."""
    loss, grad, states = loss_and_grad(task, state.params_vector, window, state.states, state.step, executor)
    learning_rate = learning_rate_at(task, state.step)
    params_vector, opt_state, norm = apply_optimizer(task.settings, state.params_vector, state.opt_state, grad, learning_rate)
    xp = namespace(params_vector)
    finite = state.finite & xp.isfinite(loss) & xp.isfinite(norm)
    if not task.backend.is_host or not finite:  # on the host a look is cheaper than a copy of all parameters
        params_vector = xp.where(finite, params_vector, state.params_vector)
    metrics = StepMetrics(state.position, state.states, loss, norm, learning_rate, window.targets)
    return TrainState(state.step + 1, following, params_vector, opt_state, states, finite), metrics


def apply_optimizer(
    settings: Settings, params_vector: Array, opt_state: Any, grad: Array, learning_rate: Array | float
) -> tuple[Array, Any, Array]:
    """The parameters (P,) and the optimizer's state after an update, and the norm of the gradient before clipping."""
    grad, norm = clip(settings, grad)
    return *OPTIMIZERS[settings.optimizer].update(params_vector, grad, opt_state, learning_rate), norm


def clip(settings: Settings, grad: Array) -> tuple[Array, Array]:
    """The gradient after clipping by norm, if the settings ask for it, and its norm before."""
    return optimizers.clip_by_norm(grad, settings.clip_norm) if settings.clip_norm else (grad, optimizers.norm(grad))


def learning_rate_at(task: TrainTask, step: int) -> float:
    """The learning-rate schedule: linear warm-up, then a half cosine; `step` counts updates from 0."""
    steps = task.plan.steps
    return optimizers.warmup_cosine(step, task.plan.learning_rate, warmup=min(WARMUP_STEPS, steps // 10), total_steps=steps)


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


def to_host(task: TrainTask, state: TrainState) -> dict[str, HostArray]:
    """The arrays that a checkpoint holds besides the weights, by name: the optimizer's state and the carried states.

    The format has t, m and v for every optimizer: zeros for those that the optimizer does not have.
    """
    get = task.backend.get
    params_vector = get(state.params_vector)
    zeros = {"t": np.zeros((), params_vector.dtype), "m": np.zeros_like(params_vector), "v": np.zeros_like(params_vector)}
    arrays = {**zeros, **{name: get(array) for name, array in state.opt_state._asdict().items()}}
    if state.states is not None:
        states = gradient.unstack_states(task.config, get(state.states))
        arrays |= {f"states.{name}": array for name, array in tree.named_leaves(states)}
    return arrays


def from_host(task: TrainTask, params_vector: Array, arrays: dict[str, HostArray], step: int, position: Position) -> TrainState:
    """The state with these parameters (P,) and the arrays that `to_host` gave."""
    put, cell = task.backend.put, task.config.definition
    states = None
    if arrays.keys() > {"t", "m", "v"}:
        rows = [[arrays[f"states.{layer}.{field}"] for field in cell.State._fields] for layer in range(task.config.layers)]
        states = put(np.array(rows))
    xp = namespace(params_vector)
    initial = OPTIMIZERS[task.settings.optimizer].init(params_vector)
    opt_state = initial._make(put(arrays[field]) for field in initial._fields)
    return TrainState(step, position, params_vector, opt_state, states, xp.all(xp.isfinite(params_vector)))
