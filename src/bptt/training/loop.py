"""The training loop: update, evaluate, checkpoint and log until the run ends or is interrupted."""

import contextlib
import dataclasses
import math
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bptt import errors
from bptt.checkpoint import run_folder
from bptt.checkpoint.format import Progress
from bptt.display import plots
from bptt.errors import Diverged, InputError, SaveError, TrainingWarning
from bptt.inference.language_model import LanguageModel
from bptt.nn import model
from bptt.train_step import microbatches
from bptt.train_step.state import TrainTask
from bptt.train_step.stepper import run_updates
from bptt.train_step.update import first_nonfinite
from bptt.training import checkpoints, events, intervals, messages, validation
from bptt.training.intervals import Due
from bptt.training.state import LoopState, RunContext

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROGRESS_SECONDS = 5.0  # seconds of silence after which the loop reports its progress
CURVE_SECONDS = 1.0  # least seconds between two drawings of the loss curve
SAVE_SECONDS = 600.0  # seconds after which a checkpoint is saved even if none is due


def train_loop(run: RunContext, loop_state: LoopState, signals: list[str]) -> LoopState:
    """Train until the run ends or is interrupted; a checkpoint is saved before its numbers are reported.

    An exception ends the loop, too: it is in the state that is returned, with everything that can still be saved.
    `signals` is the list that signal handlers add to.
    """
    task, start = run.task, loop_state.progress
    start_time = report_time = save_time = curve_time = time.perf_counter()
    figure: Figure | None = None
    until_due = partial(intervals.updates_until_due, task, first=start.step)
    try:
        for state, metrics in run_updates(task, loop_state.state, until_due):
            # 1. Update: one or several optimizer steps, whose metrics stay on the device
            loop_state = loop_state._replace(state=state, unread=(*loop_state.unread, *metrics))
            learning_rate = metrics[-1].learning_rate

            # 2. Decide what is due; all processes do what process 0 decides
            due = intervals.due(task, state.step, start.step, task.group.all_signals(signals))
            due = due._replace(save=due.save or time.perf_counter() - save_time > SAVE_SECONDS)
            silent = time.perf_counter() - report_time > PROGRESS_SECONDS
            due, silent = task.group.broadcast((due, silent))
            if not any(due) and not silent and len(loop_state.unread) < intervals.max_unread_updates(task):
                continue

            # 3. Read the metrics of the updates since the last time from the device
            loop_state = _read_metrics(task, loop_state, start.seconds + time.perf_counter() - start_time)

            # 4. Evaluate on the validation set, with early stopping, and complete the row of the history
            row = _history_row(loop_state.progress, learning_rate) if due.log else {}
            loop_state, row = _evaluate_and_log(run, loop_state, due, row)

            # 5. Save a checkpoint if one is due or the model is the best so far, and the row
            saved = task.group.rank_0_then_others(partial(_save_if_due, run, loop_state, due, row))
            if saved:
                save_time = time.perf_counter()

            # 6. Report: a line for people, the row for programs
            message, event = "", "measurement" if due.evaluate else "log" if due.log else "progress"
            if due.evaluate:
                message = messages.evaluation_line(row, task)
            elif silent:
                row = row or _history_row(loop_state.progress, learning_rate)
                speed = (loop_state.progress.characters - start.characters) / (time.perf_counter() - start_time)
                message = messages.progress_line(row, task, speed)
            if message:
                report_time = time.perf_counter()
            if row:
                run.report(message, {"event": event, **row})

            # 7. Call the callbacks, each of which may stop the run
            if row or saved:
                loop_state = events.send_of_update(run, loop_state, row, evaluated=due.evaluate, saved=saved)

            # 8. Draw the loss curve
            last = loop_state.ended or state.step == task.plan.steps
            if last or (due.evaluate and (figure is None or time.perf_counter() - curve_time > CURVE_SECONDS)):
                curve_time, figure = time.perf_counter(), _draw_curve(run, loop_state, figure)

            # 9. Stop for a signal, a pause, a callback or early stopping; after the last update the generator is exhausted
            if loop_state.ended:
                return loop_state
    except Diverged as error:
        return loop_state._replace(ended="diverged", error=error, unread=())
    except BaseException as error:
        return _end_by_error(task, loop_state, error, signals, start.seconds + time.perf_counter() - start_time)
    return loop_state


def _end_by_error(
    task: TrainTask, loop_state: LoopState, error: BaseException, signals: list[str], seconds: float
) -> LoopState:
    """The state after an exception, with the metrics of all updates that were made, if they can be read."""
    ended = loop_state._replace(error=error, unread=())
    try:
        if task.group.all_raise(error):  # reading may need the other processes
            ended = _read_metrics(task, loop_state, seconds)._replace(error=error)
    except Diverged as earlier:  # in an update whose metrics were not read yet
        return ended._replace(ended="diverged", error=earlier)
    except Exception:  # the progress stays behind the state, which `checkpoints.save` refuses then
        return ended._replace(ended="failed")
    if isinstance(error, KeyboardInterrupt) and len(signals) < 2 and task.group.size == 1:  # no handler was there to note it
        return ended._replace(ended="SIGINT", error=None)
    return ended._replace(ended="unsaved" if isinstance(error, SaveError) else "failed")


