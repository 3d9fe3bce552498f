"""Set up a run before its first update: dataset, hyperparameters, model and optimizer; new, or as a checkpoint has them."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bptt import acceleration, errors
from bptt import backend as backends
from bptt.backend import Backend
from bptt.checkpoint import run_folder
from bptt.checkpoint.format import AVERAGING, CONFIG, OPTIMIZER, Checkpoint, Progress
from bptt.config import user_cells
from bptt.config.compatibility import complete_format_1
from bptt.config.defaults import Hyperparameters, resolve
from bptt.config.settings import Settings, flag, from_flags
from bptt.data import batches
from bptt.data.dataset import (
    Dataset,
    Position,
    batches_in_epoch,
    count_targets,
    count_text_targets,
    epochs,
    make_rng,
    prepare,
)
from bptt.data.source import recorded_text, recorded_validation_file
from bptt.distributed import reduction
from bptt.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from bptt.errors import CheckpointError, InputError, RunFinished, TextChanged, TrainingWarning
from bptt.files import FileReference
from bptt.inference.language_model import model_from_checkpoint
from bptt.nn import model, parametrization, tree
from bptt.train_step.optimizer_step import optimizer_options
from bptt.train_step.state import TrainState, TrainTask, from_host, initial_state
from bptt.training import memory_estimate, messages
from bptt.training.state import LoopState

NO_PROGRESS = Progress(0, 0, 0, 0, 0.0, None, 0, (), (), ())


class Prepared(NamedTuple):
    """A training task, the record that its checkpoints hold, and where its training stands."""

    task: TrainTask
    record: dict[str, Any]
    now: LoopState


def from_scratch(
    text: Any, settings: Settings, group: ProcessGroup = SINGLE_PROCESS, validation: FileReference | None = None
) -> Prepared:
    """A new run: its weights are drawn, or taken from the checkpoint that the settings name (fine-tuning).

    `validation` replaces the file of the validation set in the settings.

    Raises:
        CheckpointError: that checkpoint cannot be used.
        InputError: a text that cannot be read or learnt from, a backend that has to be there and is not.
        OutOfMemory: the run needs more memory than there is.
    """
    user_cell = settings.cell if user_cells.is_user_cell(settings.cell) else None
    source = run_folder.read_checkpoint(settings.from_, cell=user_cell) if settings.from_ else None
    backend = _backend(settings)
    if source is not None:
        settings = _with_model_shape(settings, *source)
    symbols = source[1].vocabulary if source else None
    data = prepare(text, settings, make_rng(settings.split_seed, 0), symbols, validation)
    if not group.rank and (data.validation_file or settings.duplicates == "independent"):
        messages.warn_of_shared_lines(data)
    plan = _plan(settings, data)
    if source:
        config = source[1].config
    else:
        name = user_cells.name_of(settings.cell)
        config = model.Config(name, len(data.vocabulary), plan.hidden, settings.layers, user_cell=user_cell)
    task = _task(config, backend, data, settings, plan, group)
    if settings.micro_batches > 1:  # of a run that had not saved anything yet; new ones are refused
        messages.warn_if_micro_batches_changed(settings.micro_batches, task)
    return _before_first_update(task, (lambda: model_from_checkpoint(source[1], backend).params) if source else None)


def with_size(ready: Prepared, hidden: int, steps: int) -> Prepared:
    """The same new run with so many units and steps, as if the settings had them from the start.

    The text is not read again. `launch.setup_all` connects its all-reduce.

    Raises:
        OutOfMemory: the run needs more memory than there is.
    """
    task = resized_task(ready.task, hidden, steps)
    if hidden != ready.task.config.hidden:
        return _before_first_update(task, None)
    params = tree.unravel(ready.now.state.params_vector, model.shapes(task.config))
    return _before_first_update(task, lambda: params)


def resized_task(task: TrainTask, hidden: int, steps: int) -> TrainTask:
    """The task with so many units and steps, and the hyperparameters that follow from them."""
    settings = dataclasses.replace(task.settings, hidden=hidden, steps=steps, budget=None)
    config, plan = dataclasses.replace(task.config, hidden=hidden), _plan(settings, task.data)
    options = optimizer_options(config, settings, plan)
    return task._replace(config=config, settings=settings, plan=plan, optimizer_options=options, all_reduce=None)


def _plan(settings: Settings, data: Dataset) -> Hyperparameters:
    """The hyperparameters of a new run on a dataset."""
    targets = count_targets(data.training)
    return resolve(settings, data.mode, targets, lambda b, t: batches_in_epoch(data, b, t, settings.seed))


def _before_first_update(task: TrainTask, load: Callable[[], model.Params] | None) -> Prepared:
    """A new run before its first update; its weights come from `load`, or without it are drawn.

    Raises:
        OutOfMemory: the run needs more memory than there is.
    """
    memory_estimate.refuse_too_large(task)
    try:
        if load is not None:
            params = load()
        else:
            host_params = model.init(task.config, make_rng(task.settings.seed, 1), task.settings.init)
            params = tree.tree_map(task.backend.put, parametrization.scale(host_params, task.plan.parametrization))
        return Prepared(task, _record(task), LoopState(initial_state(task, params), NO_PROGRESS))
    except MemoryError as error:
        raise errors.OutOfMemory(memory_estimate.out_of_memory_message(task)) from error


def from_checkpoint(
    where: Path,
    saved: Checkpoint,
    text: Any,
    changes: dict[str, Any],
    group: ProcessGroup = SINGLE_PROCESS,
    *,
    changed_text: bool,
) -> Prepared:
    """A run as a checkpoint has it; `changes` are the settings that replace the saved ones.

    Raises:
        CheckpointError: a checkpoint that is forged, or damaged in a way that no checksum shows.
        InputError: a text that is not the same any more, unless `changed_text`; a run that has ended.
    """
    settings, plan = _saved_settings(where, saved, changes)
    refuse_other_validation(where, saved.record["settings"], changes)
    if text is None and saved.record["source"] in ("", "-"):
        came = "came from standard input" if saved.record["source"] else "was given in Python"
        raise InputError(f"{where}: the text of this run {came}: give it again, beside --resume")
    backend = _backend(settings)
    acceleration.warn_if_changed(saved.record, backend)
    file, validation_file = recorded_text(saved.record), recorded_validation_file(saved.record, settings.validation)
    if changed_text:
        file, validation_file = (recorded and recorded._replace(size=None) for recorded in (file, validation_file))
    if "validation" in changes:
        validation_file = None  # that one was named by the user
    try:
        read = file if text is None else text
        data = prepare(read, settings, make_rng(settings.split_seed, 0), saved.vocabulary, validation_file)
    except TextChanged as error:
        raise InputError(f"{where}: its {error}: give it as it was, or --changed-text to resume all the same") from None
    except InputError as error:
        what = "text or its validation set" if isinstance(settings.validation, Path) else "text"
        option = ", or --validation FILE," if isinstance(settings.validation, Path) else ""
        elsewhere = f"give the path of the text{option} beside --resume if it is elsewhere now"
        raise InputError(f"{where}: the run cannot be resumed with its {what}: {error}; {elsewhere}") from None
    task = _task(saved.config, backend, data, settings, plan, group)
    memory_estimate.refuse_too_large(task)
    now = saved.progress or NO_PROGRESS
    if now.step >= plan.steps:
        raise RunFinished(f"{where}: its {plan.steps:,} steps are done: give more with --steps, or start a new run with --from")
    if difference := _difference(saved.record, data):
        if not changed_text:
            raise InputError(f"{where}: {difference} as it was, or --changed-text to resume all the same")
        now = now._replace(best=None, waited=0)  # what was best on the text before is not now
    if data.sha256 != saved.record.get("sha256"):
        now = now._replace(epoch=now.epoch + 1, batch=0)
    elif now.batch >= batches_in_epoch(data, plan.batch, plan.length, settings.seed, now.epoch):
        raise CheckpointError(f"{where}: batch {now.batch} is beyond the end of an epoch: use another checkpoint")
    if plan.average and not (saved.training_arrays or {}).keys() >= set(AVERAGING):
        raise CheckpointError(f"{where / OPTIMIZER}: has no average of the weights: use another checkpoint")
    params = model_from_checkpoint(saved, backend).params
    state = from_host(task, tree.ravel(params), saved.training_arrays or {}, now.step, Position(now.epoch, now.batch))
    if now.batch == 0:
        state = state._replace(states=None)
    elif not _states_fit(task, state):
        raise CheckpointError(
            f"{where / OPTIMIZER}: batch {now.batch} cannot be resumed from its states: use another checkpoint"
        )
    messages.warn_if_micro_batches_changed(settings.micro_batches, task)
    return Prepared(task, {**saved.record, **_record(task)}, LoopState(state, now))


def _backend(settings: Settings) -> Backend:
    """Select the backend of a run and enable its kernels."""
    backend = backends.select(settings.backend, settings.dtype, require=settings.require_backend or None)
    acceleration.enable_for(backend)
    return backend


def _task(
    config: model.Config, backend: Backend, data: Dataset, settings: Settings, plan: Hyperparameters, group: ProcessGroup
) -> TrainTask:
    """The training task, with the token ids on the device if they fit; each process has one micro-batch or several."""
    if settings.patience is not None and not data.validation:
        words = f"--patience {settings.patience} waits for nothing: no part of the text is held out"
        errors.warn(words, TrainingWarning)
    settings = dataclasses.replace(settings, micro_batches=reduction.round_up(settings.micro_batches, group.size))
    ids = batches.ids_on_device(data.training.ids, backend)
    read, options = batches.batch_reader(data.training.ids, backend, ids), optimizer_options(config, settings, plan)
    return TrainTask(config, backend, data, settings, plan, read, ids, group, optimizer_options=options)


def _record(task: TrainTask) -> dict[str, Any]:
    """The record that every checkpoint of a run holds."""
    data = task.data
    settings = vars(task.settings) | {"cell": task.config.cell}
    user_cell = task.config.user_cell
    validation = {"source": data.validation_file, "sha256": data.validation_sha256, "bytes": data.validation_size}
    return {
        "text": data.name,
        "source": data.source,
        "bytes": data.size,
        "sha256": data.sha256,
        "targets": count_text_targets(data),
        "validation": validation if data.validation_file else None,
        "settings": {name: str(value.absolute()) if isinstance(value, Path) else value for name, value in settings.items()},
        "plan": task.plan._asdict(),
        "backend": {"asked": task.backend.requested, "ran": task.backend.name},
        "compiled": acceleration.compiled_by(task.backend),
        **({} if user_cell is None else {"cell_file": user_cells.file_record(user_cell)}),
    }


def _with_model_shape(settings: Settings, place: Path, source: Checkpoint) -> Settings:
    """The settings with the shape of the model to begin from, which they must not contradict."""
    config, defaults = source.config, Settings()
    symbols = "bytes" if source.vocabulary.symbols is None else "characters"
    shape: dict[str, Any] = {
        "cell": config.user_cell or config.cell,
        "hidden": config.hidden,
        "layers": config.layers,
        "mode": source.mode,
        "vocabulary": symbols,
    }
    for name, value in shape.items():
        asked = getattr(settings, name)
        if asked not in (value, getattr(defaults, name)):
            raise InputError(f"{flag(name)} {asked}: the model in {place} has {value}: leave it out, or begin without --from")
    return dataclasses.replace(settings, **shape, from_=place)


def _saved_settings(where: Path, saved: Checkpoint, changes: dict[str, Any]) -> tuple[Settings, Hyperparameters]:
    """The settings and the hyperparameters of a run, from a record that may hold anything."""
    config, record = saved.config, saved.record
    try:
        once = {"epochs": None, "out": None, "stop_after": None, "nccl": None}  # of the session before
        recorded = {**complete_format_1(record["settings"]), **record["plan"], **once}
        before = {name: value for name, value in recorded.items() if value is not None}
        if before["cell"] != config.cell:
            raise KeyError("cell")
        cell = config.user_cell or config.cell  # a record names no file that is executed
        settings = from_flags({**before, "mode": saved.mode, **changes, "cell": cell})
        plan = Hyperparameters(**{name: getattr(settings, name) for name in Hyperparameters._fields})
        source = record["source"]
    except (KeyError, TypeError, AttributeError, InputError) as error:
        raise CheckpointError(f"{where / CONFIG}: is not the record of a run ({error!s:.200})") from None
    shape = (config.hidden, config.layers)
    if not isinstance(source, str) or None in plan or shape != (settings.hidden, settings.layers):
        raise CheckpointError(f"{where / CONFIG}: is not the record of this model's run")
    return settings, plan


def refuse_other_validation(where: Path, before: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    """Raise an InputError if the changes of a resumed run put a file in the place of a part of its text."""
    if "validation" in changes and not isinstance(before.get("validation"), str | Path):
        problem = f"--validation {changes['validation']}: the validation set of this run is a part of its text"
        raise InputError(f"{problem}: leave it out, or start a new run with --from {where}")


def _states_fit(task: TrainTask, state: TrainState) -> bool:
    """Whether the next batch can continue from the carried states; only those of a forged checkpoint do not fit."""
    _, window = next(epochs(task.data, task.plan.batch, task.plan.length, task.settings.seed, state.position))
    return window.start or (state.states is not None and state.states.shape[2] == window.columns.shape[1])


def _difference(record: dict[str, Any], data: Dataset) -> str:
    """How a text, or else the file of its validation set, differs from the one of a run, and what to give; else nothing."""
    now, before = count_text_targets(data), record.get("targets") or 0
    if data.sha256 == record.get("sha256"):
        file = record.get("validation")
        if data.validation_sha256 == (file.get("sha256") if isinstance(file, dict) else ""):
            return ""
        return f"its validation set {data.validation_file!r} has changed: give the file"
    if now == before:
        return "its text has changed: it is as long as before, but not the same: give the text"
    return f"its text has changed: {now:,} characters to learn and to measure now, {before:,} before: give the text"
