"""The updates of a run, one after the other; several at a time where they are small, or recorded for a GPU.

Between two updates of a small model, what is done besides takes longer than they do.
"""

import functools
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from bptt import acceleration
from bptt.data.batches import Window
from bptt.data.dataset import epochs
from bptt.nn import gradient, segments
from bptt.nn.optimizers import OPTIMIZERS
from bptt.train_step import graphed, microbatches, threads
from bptt.train_step.graphed import BatchStep
from bptt.train_step.update import StepMetrics, TrainState, TrainTask, clip, dropout_masks, learning_rate_at, update

SYNC_EVERY = 16  # updates from one look at their numbers to the next, at most; so many can be made at a time
MAX_GROUPED_TARGETS = 4096  # steps of all columns: the batches of some such updates take little memory


class Grouping(NamedTuple):
    """How several updates are made at a time."""

    make: Callable[[TrainState, list[BatchStep]], tuple[TrainState, list[StepMetrics], BaseException | None]]
    fit: Callable[[Window], bool]  # whether an update can be one of several
    prepare: Callable[[int, list[BatchStep]], Any]  # what can be done early for those after so many others


def run_updates(
    task: TrainTask, state: TrainState, most: Callable[[int], int] = lambda step: 1
) -> Iterator[tuple[TrainState, list[StepMetrics]]]:
    """The state after each update, up to the last one of the plan, or after at most so many as `most` allows there.

    How many are made at a time changes no bit. Of several processes each holds the states of its own columns alone.
    """
    state = state._replace(states=microbatches.rank_states(state.states, task.group))
    plan, together = task.plan, _grouping(task, state)
    following = epochs(task.data, plan.batch, plan.length, task.settings.seed, state.position)
    waiting: deque[BatchStep] = deque()

    def upcoming(step: int) -> list[BatchStep]:
        """What the updates after so many others learn from that can be made at a time; at least one is waiting then."""
        count = min(most(step), plan.steps - step) if together else 1
        waiting.extend(itertools.islice(following, max(0, count - len(waiting))))
        return list(itertools.takewhile(lambda one: together.fit(one[1]), itertools.islice(waiting, count))) if together else []

    with threads.thread_pool(task.backend, task.group.local_size) as executor:
        group = upcoming(state.step)
        while state.step < plan.steps:
            traces: list[StepMetrics] = []
            error: BaseException | None = None
            if together and group:
                state, traces, error = together.make(state, group)
            if not traces and error is None:
                position, window = waiting[0]
                state, trace = update(task, state, window, position, executor)
                traces = [trace]
            for _ in traces:
                waiting.popleft()
            if state.step < plan.steps and error is None:
                try:
                    group = upcoming(state.step)
                    if together:
                        together.prepare(state.step, group)
                except BaseException as problem:  # the updates that are made are told of first
                    error = problem
            if traces:
                yield state, traces
            if error is not None:
                raise error


def _grouping(task: TrainTask, state: TrainState) -> Grouping | None:
    """How several updates of a task are made at a time, from a state on; None where each is made alone."""
    if task.settings.recompute_every is not None or task.settings.micro_batches > 1:
        return None
    if task.backend.is_host:
        return Grouping(functools.partial(run_group, task), functools.partial(fits_group, task), lambda step, group: None)
    record = acceleration.graph_recorder() if task.settings.graph and task.ids is not None else None
    if record is None:
        return None
    desk = graphed.make_runner(task, state, SYNC_EVERY, record)
    return Grouping(functools.partial(graphed.run, desk), lambda window: True, functools.partial(graphed.prepare, desk))


def fits_group(task: TrainTask, window: Window) -> bool:
    """Whether an update is too small to be made in pieces or by threads, and no column is over before its first step."""
    config, columns = task.config, window.columns
    each = config.recurrent_weights
    goes_on = window.start or bool((columns[0] < columns[1]).all())
    return goes_on and window.steps * columns.shape[1] <= min(MAX_GROUPED_TARGETS, segments.MIN_SAVING / each)


def run_group(
    task: TrainTask, state: TrainState, group: list[BatchStep]
) -> tuple[TrainState, list[StepMetrics], BaseException | None]:
    """What `update` gives for one after the other, up to the first loss or gradient that is not finite, or an exception."""
    if len(group) == 1 or not state.finite:
        return state, [], None
    params_vector, opt_state, states, before = state.params_vector, state.opt_state, state.states, state.position
    traces: list[StepMetrics] = []
    error = None
    try:
        learning_rates = [learning_rate_at(task, state.step + i) for i in range(len(group))]
        keeps = [dropout_masks(task, window.columns.shape[1], state.step + i) for i, (_, window) in enumerate(group)]
        batches = [task.read(window) for _, window in group]
        for (after, window), batch, keep, learning_rate in zip(group, batches, keeps, learning_rates):
            start = None if window.start else states
            loss, grad, ends = gradient.loss_and_grad(
                params_vector, task.config, batch.x, batch.y, batch.mask, start, keep, None
            )
            grad, norm = clip(task.settings, grad)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                break
            params_vector, opt_state = OPTIMIZERS[task.settings.optimizer].update(params_vector, grad, opt_state, learning_rate)
            traces.append(StepMetrics(before, states, loss, norm, learning_rate, window.targets))
            states, before = ends, after
    except BaseException as problem:  # what was learnt until then is not lost with it
        error = problem
    return TrainState(state.step + len(traces), before, params_vector, opt_state, states, state.finite), traces, error
