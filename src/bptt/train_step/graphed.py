"""Updates on a device, recorded once for each shape of batch and repeated from there on, several at a time.

To ask a GPU for the operations of a small update one by one takes longer than it takes the GPU to carry them out. What is
recorded works on arrays that stay where they are: the parameters, and a table of what is different in each of the next updates.
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
from bptt.train_step.update import StepMetrics, TrainState, TrainTask, apply_optimizer, host_dropout_masks, learning_rate_at

ROUND_STEPS_TO = 8  # steps: a batch whose columns all end is padded to a multiple of this, so that fewer shapes are recorded

BatchStep = tuple[Position, Window]  # what an update learns from, and the position after it


class GraphKey(NamedTuple):
    """In what recorded updates differ."""

    steps: int  # T
    width: int  # B
    start: bool  # from the initial state
    full: bool  # without padding


class StepInputs(NamedTuple):
    """What is different in each of up to K updates, and what they were like."""

    at: Array  # (1,) int64: the row of the next update
    columns: Array  # (K, 2, B) int64: of the windows, as wide as the widest
    learning_rates: Array  # (K,)
    keep: Array  # (K, L, B, H): the dropout masks; of no layer where there is no dropout
    measured: Array  # (K, 2): loss and norm


class HostInputs(NamedTuple):
    """What a table is to hold for n updates, on the host."""

    step: int  # updates before them
    columns: HostArray  # (n, 2, B)
    learning_rates: HostArray  # (n,)
    keep: HostArray  # (n, L, B, H)


@dataclass
class GraphRunner:
    """The arrays that recorded updates work on, and the updates by their shape."""

    task: TrainTask
    graphs: GraphCache
    table: StepInputs
    params_vector: Array  # (P,), and below: as in a State
    opt_state: Any  # the state of the optimizer
    finite: Array
    given: TrainState  # the last one to be copied to or from these arrays
    states: dict[int, Array] = field(default_factory=dict)  # (L, S, B, H) by B: those that the next batch goes on from
    next: HostInputs | None = None  # those that were prepared last


def make_runner(task: TrainTask, state: TrainState, most: int, record: Callable[[Action], Action]) -> GraphRunner:
    """A desk for up to `most` updates at a time; `record` makes of a function, called once before, one that repeats it."""
    xp, put, config = task.backend.xp, task.backend.put, task.config
    columns, layers = max_columns(task.data, task.plan.batch, task.plan.length), config.layers if task.plan.dropout else 0
    places, learning_rates = put(np.zeros((most, 2, columns), np.int64)), put(np.zeros(most))
    keep = put(np.zeros((most, layers, columns, config.hidden)))
    table = StepInputs(put(np.zeros(1, np.int64)), places, learning_rates, keep, put(np.zeros((most, 2))))
    params_vector, finite, *opt_state = (
        xp.asarray(array, copy=True) for array in (state.params_vector, state.finite, *state.opt_state)
    )
    return GraphRunner(
        task, GraphCache(record), table, params_vector, type(state.opt_state)(*opt_state), finite, state._replace(states=None)
    )


def run(
    desk: GraphRunner, state: TrainState, group: list[BatchStep]
) -> tuple[TrainState, list[StepMetrics], BaseException | None]:
    """What updates make of a state, what they were like, and the exception that ended them, if one did.

    The arrays that are given are copies: no update to come changes them.
    """
    made, error = 0, None
    try:
        rows = prepare(desk, state.step, group)
        _lay_out(desk, state, group, rows)
        for _, window in group:
            key = graph_key(window)
            desk.graphs.run(key, partial(_update, desk, key))
            made += 1
    except BaseException as problem:  # what was learnt until then is not lost with it
        error = problem
    if not made:
        return state, [], error

    def copy(array: Array) -> Array:
        return desk.task.backend.xp.asarray(array, copy=True)

    done = group[:made]
    states = {width: copy(desk.states[width]) for width in {window.columns.shape[1] for _, window in done}}
    measured, positions = copy(desk.table.measured), [state.position, *(after for after, _ in done)]
    traces = []
    for row, (before, (_, window), learning_rate) in enumerate(zip(positions, done, rows.learning_rates.tolist())):
        # the states that it went on from are asked for of a bad update alone, since which they have stayed as they were
        start = None if window.start else states[window.columns.shape[1]]
        traces.append(StepMetrics(before, start, measured[row, 0], measured[row, 1], learning_rate, window.targets))
    after = states[done[-1][1].columns.shape[1]]
    opt_state = type(desk.opt_state)(*map(copy, desk.opt_state))
    desk.given = TrainState(state.step + made, positions[-1], copy(desk.params_vector), opt_state, after, copy(desk.finite))
    return desk.given, traces, error


def graph_key(window: Window) -> GraphKey:
    """What is recorded for a window; one in which all columns end may have more padding than it needs."""
    starts, ends = window.columns
    steps, width = window.steps, len(starts)
    if steps % ROUND_STEPS_TO and bool((ends - starts <= steps).all()):
        return GraphKey(steps + -steps % ROUND_STEPS_TO, width, window.start, full=False)
    return GraphKey(steps, width, window.start, window.full)


def prepare(desk: GraphRunner, step: int, group: list[BatchStep]) -> HostInputs:
    """The rows for updates after so many others; the device has something to do meanwhile, if this comes early."""
    if desk.next is not None and desk.next.step == step and len(desk.next.learning_rates) == len(group):
        return desk.next
    task, table = desk.task, desk.table
    columns = np.zeros((len(group), *table.columns.shape[1:]), np.int64)
    keep = np.zeros((len(group), *table.keep.shape[1:]), task.backend.dtype)
    for row, (_, window) in enumerate(group):
        width = window.columns.shape[1]
        columns[row, :, :width] = window.columns
        for layer, mask in enumerate(host_dropout_masks(task, width, step + row)):
            keep[row, layer, :width] = mask
    desk.next = HostInputs(step, columns, np.array([learning_rate_at(task, step + row) for row in range(len(group))]), keep)
    return desk.next


def _lay_out(desk: GraphRunner, state: TrainState, group: list[BatchStep], rows: HostInputs) -> None:
    """Bring the state, where it is not there yet, and what the updates need to where they look for it."""
    task, table, put = desk.task, desk.table, desk.task.backend.put
    if state.params_vector is not desk.given.params_vector:
        for to, now in zip(
            (desk.params_vector, desk.finite, *desk.opt_state), (state.params_vector, state.finite, *state.opt_state)
        ):
            to[...] = now
    for width in {window.columns.shape[1] for _, window in group} - desk.states.keys():
        fields = len(task.config.definition.State._fields)
        desk.states[width] = put(np.zeros((task.config.layers, fields, width, task.config.hidden)))
    if state.states is not None and state.states is not desk.given.states and not group[0][1].start:
        desk.states[state.states.shape[2]][...] = state.states
    table.columns[: len(group), ...] = put(rows.columns)
    table.learning_rates[: len(group)] = put(rows.learning_rates)
    if rows.keep.size:
        table.keep[: len(group), ...] = put(rows.keep)
    table.at[...] = put(np.zeros(1, np.int64))


def _update(desk: GraphRunner, shape: GraphKey) -> Action:
    """An update of a shape, in place."""
    task, table, states, ids = desk.task, desk.table, desk.states[shape.width], desk.task.ids
    xp, layers = task.backend.xp, range(table.keep.shape[1])
    ramp, ones = (task.backend.put(a) for a in (np.arange(shape.steps + 1)[:, None], np.ones((shape.steps, shape.width))))

    def row(array: Array) -> Array:
        return xp.take(array, table.at, axis=0)[0, ...]

    def update() -> None:
        x, y, mask = graph_inputs.batch(ids, table.columns, table.at, ramp, ones, shape.full)
        learning_rate, keep = row(table.learning_rates), row(table.keep) if layers else table.keep
        masks = tuple(keep[layer, : shape.width, :] for layer in layers)
        before = None if shape.start else states
        loss, grad, after = gradient.loss_and_grad(desk.params_vector, task.config, x, y, mask, before, masks, None)
        params_vector, opt_state, norm = apply_optimizer(task.settings, desk.params_vector, desk.opt_state, grad, learning_rate)
        graph_inputs.finish(desk.finite, loss, norm, table.measured, table.at)
        graph_inputs.replace(
            desk.finite, desk.params_vector, params_vector, states, after
        )  # after a bad update, states are those that it went on from
        for to, now in zip(desk.opt_state, opt_state):
            to[...] = now

    return update
