"""The task and the state of a training step, and the arrays of the state in a checkpoint."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from bptt.backend import Array, Backend, HostArray, namespace
from bptt.config.defaults import Hyperparameters
from bptt.config.settings import Settings
from bptt.data.batches import Batch, Window
from bptt.data.dataset import Dataset, Position
from bptt.distributed.allreduce import AllReduce
from bptt.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from bptt.nn import gradient, model, optimizers, tree
from bptt.nn.optimizers import OPTIMIZERS


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
    optimizer_options: Mapping[str, Any] = MappingProxyType({})  # see `optimizer_step.optimizer_options`


class TrainState(NamedTuple):
    """What the next updates depend on besides the task; random numbers depend on the seed and the step alone."""

    step: int  # updates so far
    position: Position  # of the next batch
    params_vector: Array  # (P,)
    opt_state: Any  # the state of the optimizer
    average: Array | None  # (P,): the moving average of the parameters, see `optimizers.average_update`; None without one
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


def initial_state(task: TrainTask, params: model.Params) -> TrainState:
    """The state before the first update."""
    params_vector = tree.ravel(params)
    xp, opt_state = namespace(params_vector), OPTIMIZERS[task.settings.optimizer].init(params_vector)
    average = xp.zeros_like(params_vector) if task.plan.average else None
    return TrainState(0, Position(0, 0), params_vector, opt_state, average, None, xp.all(xp.isfinite(params_vector)))


def averaged_params(task: TrainTask, state: TrainState) -> Array:
    """The parameters (P,) that are measured, saved and sampled: the average, or without one those of the last update."""
    if state.average is None or state.step == 0:
        return state.params_vector
    return optimizers.debiased(state.average, task.plan.average, state.step)


def to_host(task: TrainTask, state: TrainState) -> dict[str, HostArray]:
    """The arrays that a checkpoint holds besides the weights, by name: the optimizer's state and the carried states.

    The format has t, m and v for every optimizer: zeros for those that the optimizer does not have. With an average of the
    parameters, which are the weights of the checkpoint, it has that average as it is kept, and the parameters themselves.
    """
    get = task.backend.get
    params_vector = get(state.params_vector)
    zeros = {"t": np.zeros((), params_vector.dtype), "m": np.zeros_like(params_vector), "v": np.zeros_like(params_vector)}
    arrays = {**zeros, **{name: get(array) for name, array in state.opt_state._asdict().items()}}
    if state.average is not None:
        arrays |= {"average": get(state.average), "params": params_vector}
    if state.states is not None:
        states = gradient.unstack_states(task.config, get(state.states))
        arrays |= {f"states.{name}": array for name, array in tree.named_leaves(states)}
    return arrays


def from_host(task: TrainTask, params_vector: Array, arrays: dict[str, HostArray], step: int, position: Position) -> TrainState:
    """The state with the arrays that `to_host` gave; the parameters are `params_vector` (P,) without an average."""
    put, cell = task.backend.put, task.config.definition
    average, states = None, None
    if task.plan.average:
        params_vector, average = put(arrays["params"]), put(arrays["average"])
    if any(name.startswith("states.") for name in arrays):
        rows = [[arrays[f"states.{layer}.{field}"] for field in cell.State._fields] for layer in range(task.config.layers)]
        states = put(np.array(rows))
    xp = namespace(params_vector)
    initial = OPTIMIZERS[task.settings.optimizer].init(params_vector)
    opt_state = initial._make(put(arrays[field]) for field in initial._fields)
    return TrainState(step, position, params_vector, opt_state, average, states, xp.all(xp.isfinite(params_vector)))
