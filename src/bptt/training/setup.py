"""Set up a run before its first update: dataset, hyperparameters, model and optimizer; new, or as a checkpoint has them."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from bptt import acceleration, errors
from bptt import backend as backends
from bptt.backend import Backend
from bptt.checkpoint import new_symbols, run_folder, store
from bptt.checkpoint.format import Checkpoint, Progress
from bptt.config import user_cells
from bptt.config.defaults import Hyperparameters, resolve
from bptt.config.settings import Settings, refuse_contradictions
from bptt.data import batches
from bptt.data.dataset import (
    Dataset,
    batches_in_epoch,
    count_targets,
    count_text_targets,
    make_rng,
    prepare,
)
from bptt.data.source import recorded_reading
from bptt.distributed import reduction
from bptt.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from bptt.errors import InputError, TrainingWarning, option
from bptt.files import FileReference
from bptt.inference.language_model import model_from_checkpoint
from bptt.nn import model, parametrization, tree
from bptt.train_step.optimizer_step import optimizer_options
from bptt.train_step.state import TrainTask, initial_state
from bptt.training import memory_estimate, messages
from bptt.training.state import LoopState

NO_PROGRESS = Progress(0, 0, 0, 0, 0.0, None, 0, (), (), ())


class Prepared(NamedTuple):
    """A training task, the record that its checkpoints hold, and where its training stands."""

    task: TrainTask
    record: dict[str, Any]
    now: LoopState


def from_scratch(
    text: Any, settings: Settings, group: ProcessGroup = SINGLE_PROCESS, validation: tuple[FileReference, ...] | None = None
) -> Prepared:
    """A new run: its weights are drawn, or taken from the checkpoint that the settings name (fine-tuning).

    `validation` replaces the files of the validation set in the settings.

    Raises:
        CheckpointError: that checkpoint cannot be used.
        InputError: a text that cannot be read or learnt from, a backend that has to be there and is not.
        OutOfMemory: the run needs more memory than there is.
    """
    if settings.new_symbols != "error" and settings.from_ is None:
        raise InputError(f"{option('new_symbols', settings.new_symbols)} is for {option('from_')}: give both, or neither")
    user_cell = settings.cell if user_cells.is_user_cell(settings.cell) else None
    source = run_folder.read_checkpoint(settings.from_, cell=user_cell) if settings.from_ else None
    backend = select_backend(settings)
    if source is not None:
        settings = _with_model_shape(settings, *source)
    symbols = source[1].vocabulary if source else None
    data = prepare(text, settings, make_rng(settings.split_seed, 0), symbols, validation, fine_tuning=source is not None)
    if not group.rank:
        messages.warn_of_skipped_characters(data)
    if not group.rank and (data.validation_file or settings.duplicates == "independent"):
        messages.warn_of_shared_lines(data)
    plan = _plan(settings, data)
    if source:
        saved = _with_new_symbols(source[1], settings, data, plan)
        config = saved.config
    else:
        name = user_cells.name_of(settings.cell)
        config = model.Config(name, len(data.vocabulary), plan.hidden, settings.layers, user_cell=user_cell)
    task = make_task(config, backend, data, settings, plan, group)
    if settings.micro_batches > 1:  # of a run that had not saved anything yet; new ones are refused
        messages.warn_if_micro_batches_changed(settings.micro_batches, task)
    return _before_first_update(task, (lambda: model_from_checkpoint(saved, backend).params) if source else None)


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
            params = tree.tree_map(task.backend.put, _first_weights(task.config, task.settings, task.plan))
        return Prepared(task, make_record(task), LoopState(initial_state(task, params), NO_PROGRESS))
    except MemoryError as error:
        raise errors.OutOfMemory(memory_estimate.out_of_memory_message(task)) from error


def _first_weights(config: model.Config, settings: Settings, plan: Hyperparameters) -> model.Params:
    """The weights of a new model, drawn on the host."""
    params = model.init(config, make_rng(settings.seed, 1), settings.init)
    return parametrization.scale(params, plan.parametrization)


def _with_new_symbols(source: Checkpoint, settings: Settings, data: Dataset, plan: Hyperparameters) -> Checkpoint:
    """The model to begin from with the vocabulary of the dataset, which has more symbols with --new-symbols add."""
    if data.vocabulary == source.vocabulary:
        return source
    config = dataclasses.replace(source.config, vocabulary=len(data.vocabulary))
    return new_symbols.with_symbols(source, data.vocabulary, _first_weights(config, settings, plan))


def select_backend(settings: Settings) -> Backend:
    """Select the backend of a run and enable its kernels."""
    require = settings.require_backend or None
    backend = backends.select(settings.backend, settings.dtype, require=require, device=settings.device)
    acceleration.enable_for(backend)
    return backend


def make_task(
    config: model.Config, backend: Backend, data: Dataset, settings: Settings, plan: Hyperparameters, group: ProcessGroup
) -> TrainTask:
    """The training task, with the token ids on the device if they fit; each process has one micro-batch or several."""
    if settings.patience is not None and not data.validation:
        words = f"{option('patience', settings.patience)} waits for nothing: no part of the text is held out"
        errors.warn(words, TrainingWarning)
    settings = dataclasses.replace(settings, micro_batches=reduction.round_up(settings.micro_batches, group.size))
    ids = batches.ids_on_device(data.training.ids, backend)
    read, options = batches.batch_reader(data.training.ids, backend, ids), optimizer_options(config, settings, plan)
    return TrainTask(config, backend, data, settings, plan, read, ids, group, optimizer_options=options)


def make_record(task: TrainTask) -> dict[str, Any]:
    """The record that every checkpoint of a run holds.

    Raises:
        InputError: it would be too large to be read again.
    """
    data = task.data
    settings = vars(task.settings) | {"cell": task.config.cell}
    if data.validation_file:  # of a pattern, the one that it matched
        settings["validation"] = Path(data.validation_file)
    user_cell = task.config.user_cell
    validation = {
        "source": data.validation_places or data.validation_file,
        "sha256": data.validation_sha256,
        "bytes": data.validation_size,
        "unpacked": data.validation_unpacked,
        **({"files": data.validation_files} if data.validation_places else {}),
    }
    record = {
        "text": data.name,
        "source": data.source,
        "bytes": data.size,
        "files": data.files,
        "sha256": data.sha256,
        "targets": count_text_targets(data),
        "validation": validation if data.validation_file else None,
        "settings": {name: str(value.absolute()) if isinstance(value, Path) else value for name, value in settings.items()},
        "plan": task.plan._asdict(),
        "backend": {"asked": task.backend.requested, "ran": task.backend.name},
        "compiled": acceleration.compiled_by(task.backend),
        **({} if user_cell is None else {"cell_file": user_cells.file_record(user_cell)}),
    }
    store.check_record(record)
    return record


def _with_model_shape(settings: Settings, place: Path, source: Checkpoint) -> Settings:
    """The settings with the shape and the separator of the model to begin from, which they must not contradict."""
    config, defaults = source.config, Settings()
    shape: dict[str, Any] = {
        "cell": config.user_cell or config.cell,
        "hidden": config.hidden,
        "layers": config.layers,
        "mode": source.mode,
        "vocabulary": source.vocabulary.kind,
    }
    for name, value in shape.items():
        asked = getattr(settings, name)
        if asked not in (value, getattr(defaults, name)):
            raise InputError(
                f"{option(name, asked)}: the model in {place} has {value}: leave it out, or begin without {option('from_')}"
            )
    if settings.separator is None:
        shape["separator"] = recorded_reading(source.record, source.mode).separator
    settings = dataclasses.replace(settings, **shape, from_=place)
    try:
        refuse_contradictions(settings)
    except InputError as error:
        raise InputError(f"{error} (mode and vocabulary are those of the model in {place})") from None
    return settings
