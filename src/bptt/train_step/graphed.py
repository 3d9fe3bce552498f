"""Updates as CUDA graphs: captured once for each shape of batch and replayed from then on, several at a time.

To launch the operations of a small update one by one takes longer than the GPU takes to run them. A captured update works on
arrays that stay in place: the parameters and the optimizer's state, and a table with a row for each of the next updates.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bptt.acceleration import GraphCache
from bptt.backend import Array, HostArray
from bptt.data import graph_inputs
from bptt.data.batches import Window
from bptt.data.dataset import Position, max_columns
from bptt.dispatch import Action
from bptt.nn import gradient
from bptt.train_step.optimizer_step import apply_optimizer, learning_rate_at
from bptt.train_step.state import StepMetrics, TrainState, TrainTask
from bptt.train_step.update import host_dropout_masks

ROUND_STEPS_TO = 8  # steps: a batch whose columns all end is padded to a multiple of this, so that fewer graphs are captured

BatchStep = tuple[Position, Window]  # the window of an update, and the position of the window after it


class GraphKey(NamedTuple):
    """What is the same in all updates that share a graph."""

    steps: int  # T
    width: int  # B
    start: bool  # from the initial state
    full: bool  # without padding


class StepInputs(NamedTuple):
    """The inputs and metrics of up to K updates on the device, a row each."""

    row: Array  # (1,) int64: the row of the next update
    columns: Array  # (K, 2, B) int64: of the windows, as wide as the widest
    learning_rates: Array  # (K,)
    keep: Array  # (K, L, B, H): the dropout masks; L is 0 without dropout
    metrics: Array  # (K, 2): loss and gradient norm


class HostInputs(NamedTuple):
    """The inputs of n updates on the host."""

    step: int  # updates before them
    columns: HostArray  # (n, 2, B)
    learning_rates: HostArray  # (n,)
    keep: HostArray  # (n, L, B, H)


@dataclass
class GraphRunner:
    """The captured updates by their key, and the arrays that they work on."""

    task: TrainTask
    graphs: GraphCache
    inputs: StepInputs
    params_vector: Array  # (P,); this and the next three as in TrainState
    opt_state: Any
    average: Array | None
    finite: Array
    synced: TrainState  # what these arrays hold: the last state that was copied to or from them
    states: dict[int, Array] = field(
        default_factory=dict
    )  # (L, S, B, H) by B: from which the next batch of B columns continues
    prepared: HostInputs | None = None  # the last result of `prepare`


def make_runner(task: TrainTask, state: TrainState, max_updates: int, record: Callable[[Action], Action]) -> GraphRunner:
    """A runner of up to `max_updates` updates at a time; `record` is an `acceleration.graph_recorder`."""
    xp, put, config, K = task.backend.xp, task.backend.put, task.config, max_updates
    width, layers = max_columns(task.data, task.plan.batch, task.plan.length), config.layers if task.plan.dropout else 0
    inputs = StepInputs(
        row=put(np.zeros(1, np.int64)),
        columns=put(np.zeros((K, 2, width), np.int64)),
        learning_rates=put(np.zeros(K)),
        keep=put(np.zeros((K, layers, width, config.hidden))),
        metrics=put(np.zeros((K, 2))),
    )
    params_vector, finite, *arrays = (
        xp.asarray(array, copy=True) for array in (state.params_vector, state.finite, *state.opt_state)
    )
    opt_state = type(state.opt_state)(*arrays)
    average = None if state.average is None else xp.asarray(state.average, copy=True)
    synced = state._replace(states=None)
    return GraphRunner(task, GraphCache(record), inputs, params_vector, opt_state, average, finite, synced)


def run(
    runner: GraphRunner, state: TrainState, group: list[BatchStep]
) -> tuple[TrainState, list[StepMetrics], BaseException | None]:
    """The state after a group of updates, their metrics, and the exception that ended them, if one did.

    The arrays in the result are copies: no later update changes them.
    """
    # 1. Write the inputs and replay the updates
    count, error = 0, None
    try:
        inputs = prepare(runner, state.step, group)
        _write_inputs(runner, state, group, inputs)
        for _, window in group:
            key = graph_key(window)
            runner.graphs.run(key, partial(_make_update, runner, key))
            count += 1
    except BaseException as problem:  # the updates before it are kept
        error = problem
    if not count:
        return state, [], error

    # 2. Copy the results
    def copy(array: Array) -> Array:
        return runner.task.backend.xp.asarray(array, copy=True)

    done = group[:count]
    states = {width: copy(runner.states[width]) for width in {window.columns.shape[1] for _, window in done}}
    numbers, positions = copy(runner.inputs.metrics), [state.position, *(following for following, _ in done)]
    metrics = []
    for row, (position, (_, window), learning_rate) in enumerate(zip(positions, done, inputs.learning_rates.tolist())):
        # start states are needed after a bad update only, and since then they have not changed
        start = None if window.start else states[window.columns.shape[1]]
        metrics.append(StepMetrics(position, start, numbers[row, 0], numbers[row, 1], learning_rate, window.targets))
    runner.synced = TrainState(
        step=state.step + count,
        position=positions[-1],
        params_vector=copy(runner.params_vector),
        opt_state=type(runner.opt_state)(*map(copy, runner.opt_state)),
        average=None if runner.average is None else copy(runner.average),
        states=states[done[-1][1].columns.shape[1]],
        finite=copy(runner.finite),
    )
    return runner.synced, metrics, error


def graph_key(window: Window) -> GraphKey:
    """The key of the graph for a window; one whose columns all end may get more padding than it needs."""
    starts, ends = window.columns
    steps, width = window.steps, len(starts)
    if steps % ROUND_STEPS_TO and bool((ends - starts <= steps).all()):
        return GraphKey(steps + -steps % ROUND_STEPS_TO, width, window.start, full=False)
    return GraphKey(steps, width, window.start, window.full)


def prepare(runner: GraphRunner, step: int, group: list[BatchStep]) -> HostInputs:
    """The inputs of the updates after `step` others; called early, the host works while the device is busy."""
    prepared = runner.prepared
    if prepared is not None and prepared.step == step and len(prepared.learning_rates) == len(group):
        return prepared
    task, inputs = runner.task, runner.inputs
    columns = np.zeros((len(group), *inputs.columns.shape[1:]), np.int64)
    keep = np.zeros((len(group), *inputs.keep.shape[1:]), task.backend.dtype)
    for row, (_, window) in enumerate(group):
        width = window.columns.shape[1]
        columns[row, :, :width] = window.columns
        for layer, mask in enumerate(host_dropout_masks(task, width, step + row)):
            keep[row, layer, :width] = mask
    learning_rates = np.array([learning_rate_at(task, step + row) for row in range(len(group))])
    runner.prepared = HostInputs(step, columns, learning_rates, keep)
    return runner.prepared


def _write_inputs(runner: GraphRunner, state: TrainState, group: list[BatchStep], host_inputs: HostInputs) -> None:
    """Copy the state, unless the runner's arrays hold it, and the inputs of the updates to the device."""
    task, inputs, put = runner.task, runner.inputs, runner.task.backend.put
    if state.params_vector is not runner.synced.params_vector:
        targets = runner.params_vector, runner.finite, *runner.opt_state
        for target, source in zip(targets, (state.params_vector, state.finite, *state.opt_state)):
            target[...] = source
        if runner.average is not None:
            runner.average[...] = state.average
    for width in {window.columns.shape[1] for _, window in group} - runner.states.keys():
        fields = len(task.config.definition.State._fields)
        runner.states[width] = put(np.zeros((task.config.layers, fields, width, task.config.hidden)))
    if state.states is not None and state.states is not runner.synced.states and not group[0][1].start:
        runner.states[state.states.shape[2]][...] = state.states
    inputs.columns[: len(group), ...] = put(host_inputs.columns)
    inputs.learning_rates[: len(group)] = put(host_inputs.learning_rates)
    if host_inputs.keep.size:
        inputs.keep[: len(group), ...] = put(host_inputs.keep)
    inputs.row[...] = put(np.zeros(1, np.int64))


