"""Events of a training run, which the callbacks of `bptt.train` get."""

import contextlib
import copy
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bptt.checkpoint import run_folder
from bptt.errors import InputError
from bptt.inference.language_model import LanguageModel
from bptt.training import checkpoints
from bptt.training.state import LoopState, RunContext

EventKind = Literal["start", "log", "evaluation", "checkpoint", "end"]


@dataclass(frozen=True, repr=False, eq=False)
class Event:
    """What has just happened in a training run; the callbacks of `bptt.train` get it.

    The kinds are "start" (before the first update of this call), "log" (a row of numbers is complete), "evaluation" (such a
    row with the numbers of an evaluation), "checkpoint" (one has been saved) and "end" (the run is over, also after an error).
    """

    kind: EventKind  # start, log, evaluation, checkpoint or end
    step: int  # number of updates so far
    steps: int  # number of updates that the run will have
    row: dict[str, Any]  # log, evaluation: the line for metrics.jsonl; end: how the run ended; else empty
    settings: dict[str, Any]  # of the run by name, with the hyperparameters that were chosen for its text
    folder: Path | None  # the run folder, of a checkpoint event that of the checkpoint; None for a run in memory
    _make_model: Callable[[], LanguageModel]

    @functools.cached_property
    def model(self) -> LanguageModel:
        """The model after the last update, with the averaged weights; at the end the model that `bptt.train` returns.

        It is made when it is first asked for, and shares its weights with the run: do not change them.
        """
        return self._make_model()

    def __repr__(self) -> str:
        """The kind, the step and the row."""
        return f"<bptt.Event: {self.kind} at step {self.step} of {self.steps}, row {self.row!r}>"


Callback = Callable[[Event], object]  # True, returned for a log, an evaluation or a checkpoint, stops the run


def check_callbacks(callbacks: Iterable[Callback]) -> tuple[Callback, ...]:
    """Return the callbacks, or raise an InputError if they are not a list of functions."""
    if not isinstance(callbacks, Iterable):
        raise InputError(f"callbacks {callbacks!r:.80}: expected a list of functions, as in callbacks=[print]")
    functions = tuple(callbacks)
    for function in functions:
        if not callable(function):
            raise InputError(f"callbacks: {function!r:.80} is not a function: expected functions that take one event")
    return functions


def send(run: RunContext, kind: EventKind, now: LoopState, row: dict[str, Any], trained: LanguageModel | None = None) -> bool:
    """Call the callbacks with an event; returns whether any of them returned True. `trained` is the model at the end."""
    if not run.callbacks:
        return False
    record, step, folder = run.record, now.state.step, run.folder
    if folder is not None and kind == "checkpoint":
        folder = folder / run_folder.CHECKPOINTS / run_folder.checkpoint_name(step)
    event = Event(
        kind,
        step,
        run.task.plan.steps,
        copy.deepcopy(row),  # the history has the same rows
        copy.deepcopy({**record["settings"], **record["plan"]}),
        folder,
        lambda: trained or checkpoints.current_model(run, now),
    )
    answers = [callback(event) for callback in run.callbacks]
    return any(isinstance(answer, bool | np.bool_) and bool(answer) for answer in answers)


def send_of_update(run: RunContext, now: LoopState, row: dict[str, Any], *, evaluated: bool, saved: bool) -> LoopState:
    """Call the callbacks after an update with a row or a checkpoint; if one of them stops the run, a checkpoint is saved.

    All processes of the group call this; the callbacks are those of process 0.
    """
    saved = saved and run.folder is not None
    stop = send(run, "evaluation" if evaluated else "log", now, row) if row else False
    stop = (send(run, "checkpoint", now, {}) if saved else False) or stop
    last = now.state.step == run.task.plan.steps
    if not run.task.group.broadcast(stop) or now.ended or last:
        return now
    run.task.group.rank_0_then_others(functools.partial(checkpoints.save, run, now))
    if run.folder is not None and not saved:
        send(run, "checkpoint", now, {})
    return now._replace(ended="callback")


def send_failure(run: RunContext, now: LoopState) -> None:
    """Call the callbacks at the end of a run that raises an exception, which comes before any that they raise."""
    out = None if run.folder is None else str(run.folder)
    row = {"ended": now.ended or "failed", "step": now.state.step, "best": None, "held_out": None, "out": out}
    with contextlib.suppress(Exception):
        send(run, "end", now, row)
