"""Resume a run from the newest checkpoint in its folder, which is tidied up, or a new run from a single checkpoint."""

from pathlib import Path
from typing import Any

from bptt import errors
from bptt.checkpoint import run_folder, store
from bptt.checkpoint.format import Checkpoint
from bptt.config import toml, user_cells
from bptt.config.settings import from_flags
from bptt.distributed.process_group import ProcessGroup
from bptt.errors import InputError
from bptt.files import FileReference
from bptt.inference.language_model import model_from_checkpoint
from bptt.nn.cells import Cell
from bptt.training import setup
from bptt.training.setup import Prepared


def from_run(place: Path, text: Any, changes: dict[str, Any], group: ProcessGroup, *, changed_text: bool) -> Prepared:
    """Set up a run to be resumed in its own folder, which process 0 tidies up if nothing is in the way.

    Raises what `setup.from_checkpoint` does, and before the first checkpoint what `setup.from_scratch` does.
    """
    mending, cell = group.rank == 0, changes.get("cell")
    if not run_folder.checkpoints(place):  # ended before its first checkpoint
        config = toml.read(place / run_folder.CONFIG, without=["cell"] if cell else [], named=False)
        setup.refuse_other_validation(place, config, changes)
        first = {**config, "nccl": False, **changes}
        named = first.pop("text", None)
        if text is None and named in (None, "-"):
            raise InputError(f"{place}: the run has no checkpoint yet and no file of text: give the text beside --resume")
        if cell:
            _match_last_session(place, cell)
        settings = from_flags(first)
        file = settings.validation if "validation" not in changes else None
        validation = FileReference(str(file)) if isinstance(file, Path) else None
        prepared = setup.from_scratch(named if text is None else text, settings, group, validation)
        if mending:
            run_folder.repair(place, None, [])
        return prepared
    where, saved = run_folder.read_checkpoint(place, run=True, cell=cell)
    saved = _with_best(place, saved)
    try:
        prepared = setup.from_checkpoint(where, saved, text, changes, group, changed_text=changed_text)
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


def _match_last_session(place: Path, cell: Cell) -> None:
    """Raise an InputError if a run without a checkpoint was started with another user-defined cell."""
    sessions = run_folder.read_environment(place).get("sessions")
    session = sessions[-1] if isinstance(sessions, list) and sessions else None
    if isinstance(session, dict) and "cell_file" in session:
        user_cells.match(place, user_cells.name_of(cell), session, cell)


def _mend(place: Path, where: Path, saved: Checkpoint) -> None:
    now = saved.progress or setup.NO_PROGRESS
    run_folder.repair(place, where, now.history)
    run_folder.update_links(place, where.name, run_folder.checkpoint_name(now.best[0]) if now.best else where.name)


def _with_best(place: Path, saved: Checkpoint) -> Checkpoint:
    """A checkpoint of a run without its best one, if that does not exist any more."""
    now = saved.progress or setup.NO_PROGRESS
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

    Raises what `setup.from_checkpoint` does.
    """
    where, saved = run_folder.read_checkpoint(place, run=True, cell=changes.get("cell"))
    now = saved.progress or setup.NO_PROGRESS
    if now.best and now.best[0] != now.step:
        saved = saved._replace(progress=now._replace(best=None, waited=0))
    prepared = setup.from_checkpoint(where, saved, text, changes, group, changed_text=changed_text)
    best = model_from_checkpoint(saved, prepared.task.backend) if prepared.now.progress.best else None
    return prepared._replace(now=prepared.now._replace(best=best))
