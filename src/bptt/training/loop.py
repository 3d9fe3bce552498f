"""A session of a run: updates, and what is measured, saved and told on the way, until the run ends or is ended."""

import contextlib
import dataclasses
import math
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bptt import errors
from bptt.backend import HostArray
from bptt.checkpoint import format as checkpoint_format
from bptt.checkpoint import run_folder, store
from bptt.checkpoint.format import Progress
from bptt.display import plots
from bptt.errors import CheckpointError, Diverged, SaveError, TrainingWarning
from bptt.inference.language_model import LanguageModel, model_from_checkpoint
from bptt.nn import model, tree
from bptt.train_step import microbatches
from bptt.train_step.stepper import run_updates
from bptt.train_step.update import StepMetrics, TrainTask, first_nonfinite, to_host
from bptt.training import intervals, messages, validation
from bptt.training.intervals import Due
from bptt.training.state import LoopState, RunContext

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROGRESS_SECONDS = 5.0  # seconds without news, after which a run says how far it is
CURVE_SECONDS = 1.0  # seconds from one drawing of the curve to the next, at least
SAVE_SECONDS = 600.0  # seconds after which a checkpoint is saved between two that are due


def train_loop(run: RunContext, now: LoopState, signals: list[str]) -> LoopState:
    """Train until the run ends, or is ended; what was learnt is safe before anything is told.

    An exception ends the session, too, and is found in the result: whatever happens, nothing that can be kept is lost.
    """
    task, first = run.task, now.progress
    pending: list[StepMetrics] = []
    began = told = saved = time.perf_counter()
    drawn, figure = began, None

    def look() -> LoopState:
        if now.progress.step == now.state.step:
            return now
        seconds = first.seconds + time.perf_counter() - began
        states = microbatches.gather_states(
            now.state.states, task.group, task.backend
        )  # the next save is of those of all processes
        return now._replace(state=now.state._replace(states=states), progress=_read_metrics(task, now, pending, seconds))

    try:
        for state, traces in run_updates(task, now.state, lambda step: intervals.updates_until_due(task, step, first.step)):
            now, pending = now._replace(state=state), [*pending, *traces]
            due = intervals.due(task, now.state.step, first.step, task.group.all_signals(signals))
            due = due._replace(saved=due.saved or time.perf_counter() - saved > SAVE_SECONDS)
            due, silent = task.group.broadcast((due, time.perf_counter() - told > PROGRESS_SECONDS))
            if not any(due) and not silent and len(pending) < intervals.max_unread_updates(task):
                continue
            now, pending = look(), []
            now, row = _add_row(run, now, due, traces[-1].learning_rate)
            if task.group.rank_0_then_others(partial(_save_if_due, run, now, due, row)):
                saved = time.perf_counter()
            words = messages.evaluation_line(row, task) if due.measured else ""
            if silent and not words:
                speed = (now.progress.characters - first.characters) / (time.perf_counter() - began)
                words = messages.progress_line(row or _row(now.progress, traces[-1].learning_rate), task, speed)
            if words or row:
                told = time.perf_counter() if words else told
                run.report(words, {"event": "measurement" if due.measured else "log", **row} if row else {})
            last = now.ended or now.state.step == task.plan.steps
            if last or (due.measured and (figure is None or time.perf_counter() - drawn > CURVE_SECONDS)):
                drawn, figure = time.perf_counter(), _draw_curve(run, now, figure)
            if now.ended:
                return now
    except Diverged as error:
        return now._replace(ended="diverged", error=error)
    except BaseException as error:
        try:
            if task.group.all_raise(error):  # a look may need the other processes
                now = look()
        except Diverged as earlier:  # unseen until now
            return now._replace(ended="diverged", error=earlier)
        except Exception:  # the numbers stay behind the state, which `save` refuses then
            return now._replace(ended="failed", error=error)
        if isinstance(error, KeyboardInterrupt) and len(signals) < 2 and task.group.size == 1:  # nobody was there to note it
            return now._replace(ended="SIGINT")
        return now._replace(ended="unsaved" if isinstance(error, SaveError) else "failed", error=error)
    return now


