"""Resume a run from the newest checkpoint in its folder, which is tidied up, or a new run from a single checkpoint."""

import itertools
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bptt import acceleration, errors
from bptt.backend import Backend
from bptt.checkpoint import run_folder, store
from bptt.checkpoint.format import AVERAGING, CONFIG, OPTIMIZER, Checkpoint
from bptt.config import toml, user_cells
from bptt.config.compatibility import complete_format_1
from bptt.config.defaults import Hyperparameters
from bptt.config.settings import Settings, from_flags
from bptt.data.dataset import Dataset, Position, batches_in_epoch, count_text_targets, epochs, make_rng, prepare
from bptt.data.source import recorded_texts, recorded_validation_files
from bptt.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from bptt.errors import CheckpointError, InputError, RunFinished, TextChanged, option
from bptt.files import FileReference
from bptt.inference.language_model import model_from_checkpoint
from bptt.nn import tree
from bptt.nn.cells import Cell
from bptt.train_step.state import TrainState, TrainTask, from_host
from bptt.training import memory_estimate, messages, setup
from bptt.training.setup import NO_PROGRESS, Prepared, make_record, make_task, select_backend
from bptt.training.state import LoopState


def from_run(place: Path, text: Any, changes: dict[str, Any], group: ProcessGroup, *, changed_text: bool) -> Prepared:
    """Set up a run to be resumed in its own folder, which process 0 tidies up if nothing is in the way.

    Raises what `from_checkpoint` does, and before the first checkpoint what `setup.from_scratch` does.
    """
    mending, cell = group.rank == 0, changes.get("cell")
    if not run_folder.checkpoints(place):  # ended before its first checkpoint
        config = toml.read(place / run_folder.CONFIG, without=["cell"] if cell else [], named=False)
        refuse_other_validation(place, config, changes)
        first = {**config, "nccl": False, **_other_device(changes), **changes}
        named = first.pop("text", None)
        _refuse_missing_text(place, text, "" if named is None else named)
        if cell:
            _match_last_session(place, cell)
        settings = from_flags(first)
        file = settings.validation if "validation" not in changes else None
        validation = (FileReference(str(file)),) if isinstance(file, Path) else None
        prepared = setup.from_scratch(named if text is None else text, settings, group, validation)
        if mending:
            run_folder.repair(place, None, [])
        return prepared
    where, saved = run_folder.read_checkpoint(place, run=True, cell=cell)
    _refuse_missing_text(place, text, saved.record.get("source"))
    saved = _with_best(place, saved)
    try:
        prepared = from_checkpoint(where, saved, text, changes, group, changed_text=changed_text)
    except errors.RunFinished:  # it may have been killed after its last checkpoint
        if mending:
            _mend(place, where, saved)
        raise
    if mending:
        _mend(place, where, saved)
    elif saved.progress and saved.progress.best:  # this process has no folder to find it in later
        folder = place / run_folder.CHECKPOINTS / run_folder.checkpoint_name(saved.progress.best[0])
        kept = store.read(folder, cell=cell)
        prepared = prepared._replace(now=prepared.now._replace(best=model_from_checkpoint(kept, prepared.task.backend)))
    return prepared


def _as_it_was() -> str:
    return f"as it was, or {option('changed_text', True)} to resume all the same"


def _refuse_missing_text(place: Path, text: Any, source: Any) -> None:
    """Raise an InputError if a run has to be given its text again, because it was no file."""
    if text is None and source == "-":
        command = f"bptt train TEXT --resume {shlex.quote(str(place))}"
        raise InputError(f"{place}: the text of this run came from standard input or a pipe: give it again: {command}")
    if text is None and source == "":
        raise InputError(f"{place}: the text of this run was given in Python: give it again, beside {option('resume')}")


def _match_last_session(place: Path, cell: Cell) -> None:
    """Raise an InputError if a run without a checkpoint was started with another user-defined cell."""
    sessions = run_folder.read_environment(place).get("sessions")
    session = sessions[-1] if isinstance(sessions, list) and sessions else None
    if isinstance(session, dict) and "cell_file" in session:
        user_cells.match(place, user_cells.name_of(cell), session, cell)


def _mend(place: Path, where: Path, saved: Checkpoint) -> None:
    now = saved.progress or NO_PROGRESS
    run_folder.repair(place, where, now.history)
    run_folder.update_links(place, where.name, run_folder.checkpoint_name(now.best[0]) if now.best else where.name)


def _with_best(place: Path, saved: Checkpoint) -> Checkpoint:
    """A checkpoint of a run without its best one, if that does not exist any more."""
    now = saved.progress or NO_PROGRESS
    if now.best and now.best[0] != now.step:
        try:
            folder = place / run_folder.CHECKPOINTS / run_folder.checkpoint_name(now.best[0])
            store.read(folder, cell=saved.config.user_cell)
        except errors.CheckpointError as problem:
            errors.warn(f"{problem}; the best from here on takes its place", errors.CheckpointWarning)
            now = now._replace(best=None, waited=0)
    return saved._replace(progress=now)


