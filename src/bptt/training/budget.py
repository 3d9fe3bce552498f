"""Hidden size and steps for a run that takes about as long as its budget, chosen by a short trial of its updates."""

import contextlib
import gc
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bptt import acceleration
from bptt.backend import Backend
from bptt.checkpoint import store
from bptt.config.defaults import EVALUATIONS, MIN_BUDGET_HIDDEN, MOST_TIME, RunCost, budget_hidden, budget_steps
from bptt.config.rules import duration_seconds
from bptt.config.settings import Settings
from bptt.data.batches import Window
from bptt.display import plots
from bptt.errors import OutOfMemory
from bptt.inference.evaluation import batch_nats
from bptt.nn import model, tree
from bptt.train_step import threads
from bptt.train_step.stepper import run_updates
from bptt.training import checkpoints, intervals, launch, loop, memory_estimate, messages, setup, signals, validation
from bptt.training.setup import Prepared
from bptt.training.state import Reporter, RunContext

TRIAL_SHARE = 0.015  # of a budget: for the updates of a trial, and again for its part of an evaluation
MAX_TRIAL = 3.0  # seconds, for the same: longer trials tell no more
LOOKS = 4  # at the clock while a run makes the updates whose metrics it reads at a time
MIN_TIMED = 2  # looks after those updates that also compile, capture or allocate
MIN_SHARE = 0.5  # of a budget that is left for training, however long the start took: kernels are compiled only once
CLOSING = 0.3  # seconds for the last texts and the end of the process


@signals.deferred_interrupt()
def fit_to_budget(ready: Prepared, settings: Settings, began: float, report: Reporter, *, saving: bool) -> Prepared:
    """A new run with the units and steps that its budget allows; the same run if it has none.

    All processes of the group call this: they make the same updates, and the time of process 0 counts. Nothing that the trial
    computes is kept. `began` is when the command began, by `time.perf_counter`; `saving` says whether the run has a folder.
    `settings` are those of the command.
    """
    task = ready.task
    if task.settings.budget is None:
        return ready
    group, asked = task.group, task.settings.budget
    budget = duration_seconds(asked)
    messages.report_compilation(task, report)
    acceleration.warm_up(task.config, task.backend, group)

    def seconds_left() -> float:
        return max(budget - overhead(began), MIN_SHARE * budget)

    # 1. What the preset takes, or the units that were given
    hidden, evaluate_every = task.plan.hidden, task.settings.evaluate_every
    cost = group.broadcast(measure(ready, budget))
    preset_seconds = cost.seconds(task.plan.steps, evaluate_every)
    trial = ready

    # 2. The units, and what they take
    if task.settings.hidden is None:
        hidden = group.broadcast(_fitting_hidden(ready, budget_hidden(hidden, preset_seconds, seconds_left())))
    if hidden != task.plan.hidden:
        _free_graphs(task.backend)
        try:
            trial = _resized(ready, settings, hidden, task.plan.steps)
            cost = group.broadcast(measure(trial, budget))
        except MemoryError:  # of a GPU, whose memory nothing estimates
            if group.size > 1 or hidden < task.plan.hidden:
                raise
            trial, hidden = ready, task.plan.hidden
            _free_graphs(task.backend)
    interval = evaluate_every * cost.update + cost.evaluation if evaluate_every else seconds_left() / EVALUATIONS
    with threads.thread_pool(task.backend, group.local_size):  # as the run has it: BLAS with one thread
        other = group.broadcast(measure_rest(trial, interval, saving=saving))
    cost = cost._replace(evaluation=cost.evaluation + other)

    # 3. The steps
    left = group.broadcast(seconds_left())
    steps = budget_steps(cost, preset_seconds, left, evaluate_every)
    _free_graphs(task.backend)
    resized = _resized(trial, settings, hidden, steps)
    seconds = round(group.broadcast(overhead(began)) + cost.seconds(steps, evaluate_every), 1)
    capped = left > MOST_TIME * preset_seconds
    choice = {"asked": asked, "update_seconds": cost.update, "seconds": seconds, "capped": capped}
    return resized._replace(record={**resized.record, "budget": choice})


def _free_graphs(backend: Backend) -> None:
    """Free the memory of a trial on a GPU: its recorded updates and the arrays that they work on refer to each other."""
    if backend.is_gpu:
        gc.collect()


def overhead(began: float) -> float:
    """The seconds that the command takes besides training: those since it began, and its end."""
    return time.perf_counter() - began + CLOSING


def _fitting_hidden(ready: Prepared, hidden: int) -> int:
    """The units, or as many as there is memory for."""
    while hidden > MIN_BUDGET_HIDDEN:
        try:
            memory_estimate.refuse_too_large(setup.resized_task(ready.task, hidden, ready.task.plan.steps))
        except OutOfMemory:
            hidden -= 16
        else:
            break
    return hidden


