"""The updates of a run: from one State to the next, a batch at a time, without a look at the device."""

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
from bptt.distributed import allreduce, process_group, reduction
from bptt.distributed.process_group import ProcessGroup
from bptt.nn import gradient, model, optimizers, segments, tree
from bptt.nn.optimizers import OPTIMIZERS, OptimizerName
from bptt.train_step import microbatches, threads

SYNC_CHECK_EVERY = 256  # updates from one comparison of the parameters of all processes to the next
WARMUP_STEPS = 200  # steps in which the rate rises, or a tenth of a shorter run


class TrainTask(NamedTuple):
    """What stays the same from the first update to the last."""

    config: model.Config
    backend: Backend
    data: Dataset
    settings: Settings
    plan: Hyperparameters
    read: Callable[[Window], Batch]  # of `data`, its held-out part included
    ids: Array | None  # (N,) of `data` on the device, if they fit
    group: ProcessGroup = process_group.SINGLE_PROCESS  # the processes that train together
    all_reduce: Any = None  # an allreduce.AllReduce over them, if there are several


class TrainState(NamedTuple):
    """What the updates to come depend on, besides the task: nothing random is in it, for the seed and the step decide that."""

    step: int  # updates so far
    position: Position  # of the next batch
    theta: Array  # (P,) parameters
    memory: Any  # the state of the optimizer
    states: (
        Array | None
    )  # (L, S, B, H) that the next batch continues from, of all columns or `microbatches.rank_states`; None before the first
    alive: Array  # (): False once a loss or a gradient was not finite; from there on theta stays as it is


class StepMetrics(NamedTuple):
    """What an update was like."""

    before: Position  # of its batch
    states: Array | None  # (L, S, B, H) that its batch went on from
    loss: Array  # (), nats per character
    norm: Array  # (): of the gradient, before it was clipped
    rate: float
    targets: int


def initial_state(params: model.Params, optimizer: OptimizerName) -> TrainState:
    """The state before the first update."""
    theta = tree.ravel(params)
    xp, opt_state = namespace(theta), OPTIMIZERS[optimizer].init(theta)
    return TrainState(0, Position(0, 0), theta, opt_state, None, xp.all(xp.isfinite(theta)))


def update(
    task: TrainTask, state: TrainState, window: Window, after: Position, executor: Executor | None = None
) -> tuple[TrainState, StepMetrics]:
    """One update by a window, and the position of the window after it; by the threads of an executor, if there is one."""
    loss, d, states = _gradient(task, state.theta, window, state.states, state.step, executor)
    rate = learning_rate_at(task, state.step)
    theta, memory, norm = apply_optimizer(task.settings, state.theta, state.memory, d, rate)
    xp = namespace(theta)
    alive = state.alive & xp.isfinite(loss) & xp.isfinite(norm)
    if not task.backend.is_host or not alive:  # on a host a look costs less than a copy of all parameters
        theta = xp.where(alive, theta, state.theta)
    trace = StepMetrics(state.position, state.states, loss, norm, rate, window.targets)
    return TrainState(state.step + 1, after, theta, memory, states, alive), trace


def apply_optimizer(settings: Settings, theta: Array, memory: Any, d: Array, rate: Array | float) -> tuple[Array, Any, Array]:
    """What the optimizer makes of parameters (P,) and their gradient, what it remembers, and the norm of the gradient."""
    d, norm = clip(settings, d)
    return *OPTIMIZERS[settings.optimizer].update(theta, d, memory, rate), norm


def clip(settings: Settings, d: Array) -> tuple[Array, Array]:
    """The gradient as the optimizer gets it, and its norm before."""
    return optimizers.clip_by_norm(d, settings.clip_norm) if settings.clip_norm else (d, optimizers.norm(d))