def _read_metrics(task: TrainTask, loop_state: LoopState, seconds: float) -> LoopState:
    """The state with the unread metrics in its progress, and in process 0 the carried states of all processes.

    Raises:
        Diverged: the loss or the gradient of an update was not finite.
    """
    state, progress, unread = loop_state.state, loop_state.progress, loop_state.unread
    if progress.step == state.step:
        return loop_state
    state = state._replace(states=microbatches.gather_states(state.states, task.group, task.backend))
    numbers = np.zeros(0)
    if unread:
        numbers = task.backend.get(task.backend.xp.stack([n for metrics in unread for n in (metrics.loss, metrics.grad_norm)]))
    losses, norms = numbers[::2].tolist(), numbers[1::2].tolist()
    for metrics, loss, norm, step in zip(unread, losses, norms, range(state.step - len(unread), state.step)):
        if not (math.isfinite(loss) and math.isfinite(norm)):
            tensor = first_nonfinite(task, state.params_vector, step, metrics.position, metrics.start_states)
            raise Diverged(messages.nonfinite_message(step + 1, tensor, task))
    progress = progress._replace(
        step=state.step,
        epoch=state.position.epoch,
        batch=state.position.batch,
        characters=progress.characters + sum(metrics.targets for metrics in unread),
        seconds=round(seconds, 3),
        losses=(*progress.losses, *losses),
        norms=(*progress.norms, *norms),
    )
    return loop_state._replace(state=state, progress=progress, unread=())


def _history_row(progress: Progress, learning_rate: float) -> dict[str, Any]:
    """A row of the history: mean loss and largest gradient norm since the row before."""
    return {
        "step": progress.step,
        "loss": math.fsum(progress.losses) / max(1, len(progress.losses)),
        "rate": learning_rate,
        "norm": max(progress.norms, default=0.0),
        "characters": progress.characters,
        "seconds": progress.seconds,
    }


def _evaluate_and_log(
    run: RunContext, loop_state: LoopState, due: Due, row: dict[str, Any]
) -> tuple[LoopState, dict[str, Any]]:
    """The state after what is due: an evaluation, which adds to the row, early stopping, and the row in the history."""
    loop_state = loop_state._replace(ended=due.ended)
    if due.evaluate:
        loop_state, row = _evaluate(run, loop_state, row)
        patience = intervals.out_of_patience(run.task, loop_state.state.step, loop_state.progress.waited)
        loop_state = loop_state._replace(ended=due.ended or patience)
    if not row:
        return loop_state, row
    progress = loop_state.progress._replace(losses=(), norms=(), history=(*loop_state.progress.history, row))
    return loop_state._replace(progress=progress), row


def _evaluate(run: RunContext, loop_state: LoopState, row: dict[str, Any]) -> tuple[LoopState, dict[str, Any]]:
    """Measure the validation loss and sample a preview; the model with the lowest validation loss so far is the best."""
    task, progress, state, xp = run.task, loop_state.progress, loop_state.state, run.task.backend.xp
    if not bool(xp.all(xp.isfinite(state.params_vector))):
        checkpoints.host_weights(run, loop_state)  # raises Diverged, with the name of the first tensor that is not finite
    current = checkpoints.current_model(run, loop_state)
    if not task.data.validation:
        return loop_state._replace(best=current), {**row, **sample_and_radii(task, current)}
    validation_loss = validation.evaluate(task, current.params).nats_per_char
    if not math.isfinite(validation_loss):
        raise Diverged(messages.nonfinite_message(state.step, "the loss of the held-out part", task))
    row = {**row, "held_out": validation_loss, **sample_and_radii(task, current)}
    if progress.best is not None and progress.best[1] <= validation_loss:
        return loop_state._replace(progress=progress._replace(waited=progress.waited + 1)), row
    current = dataclasses.replace(current, record={**current.record, "loss": row["loss"], "held_out": validation_loss})
    return loop_state._replace(best=current, progress=progress._replace(best=(state.step, validation_loss), waited=0)), row


def sample_and_radii(task: TrainTask, current: LanguageModel) -> dict[str, Any]:
    """Texts from the model, and the spectral radius of each block of Waa by layer, which the last process computes."""
    group, radii = task.group, None
    if group.rank == group.size - 1:
        host_radii = task.backend.get(model.spectral_radii(task.config, current.params)).astype(np.float64)
        radii = np.round(np.minimum(host_radii, 1e200), 4).tolist()  # JSON has no infinity
    texts: list[str] = []
    with contextlib.suppress(InputError):  # of a model that diverges: the next update says so, in all processes
        texts = messages.sample_preview(current, group)
    gathered = group.all_gather((texts, radii))
    return {"sample": [text for texts, _ in gathered for text in texts], "radii": gathered[-1][1]}


def _save_if_due(run: RunContext, loop_state: LoopState, due: Due, row: dict[str, Any]) -> bool:
    """Save a checkpoint if it is due, the last one or the best so far, then append the row; returns whether it was saved."""
    best = loop_state.progress.best
    is_best = best is not None and best[0] == loop_state.state.step
    saving = due.save or bool(loop_state.ended) or is_best
    if saving:
        checkpoints.save(run, loop_state)
    if row and run.folder:
        run_folder.append_row(run.folder, row)
    return saving


def _draw_curve(run: RunContext, loop_state: LoopState, figure: "Figure | None") -> "Figure | None":
    """Draw the loss curve, on the figure of the last drawing if there is one; returns the figure."""
    if run.folder and loop_state.progress.history and plots.available():
        try:
            title = f"{run.task.data.name}: {messages.model_title(run.task)}"
            clip = run.task.settings.clip_norm or None
            return plots.save_curve(list(loop_state.progress.history), run.folder / run_folder.CURVE, title, clip, figure)
        except Exception as error:  # a picture that fails does not end the run
            errors.warn(f"{run.folder / run_folder.CURVE} could not be drawn: {error}", TrainingWarning)
    return None