def _resized(ready: Prepared, settings: Settings, hidden: int, steps: int) -> Prepared:
    """The run with another size, in all processes, with an all-reduce of that size."""
    if ready.task.all_reduce is not None:
        ready.task.all_reduce.close()
    return launch.setup_all(ready.task.group, settings, lambda: setup.with_size(ready, hidden, steps))


@np.errstate(all="ignore")
def measure(ready: Prepared, budget: float) -> RunCost:
    """What an update takes, and the loss on the validation set; all processes of the group call this."""
    limit = min(TRIAL_SHARE * budget, MAX_TRIAL)
    try:
        update = update_seconds(ready, limit)
        with threads.thread_pool(ready.task.backend, ready.task.group.local_size):  # as the run has it: BLAS with one thread
            return RunCost(update, _validation_seconds(ready, limit))
    except MemoryError as error:
        raise OutOfMemory(memory_estimate.out_of_memory_message(ready.task)) from error


def update_seconds(ready: Prepared, limit: float) -> float:
    """The mean seconds of an update: of as many as the limit allows, but at least some, of which nothing is kept.

    The slowest tenth does not count: in it a GPU captures batches of another shape.
    """
    task = ready.task
    count = intervals.max_unread_updates(task) // LOOKS  # few, because a trial is short; more on a GPU, which idles at a look
    rounds: list[float] = []  # seconds of an update in each
    began = last = time.perf_counter()
    for state, metrics in run_updates(task, ready.now.state, lambda step: count):
        task.backend.get(state.params_vector[:1])  # wait for a device that is behind
        now = time.perf_counter()
        rounds.append((now - last) / len(metrics))
        last = now
        if task.group.broadcast(now - began > limit and len(rounds) > MIN_TIMED):
            break
    timed = sorted(rounds[1:] or rounds)
    return statistics.fmean(timed[: len(timed) - len(timed) // 10])


def _validation_seconds(ready: Prepared, limit: float) -> float:
    """The seconds of the loss on the validation set, from as many of its windows as the limit allows, but at least one."""
    task = ready.task
    rank_parts = range(task.group.rank, validation.parts(task), task.group.size) if task.data.validation else ()
    windows = [window for part in rank_parts for window in validation.windows(task, part)]
    if not windows:
        return 0.0
    params = tree.unravel(ready.now.state.params_vector, model.shapes(task.config))
    if task.backend.is_gpu:  # the first window also loads kernels
        batch_nats(task.config, params, task.backend, map(validation.reader(task), windows[:1]))
    began = time.perf_counter()

    def until_limit() -> Iterator[Window]:
        for window in windows:
            yield window
            if time.perf_counter() - began > limit:
                break

    _, targets = batch_nats(task.config, params, task.backend, map(validation.reader(task), until_limit()))
    return (time.perf_counter() - began) * sum(window.targets for window in windows) / targets


@np.errstate(all="ignore")
def measure_rest(ready: Prepared, interval: float, *, saving: bool) -> float:
    """What comes with an evaluation, one in so many seconds: texts, spectral radii, a checkpoint and a picture.

    All processes of the group call this; process 0 saves and draws, in a temporary folder. If that fails, it counts as nothing:
    the run itself may have another folder, and says what fails.
    """
    task, now = ready.task, ready.now
    run = RunContext(task, ready.record, None, launch.silent_reporter)
    for _ in range(2):  # the first time loads what generates text
        began = time.perf_counter()
        loop.sample_and_radii(task, checkpoints.current_model(run, now))
    sampling = time.perf_counter() - began
    if not saving or task.group.rank:
        return sampling
    saving_seconds = drawing = 0.0
    with contextlib.suppress(Exception), tempfile.TemporaryDirectory(prefix="bptt-") as name:
        folder = Path(name)
        began = time.perf_counter()
        store.write(folder / "checkpoint", checkpoints.make_checkpoint(run, now))
        saving_seconds = time.perf_counter() - began
        drawing = _drawing_seconds(folder / "curve.png") if plots.available() else 0.0
    drawn = min(1.0, interval / loop.CURVE_SECONDS)  # share of the evaluations
    return sampling + saving_seconds + drawing * drawn


def _drawing_seconds(path: Path) -> float:
    """The seconds of the second drawing of a curve: the first one imports matplotlib."""
    row: dict[str, Any] = {"step": 1, "loss": 1.0, "rate": 1.0, "norm": 1.0, "held_out": 1.0}
    figure = plots.save_curve([row], path, "trial")
    began = time.perf_counter()
    plots.save_curve([row, {**row, "step": 2}], path, "trial", None, figure)
    return time.perf_counter() - began