def _save_if_due(run: RunContext, now: LoopState, due: Due, row: dict[str, Any]) -> bool:
    """Save where the session stands, if that is due or the best so far, and the row of the history; whether it was due."""
    is_best = now.progress.best is not None and now.progress.best[0] == now.state.step
    saving = due.saved or bool(now.ended) or is_best
    if saving:
        save(run, now)
    if row and run.folder:
        run_folder.append_row(run.folder, row)
    return saving


def make_checkpoint(run: RunContext, now: LoopState) -> checkpoint_format.Checkpoint:
    """All that a session can go on from; Diverged, where a number is not finite."""
    task = run.task
    memory = to_host(task, now.state)
    for name, array in memory.items():
        if not np.isfinite(array).all():
            raise Diverged(messages.nonfinite_message(now.state.step, f"{name} of the optimizer", task))
    weights, record = _weights(run, now), _record(run, now)
    return checkpoint_format.Checkpoint(
        task.config, task.data.mode, task.data.vocabulary, record, weights, now.progress, memory
    )


def _weights(run: RunContext, now: LoopState) -> dict[str, HostArray]:
    """The weights by name on the host; Diverged, where one is not finite."""
    params_vector = run.task.backend.get(now.state.params_vector)
    weights = dict(tree.named_leaves(tree.unravel(params_vector, model.shapes(run.task.config))))
    for name, array in weights.items():
        if not np.isfinite(array).all():
            raise Diverged(messages.nonfinite_message(now.state.step, f"the weights {name}", run.task))
    return weights


def save(run: RunContext, now: LoopState) -> Path | None:
    """Save where a session stands in the folder of its run, if there is one and it is not there already.

    Raises:
        Diverged: a number is not finite.
        SaveError: it cannot be written.
    """
    if run.folder is None or now.progress.step != now.state.step:
        return None
    target = run.folder / run_folder.CHECKPOINTS / run_folder.checkpoint_name(now.state.step)
    if not os.path.exists(target):  # which raises nothing where it may not be looked for
        best = now.progress.best[0] if now.progress.best else now.state.step
        run_folder.save_checkpoint(run.folder, make_checkpoint(run, now), now.state.step, best, run.task.settings.keep)
    return target


def save_elsewhere(run: RunContext, now: LoopState) -> Path | None:
    """Save it among the system's temporary files, where the run's own disk is full; None where that fails, too."""
    if run.folder is None:
        return None
    with contextlib.suppress(Exception, KeyboardInterrupt):
        target = store.free_name(Path(tempfile.gettempdir()) / f"bptt-{run.folder.name}")
        store.write(target, make_checkpoint(run, now))
        return target
    return None


def current_model(run: RunContext, now: LoopState) -> LanguageModel:
    """The model as it is at the moment."""
    task, record = run.task, _record(run, now)
    params = tree.unravel(now.state.params_vector, model.shapes(task.config))
    return LanguageModel(task.config, task.data.vocabulary, task.data.mode, params, task.backend, record)


def best_model(run: RunContext, now: LoopState) -> LanguageModel | None:
    """The best model of a run: by what is held out, or else the last one; None where nothing good was learnt."""
    found = now.best if run.task.data.held_out or now.ended == "diverged" else current_model(run, now)
    if found is None and run.folder:  # of a session before
        with contextlib.suppress(CheckpointError):
            found = model_from_checkpoint(run_folder.read_checkpoint(run.folder)[1], run.task.backend)
    if found is None and now.ended != "diverged" and now.state.step:
        found = current_model(run, now)
    ending = {"ended": now.ended, "seconds": now.progress.seconds}
    return found and dataclasses.replace(found, record={**found.record, **ending})


def _record(run: RunContext, now: LoopState) -> dict[str, Any]:
    """The record of a run with the numbers of its last step, where they were measured there."""
    row = now.progress.history[-1] if now.progress.history else {}
    here = row if row.get("step") == now.state.step else {}
    return {**run.record, "step": now.state.step, "loss": here.get("loss"), "held_out": here.get("held_out")}


def _add_row(run: RunContext, now: LoopState, due: Due, rate: float) -> tuple[LoopState, dict[str, Any]]:
    """The standing with one more row in its history, measured or not, if one is due; and that row, or nothing."""
    now = now._replace(ended=due.ended)
    if not due.logged:
        return now, {}
    row = _row(now.progress, rate)
    if due.measured:
        now, row = _evaluate(run, now, row)
        now = now._replace(ended=due.ended or intervals.out_of_patience(run.task, now.state.step, now.progress.waited))
    entered = now.progress._replace(losses=(), norms=(), history=(*now.progress.history, row))
    return now._replace(progress=entered), row


