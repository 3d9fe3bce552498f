"""Truncated BPTT over a text: one update after the other, several at a time if they are small or captured as CUDA graphs.

Each window of the text continues from the states after the one before; its gradient goes back to its first step and no
further. For a small model, what happens between two updates takes longer than an update: so several are made at a time.
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
from bptt.train_step import graphed, microbatches, threads
from bptt.train_step.graphed import BatchStep
from bptt.train_step.optimizer_step import clip, learning_rate_at, optimizer_step
from bptt.train_step.state import StepMetrics, TrainState, TrainTask
from bptt.train_step.update import dropout_masks, update

SYNC_EVERY = 16  # most updates between two reads of their metrics, and most updates made at a time
MAX_GROUPED_TARGETS = 4096  # targets of a batch that can be in a group: several such batches take little memory


class Grouping(NamedTuple):
    """How several updates are made at a time."""

    run: Callable[[TrainState, list[BatchStep]], tuple[TrainState, list[StepMetrics], BaseException | None]]
    fits: Callable[[Window], bool]  # whether an update can be in a group
    prepare: Callable[[int, list[BatchStep]], Any]  # prepare the updates after so many others, while the device is busy


def run_updates(
    task: TrainTask, state: TrainState, max_updates: Callable[[int], int] = lambda step: 1
) -> Iterator[tuple[TrainState, list[StepMetrics]]]:
    """Make all updates up to the last one of the plan; yields the state after one or several of them, with their metrics.

    `max_updates` gives the largest number of updates at a time after a step; the number changes no bit of the results. With
    several processes, each has the states of its own columns only.
    """
    state = state._replace(states=microbatches.rank_states(state.states, task.group))
    plan, grouping = task.plan, _grouping(task, state)
    batches = epochs(task.data, plan.batch, plan.length, task.settings.seed, state.position)
    queue: deque[BatchStep] = deque()

    def next_group(step: int) -> list[BatchStep]:
        """Put the batches after a step into the queue, at least one; returns those of the next group, which may be empty."""
        count = min(max_updates(step), plan.steps - step) if grouping else 1
        queue.extend(itertools.islice(batches, max(0, count - len(queue))))
        if not grouping:
            return []
        return list(itertools.takewhile(lambda batch: grouping.fits(batch[1]), itertools.islice(queue, count)))

    with threads.thread_pool(task.backend, task.group.local_size) as executor:
        group = next_group(state.step)
        while state.step < plan.steps:
            # 1. Make the updates of the group, or a single one
            metrics: list[StepMetrics] = []
            error: BaseException | None = None
            if grouping and group:
                state, metrics, error = grouping.run(state, group)
            if not metrics and error is None:
                following, window = queue[0]
                state, single = update(task, state, window, following, executor)
                metrics = [single]
            for _ in metrics:
                queue.popleft()

            # 2. Prepare the next group while the device is busy
            if state.step < plan.steps and error is None:
                try:
                    group = next_group(state.step)
                    if grouping:
                        grouping.prepare(state.step, group)
                except BaseException as problem:  # raised after the updates were handed out
                    error = problem

            # 3. Hand out the updates, then raise what ended them
            if metrics:
                yield state, metrics
            if error is not None:
                raise error


def _grouping(task: TrainTask, state: TrainState) -> Grouping | None:
    """How several updates of a task are made at a time, starting from a state; None if each is made alone."""
    if task.settings.recompute_every is not None or task.settings.micro_batches > 1:
        return None
    if task.backend.is_host:
        return Grouping(functools.partial(run_group, task), functools.partial(fits_group, task), lambda step, group: None)
    record = acceleration.graph_recorder() if task.settings.graph and task.ids is not None else None
    if record is None:
        return None
    runner = graphed.make_runner(task, state, SYNC_EVERY, record)
    return Grouping(functools.partial(graphed.run, runner), lambda window: True, functools.partial(graphed.prepare, runner))


def fits_group(task: TrainTask, window: Window) -> bool:
    """Whether an update is too small for segments and threads, and no column has ended before its first step."""
    config, columns = task.config, window.columns
    per_step = config.recurrent_weights  # multiplications by one of a column
    unfinished = window.start or bool((columns[0] < columns[1]).all())
    return unfinished and window.steps * columns.shape[1] <= min(MAX_GROUPED_TARGETS, segments.MIN_SAVING / per_step)


def run_group(
    task: TrainTask, state: TrainState, group: list[BatchStep]
) -> tuple[TrainState, list[StepMetrics], BaseException | None]:
    """A group of updates as `update` makes them, up to the first loss or gradient that is not finite, or an exception."""
    if len(group) == 1 or not state.finite:
        return state, [], None
    params_vector, opt_state, average = state.params_vector, state.opt_state, state.average
    states, position = state.states, state.position
    metrics: list[StepMetrics] = []
    error = None
    try:
        learning_rates = [learning_rate_at(task, state.step + i) for i in range(len(group))]
        keeps = [dropout_masks(task, window.columns.shape[1], state.step + i) for i, (_, window) in enumerate(group)]
        batches = [task.read(window) for _, window in group]
        for (following, window), batch, keep, learning_rate in zip(group, batches, keeps, learning_rates):
            start = None if window.start else states
            loss, grad, after = gradient.loss_and_grad(
                params_vector, task.config, batch.x, batch.y, batch.mask, start, keep, None
            )
            grad, norm = clip(task.settings, grad)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                break
            params_vector, opt_state, average = optimizer_step(task, params_vector, opt_state, average, grad, learning_rate)
            metrics.append(StepMetrics(position, states, loss, norm, learning_rate, window.targets))
            states, position = after, following
    except BaseException as problem:  # the updates before it are kept
        error = problem
    done = state.step + len(metrics)
    return TrainState(done, position, params_vector, opt_state, average, states, state.finite), metrics, error