def _make_update(runner: GraphRunner, key: GraphKey) -> Action:
    """The update of a key, on the arrays of the runner."""
    task, inputs, states = runner.task, runner.inputs, runner.states[key.width]
    xp, put, layers = task.backend.xp, task.backend.put, range(inputs.keep.shape[1])
    ramp, ones = put(np.arange(key.steps + 1)[:, None]), put(np.ones((key.steps, key.width)))

    def at_row(array: Array) -> Array:
        return xp.take(array, inputs.row, axis=0)[0, ...]

    def update() -> None:
        # 1. Read the inputs
        x, y, mask = graph_inputs.batch(task.ids, inputs.columns, inputs.row, ramp, ones, key.full)
        learning_rate, keep = at_row(inputs.learning_rates), at_row(inputs.keep) if layers else inputs.keep
        masks = tuple(keep[layer, : key.width, :] for layer in layers)
        start = None if key.start else states

        # 2. Gradient and optimizer
        loss, grad, after = gradient.loss_and_grad(runner.params_vector, task.config, x, y, mask, start, masks, None)
        params_vector, opt_state, average, norm = apply_optimizer(
            task, runner.params_vector, runner.opt_state, runner.average, grad, learning_rate
        )

        # 3. Write the metrics and the new state; after a bad update, parameters, states and average stay those before it
        graph_inputs.finish(runner.finite, loss, norm, inputs.metrics, inputs.row)
        graph_inputs.replace(runner.finite, runner.params_vector, params_vector)
        graph_inputs.replace(runner.finite, states, after)
        if runner.average is not None:
            graph_inputs.replace(runner.finite, runner.average, average)
        for target, source in zip(runner.opt_state, opt_state):
            target[...] = source

    return update