def _read_metrics(task: TrainTask, now: LoopState, pending: list[StepMetrics], seconds: float) -> Progress:
    """The progress after the pending updates, whose numbers are read off the device at once."""
    was, state = now.progress, now.state
    xp, numbers = task.backend.xp, np.zeros(0)
    if pending:
        numbers = task.backend.get(xp.stack([number for trace in pending for number in (trace.loss, trace.grad_norm)]))
    losses, norms = numbers[::2].tolist(), numbers[1::2].tolist()
    for trace, loss, norm, step in zip(pending, losses, norms, range(state.step - len(pending), state.step)):
        if not (math.isfinite(loss) and math.isfinite(norm)):
            bad = first_nonfinite(task, state.params_vector, step, trace.position, trace.start_states)
            raise Diverged(messages.nonfinite_message(step + 1, bad, task))
    return was._replace(
        step=state.step,
        epoch=state.position.epoch,
        batch=state.position.batch,
        characters=was.characters + sum(trace.targets for trace in pending),
        seconds=round(seconds, 3),
        losses=(*was.losses, *losses),
        norms=(*was.norms, *norms),
    )


def _row(now: Progress, rate: float) -> dict[str, Any]:
    """An entry of the history: means and maxima since the entry before."""
    return {
        "step": now.step,
        "loss": math.fsum(now.losses) / max(1, len(now.losses)),
        "rate": rate,
        "norm": max(now.norms, default=0.0),
        "characters": now.characters,
        "seconds": now.seconds,
    }


def _evaluate(run: RunContext, now: LoopState, row: dict[str, Any]) -> tuple[LoopState, dict[str, Any]]:
    """Measure the held-out part and let the model write; the best model so far is the one with the lowest loss there."""
    task, was, xp = run.task, now.progress, run.task.backend.xp
    if not bool(xp.all(xp.isfinite(now.state.params_vector))):
        _weights(run, now)  # names the first one that is not
    here = current_model(run, now)
    if not task.data.held_out:
        return now._replace(best=here), {**row, **_sample_and_radii(task, here)}
    held_out = validation.evaluate(task, here.params).nats_per_char
    if not math.isfinite(held_out):
        raise Diverged(messages.nonfinite_message(now.state.step, "the loss of the held-out part", task))
    row = {**row, "held_out": held_out, **_sample_and_radii(task, here)}
    if was.best is not None and was.best[1] <= held_out:
        return now._replace(progress=was._replace(waited=was.waited + 1)), row
    here = dataclasses.replace(here, record={**here.record, "loss": row["loss"], "held_out": held_out})
    return now._replace(best=here, progress=was._replace(best=(now.state.step, held_out), waited=0)), row


def _sample_and_radii(task: TrainTask, here: LanguageModel) -> dict[str, Any]:
    """What the model writes, and the spectral radius of each block of Waa by layer, which the last process computes."""
    group, radii = task.group, None
    if group.rank == group.size - 1:
        found = task.backend.get(model.spectral_radii(task.config, here.params)).astype(np.float64)
        radii = np.round(np.minimum(found, 1e200), 4).tolist()  # JSON has no infinity
    seen = group.all_gather((messages.sample_preview(here, group), radii))
    return {"sample": [text for texts, _ in seen for text in texts], "radii": seen[-1][1]}


def _draw_curve(run: RunContext, now: LoopState, figure: "Figure | None") -> "Figure | None":
    """Draw the curve of the run anew, on the figure of the last one if there is one; the figure."""
    if run.folder and now.progress.history and plots.available():
        try:
            title = f"{run.task.data.name}: {messages.model_title(run.task)}"
            clip = run.task.settings.clip_norm or None
            return plots.save_curve(list(now.progress.history), run.folder / run_folder.CURVE, title, clip, figure)
        except Exception as error:  # a picture ends nothing
            errors.warn(f"{run.folder / run_folder.CURVE} could not be drawn: {error}", TrainingWarning)
    return None
