"""The settings, memory and time of a run that is not made: `bptt train --dry-run`."""

import time
from functools import partial
from typing import Any

import numpy as np

from bptt import dispatch, system
from bptt.checkpoint import store
from bptt.config.settings import Settings
from bptt.data.dataset import count_targets
from bptt.display import plots
from bptt.nn import model, tree
from bptt.train_step.stepper import SYNC_EVERY, run_updates
from bptt.training import budget, launch, memory_estimate, messages, setup, signals, validation
from bptt.training.setup import Prepared
from bptt.training.state import Reporter

TRIAL = 1.5  # seconds of updates, from which the time of all is told


@dispatch.restored()
def report_plan(text: Any, settings: Settings, tell: Reporter, began: float | None = None) -> None:
    """Tell what a run would do, with its parameters, its memory and its time; nothing is saved.

    A budget is measured as in `trainer.start`.
    """
    began = time.perf_counter() if began is None else began
    group = launch.init_training_group(text, settings, "a dry run")
    if group.rank:
        tell = launch.silent_reporter
    with group.abort_all_on_error():
        group.on_rank_0(partial(store.check_can_save, settings.out))
        ready = launch.setup_all(group, settings, lambda: setup.from_scratch(text, settings, group))
        ready = budget.fit_to_budget(ready, settings, began, tell, saving=True)
        _tell(ready, tell)


def _tell(ready: Prepared, tell: Reporter) -> None:
    processes = f" for each of {ready.task.group.local_size} processes" if ready.task.group.local_size > 1 else ""
    parameters = tree.num_elements(model.shapes(ready.task.config))
    needed = memory_estimate.needed_bytes(ready.task, plotting=plots.available())
    budgeted = ready.record.get("budget")
    seconds, trial = (_seconds(ready), f"of {TRIAL:g} s") if budgeted is None else (budgeted["seconds"], "for the budget")
    words = [
        messages.header(ready.task, budgeted),
        f"chosen {_chosen(ready)}",
        f"memory about {needed / 1e6:,.0f} MB{processes}, this machine has {system.physical_memory() / 1e6:,.0f} MB",
        f"time   about {messages.format_duration(seconds)}, by a trial {trial}",
    ]
    row = {"event": "dry_run", "parameters": parameters, "memory_bytes": round(needed), "seconds": round(seconds, 1)}
    tell("\n".join(words), {**row, "plan": ready.task.plan._asdict(), "record": ready.record})


def _chosen(ready: Prepared) -> str:
    """The hyperparameters that were chosen by the size of the text."""
    task = ready.task
    count = count_targets(task.data.training)
    requested = {name for name, value in vars(task.settings).items() if value is not None}
    if "epochs" in requested:
        requested.add("steps")
    chosen = {name: value for name, value in task.plan._asdict().items() if name not in requested}
    values = (
        ", ".join(
            f"{name.replace('_', ' ')} {value:g}" if isinstance(value, float) else f"{name.replace('_', ' ')} {value}"
            for name, value in chosen.items()
        )
        or "nothing: every setting is given"
    )
    return f"{values}; for a text of {count:,} characters to train on, read as {task.data.mode}"


@signals.deferred_interrupt()
@np.errstate(all="ignore")
def _seconds(ready: Prepared) -> float:
    """How long a run will take, from a few updates and one measurement, of which nothing is kept."""
    task = ready.task
    began, done = time.perf_counter(), -1
    for state, traces in run_updates(task, ready.now.state, lambda step: SYNC_EVERY):
        task.backend.get(state.params_vector[:1])  # wait for a device that is behind
        if done < 0:  # what the first ones alone have to do does not count
            began, done = time.perf_counter(), 0
        else:
            done += len(traces)
        if task.group.broadcast(time.perf_counter() - began > TRIAL):
            break
    each = (time.perf_counter() - began) / max(1, done)
    began = time.perf_counter()
    if task.data.validation:
        params = tree.unravel(ready.now.state.params_vector, model.shapes(task.config))
        validation.evaluate(task, params)
    measuring = time.perf_counter() - began
    return each * task.plan.steps + measuring * -(-task.plan.steps // task.plan.evaluate_every)