def learning_rate_at(task: TrainTask, step: int) -> float:
    """The learning rate of an update, counted from 0."""
    steps = task.plan.steps
    return optimizers.warmup_cosine(step, task.plan.learning_rate, warmup=min(WARMUP_STEPS, steps // 10), total=steps)


def first_nonfinite(task: TrainTask, theta: Array, step: int, before: Position, states: Array | None) -> str:
    """The first tensor that is not finite in the update after `step` others, in the order in which they are computed.

    Every process that trains with this one has to call it.
    """
    params = tree.unravel(theta, model.shapes(task.config))
    _, window = next(epochs(task.data, task.plan.batch, task.plan.length, task.settings.seed, before))
    loss, d, _ = _gradient(task, theta, window, states, step)
    tensors = itertools.chain(
        ((f"the weights {name}", array) for name, array in tree.named_leaves(params)),
        _forward(task, params, window, microbatches.gather_states(states, task.group, task.backend), step),
        [("the loss", loss)],
        ((f"the gradient of {name}", array) for name, array in tree.named_leaves(tree.unravel(d, model.shapes(task.config)))),
    )
    bad = (name for name, array in tensors if not np.isfinite(task.backend.get(array)).all())
    first = next(bad, "the norm of the gradient") if task.group.rank == 0 else ""  # where the states of all columns are
    return process_group.broadcast(task.group, first)


def to_host(task: TrainTask, state: TrainState) -> dict[str, HostArray]:
    """By name the state of the optimizer and the states that the next batch goes on from.

    The format of a checkpoint has t, m and v of every optimizer: zeros for what it has not.
    """
    get = task.backend.get
    theta = get(state.theta)
    zeros = {"t": np.zeros((), theta.dtype), "m": np.zeros_like(theta), "v": np.zeros_like(theta)}
    arrays = {**zeros, **{name: get(array) for name, array in state.memory._asdict().items()}}
    if state.states is not None:
        arrays |= {
            f"states.{name}": array
            for name, array in tree.named_leaves(gradient.unstack_states(task.config, get(state.states)))
        }
    return arrays


def from_host(task: TrainTask, theta: Array, memory: dict[str, HostArray], step: int, position: Position) -> TrainState:
    """The state of theta (P,) and what `to_host` gave."""
    put, cell = task.backend.put, model.CELLS[task.config.cell]
    states = None
    if memory.keys() > {"t", "m", "v"}:
        rows = [[memory[f"states.{layer}.{field}"] for field in cell.State._fields] for layer in range(task.config.layers)]
        states = put(np.array(rows))
    xp = namespace(theta)
    state = OPTIMIZERS[task.settings.optimizer].init(theta)
    opt_state = state._make(put(memory[field]) for field in state._fields)
    return TrainState(step, position, theta, opt_state, states, xp.all(xp.isfinite(theta)))


def _gradient(
    task: TrainTask,
    theta: Array,
    window: Window,
    states: Array | None,
    step: int,
    executor: Executor | None = None,
) -> tuple[Array, Array, Array]:
    """Loss, gradient and states after an update; what it takes together with other processes, all of them have to call.

    The states before and after are those of the columns of this process.
    """
    width, put = window.columns.shape[1], task.backend.put
    start, masks = None if window.start else states, host_dropout_masks(task, width, step)
    group, number = task.group, task.settings.micro_batches
    if number == 1:
        return _of_batch(task, theta, task.read(window), start, tuple(map(put, masks)), None, executor)
    if group.size > 1 and step % SYNC_CHECK_EVERY == 0:
        process_group.assert_in_sync(group, task.backend.get(theta))
    count, every = put(np.array(float(window.targets))), {one.number: one for one in microbatches.split(window, number)}
    ends = []

    def share(which: int) -> tuple[Array, Array] | None:
        if which not in every:
            return None
        own, columns, _ = every[which]
        here = columns // group.size  # where they are among those of this process
        begun = None if start is None else microbatches.take_columns(start, here, task.backend)
        keep = tuple(put(mask[columns]) for mask in masks)
        loss, d, after = _of_batch(task, theta, task.read(own), begun, keep, count, executor)
        ends.append((here, after))
        return loss, d

    found: Any = reduction.pairwise_sum(share, number, group.rank, group.size if group.size > 1 else None, min(number, width))
    if group.size > 1:
        present = sorted({which % group.size for which in every})
        vector = allreduce.all_reduce(task.all_reduce, found[::-1] if found else (), present)
        loss = namespace(vector).asarray(vector[-1, ...], copy=True)  # which is kept for longer than the gradient
        found = loss, vector[:-1]
    fields, columns = len(model.CELLS[task.config.cell].State._fields), len(range(group.rank, width, group.size))
    return *found, microbatches.merge_states(ends, (task.config.layers, fields, columns, task.config.hidden), task.backend)


def _of_batch(
    task: TrainTask,
    theta: Array,
    batch: Batch,
    start: Array | None,
    keep: tuple[Array, ...],
    count: Array | None,
    executor: Executor | None,
) -> tuple[Array, Array, Array]:
    """Loss, gradient and states of a batch; of its share of `count` targets, where these are more."""
    given = theta, task.config, batch.x, batch.y, batch.mask, start, keep, count
    every = task.settings.recompute_every
    if task.backend.is_host:
        return threads.loss_and_grad(executor, *given, batch.window.lengths, every)
    on_gpu = task.backend.is_gpu  # where one column takes as long as many do
    lengths = None if on_gpu else batch.window.lengths.tolist()
    return segments.loss_and_grad(*given, lengths=lengths, every=every)


def _forward(
    task: TrainTask, params: model.Params, window: Window, states: Array | None, step: int
) -> Iterator[tuple[str, Array]]:
    """The states and the logits of an update, of as many columns and steps at a time as may be in memory."""
    start, masks = None if window.start else states, host_dropout_masks(task, window.columns.shape[1], step)
    for share, columns, _ in microbatches.split(window, task.settings.micro_batches):
        batch, T, every = task.read(share), share.steps, task.settings.recompute_every
        after = (
            None
            if start is None
            else gradient.unstack_states(task.config, microbatches.take_columns(start, columns, task.backend))
        )
        keep, k = (
            tuple(task.backend.put(mask[columns]) for mask in masks),
            T if every is None else segments.segment_length(every, T),
        )
        for t in range(0, T, k):
            logits, after, cache = model.forward(task.config, params, batch.x[t : min(t + k, T), ...], after, keep)
            yield from ((f"the states of layer {layer}", layer_cache.a) for layer, layer_cache in enumerate(cache.layers))
            yield "the logits", logits


def dropout_masks(task: TrainTask, columns: int, step: int) -> tuple[Array, ...]:
    """The masks of an update of so many columns; they depend on the seed and the step alone."""
    return tuple(task.backend.put(mask) for mask in host_dropout_masks(task, columns, step))


def host_dropout_masks(task: TrainTask, columns: int, step: int) -> tuple[HostArray, ...]:
    """The same on the host."""
    if not task.plan.dropout:
        return ()
    return model.dropout_masks(task.config, make_rng(task.settings.seed, 3, step), task.plan.dropout, columns)
