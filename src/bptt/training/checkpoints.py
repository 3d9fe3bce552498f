"""Checkpoints of a run while it trains, and the models that can be made of its state."""

import contextlib
import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bptt.backend import HostArray
from bptt.checkpoint import format as checkpoint_format
from bptt.checkpoint import run_folder, store
from bptt.errors import CheckpointError, Diverged
from bptt.inference.language_model import LanguageModel, model_from_checkpoint
from bptt.nn import model, tree
from bptt.train_step.state import averaged_params, to_host
from bptt.training import messages
from bptt.training.state import LoopState, RunContext


def save(run: RunContext, loop_state: LoopState) -> Path | None:
    """Save a checkpoint in the folder of the run, if there is one; nothing if it has a checkpoint of this step.

    Raises:
        Diverged: a number is not finite.
        SaveError: it cannot be written.
    """
    if run.folder is None or loop_state.progress.step != loop_state.state.step:
        return None
    step, best = loop_state.state.step, loop_state.progress.best
    target = run.folder / run_folder.CHECKPOINTS / run_folder.checkpoint_name(step)
    if not os.path.exists(target):  # which raises nothing where it may not be looked for
        checkpoint = make_checkpoint(run, loop_state)
        run_folder.save_checkpoint(run.folder, checkpoint, step, best[0] if best else step, run.task.settings.keep)
    return target


def save_elsewhere(run: RunContext, loop_state: LoopState) -> Path | None:
    """Save a checkpoint in a temporary folder that nobody else can read; None if that fails, too."""
    if run.folder is None:
        return None
    with contextlib.suppress(Exception, KeyboardInterrupt):
        target = store.free_name(Path(tempfile.gettempdir()) / f"bptt-{run.folder.name}")
        store.write(target, make_checkpoint(run, loop_state), private=True)
        return target
    return None


def make_checkpoint(run: RunContext, loop_state: LoopState) -> checkpoint_format.Checkpoint:
    """Everything that a run resumes from; Diverged if a number is not finite."""
    task = run.task
    weights, record = host_weights(run, loop_state), _record(run, loop_state)
    arrays = to_host(task, loop_state.state)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise Diverged(messages.nonfinite_message(loop_state.state.step, f"{name} of the optimizer", task))
    return checkpoint_format.Checkpoint(
        task.config, task.data.mode, task.data.vocabulary, record, weights, loop_state.progress, arrays
    )


def host_weights(run: RunContext, loop_state: LoopState) -> dict[str, HostArray]:
    """The averaged weights on the host by name; Diverged if one of them or of the last update is not finite."""
    task, state, weights = run.task, loop_state.state, {}
    for vector in (state.params_vector, averaged_params(task, state)):
        weights = dict(tree.named_leaves(tree.unravel(task.backend.get(vector), model.shapes(task.config))))
        for name, array in weights.items():
            if not np.isfinite(array).all():
                raise Diverged(messages.nonfinite_message(state.step, f"the weights {name}", task))
    return weights


def current_model(run: RunContext, loop_state: LoopState) -> LanguageModel:
    """The model with the averaged weights after the last update."""
    task, record = run.task, _record(run, loop_state)
    params = tree.unravel(averaged_params(task, loop_state.state), model.shapes(task.config))
    rows = loop_state.progress.history
    return LanguageModel(task.config, task.data.vocabulary, task.data.mode, params, task.backend, record, rows)


def best_model(run: RunContext, loop_state: LoopState) -> LanguageModel | None:
    """The model with the lowest validation loss, or without a validation set the last one; None if there is no good one."""
    diverged = loop_state.ended == "diverged"
    best = loop_state.best if run.task.data.validation or diverged else current_model(run, loop_state)
    if best is None and run.folder:  # from before the run was resumed
        with contextlib.suppress(CheckpointError):
            _, saved = run_folder.read_checkpoint(run.folder, cell=run.task.config.user_cell)
            best = model_from_checkpoint(saved, run.task.backend)
    if best is None and not diverged and loop_state.state.step:
        best = current_model(run, loop_state)
    ending = {"ended": loop_state.ended, "seconds": loop_state.progress.seconds}
    return best and dataclasses.replace(best, record={**best.record, **ending}, rows=loop_state.progress.history)


def _record(run: RunContext, loop_state: LoopState) -> dict[str, Any]:
    """The record of the run with its step, and the losses if the last row of the history is of this step."""
    step, history = loop_state.state.step, loop_state.progress.history
    row = history[-1] if history and history[-1].get("step") == step else {}
    return {**run.record, "step": step, "loss": row.get("loss"), "held_out": row.get("held_out")}