def from_single_checkpoint(
    place: Path, text: Any, changes: dict[str, Any], group: ProcessGroup, *, changed_text: bool
) -> Prepared:
    """Set up a new run from a single checkpoint, which leaves its own run and the best one there.

    Raises what `from_checkpoint` does.
    """
    where, saved = run_folder.read_checkpoint(place, run=True, cell=changes.get("cell"))
    _refuse_missing_text(place, text, saved.record.get("source"))
    now = saved.progress or NO_PROGRESS
    if now.best and now.best[0] != now.step:
        saved = saved._replace(progress=now._replace(best=None, waited=0))
    prepared = from_checkpoint(where, saved, text, changes, group, changed_text=changed_text)
    best = model_from_checkpoint(saved, prepared.task.backend) if prepared.now.progress.best else None
    return prepared._replace(now=prepared.now._replace(best=best))


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
    backend = _recorded_backend(where, settings, changes)
    acceleration.warn_if_changed(saved.record, backend)
    named, validation_files = recorded_texts(saved.record), recorded_validation_files(saved.record, settings.validation)
    if changed_text:
        named = named and _without_sizes(named)
        validation_files = validation_files and _without_sizes(validation_files)
    if "validation" in changes:
        validation_files = None  # they were named by the user
    try:
        read = named if text is None else text
        data = prepare(read, settings, make_rng(settings.split_seed, 0), saved.vocabulary, validation_files)
    except TextChanged as error:
        raise InputError(f"{where}: its {error}: give it {_as_it_was()}") from None
    except InputError as error:
        what = "text or its validation set" if isinstance(settings.validation, Path) else "text"
        other = f", or {option('validation')}," if isinstance(settings.validation, Path) else ""
        elsewhere = f"give the path of the text{other} beside {option('resume')} if it is elsewhere now"
        raise InputError(f"{where}: the run cannot be resumed with its {what}: {error}; {elsewhere}") from None
    if not group.rank:
        messages.warn_of_skipped_characters(data)
    task = make_task(saved.config, backend, data, settings, plan, group)
    memory_estimate.refuse_too_large(task)
    now = saved.progress or NO_PROGRESS
    if now.step >= plan.steps:
        remedy = f"give more with {option('steps')}, or start a new run with {option('from_')}"
        raise RunFinished(f"{where}: its {plan.steps:,} steps are done: {remedy}")
    if difference := _difference(saved.record, data):
        if not changed_text:
            raise InputError(f"{where}: {difference} {_as_it_was()}")
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
    return Prepared(task, {**saved.record, **make_record(task)}, LoopState(state, now))


def _without_sizes(files: tuple[FileReference, ...]) -> tuple[FileReference, ...]:
    """Files that may have changed since they were recorded."""
    return tuple(file._replace(size=None, unpacked=None) for file in files)


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
        settings = from_flags({**before, "mode": saved.mode, **_other_device(changes), **changes, "cell": cell})
        plan = Hyperparameters(**{name: getattr(settings, name) for name in Hyperparameters._fields})
        source = record["source"]
    except (KeyError, TypeError, AttributeError, InputError) as error:
        raise CheckpointError(f"{where / CONFIG}: is not the record of a run ({error!s:.200})") from None
    shape = (config.hidden, config.layers)
    if not isinstance(source, str | list) or None in plan or shape != (settings.hidden, settings.layers):
        raise CheckpointError(f"{where / CONFIG}: is not the record of this model's run")
    return settings, plan


def _recorded_backend(where: Path, settings: Settings, changes: dict[str, Any]) -> Backend:
    """Select the backend of a run; the error for a device that it had and that does not exist says what to do."""
    try:
        return select_backend(settings)
    except InputError as error:
        if settings.device is None or "device" in changes:
            raise
        raise InputError(
            f"{where}: {error}; the run was on that device: give another {option('device')} or {option('backend')}"
        ) from None


def _other_device(changes: dict[str, Any]) -> dict[str, Any]:
    """The change that another backend brings with it: the device is its default again."""
    return {"device": None} if "backend" in changes else {}


def refuse_other_validation(where: Path, before: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    """Raise an InputError if the changes of a resumed run put a file in the place of a part of its text."""
    if "validation" in changes and not isinstance(before.get("validation"), str | Path):
        problem = f"{option('validation', changes['validation'])}: the validation set of this run is a part of its text"
        raise InputError(f"{problem}: leave it out, or start a new run with {option('from_', where)}")


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
    text = f"its text{_first_changed(record, data)} has changed"
    if now == before:
        return f"{text}: it is as long as before, but not the same: give the text"
    return f"{text}: {now:,} characters to learn and to measure now, {before:,} before: give the text"


def _first_changed(record: dict[str, Any], data: Dataset) -> str:
    """The first of several files whose checksum is not the recorded one; nothing where there is no such record."""
    columns = record.get("files")
    before = columns.get("raw_sha256") if isinstance(columns, dict) else None
    if not isinstance(data.source, list) or data.files is None or not isinstance(before, list):
        return ""
    changed = (place for place, one, then in zip(data.source, data.files["raw_sha256"], before) if one != then)
    return "".join(f" {place!r}" for place in itertools.islice(changed, 1))
