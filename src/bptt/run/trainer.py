"""Training, from the first update or from a checkpoint on: `bptt.train`."""

import contextlib
import dataclasses
import os
import traceback
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from bptt import dispatch, errors
from bptt.errors import Diverged, ForcedInterrupt, InputError, TrainingWarning
from bptt.run import (
    checkpoint,
    configuration,
    environment,
    folder,
    links,
    memory,
    parallel,
    preparation,
    progress,
    resuming,
    session,
    signals,
    together,
    twins,
)
from bptt.run.language_model import LanguageModel
from bptt.run.plans import Plan
from bptt.run.preparation import Ready
from bptt.run.session import Run, Standing, Tell
from bptt.run.settings import Settings, flag, from_flags, path
from bptt.run.training import Task

# what a session that goes on may be told anew
ANEW = (
    "backend",
    "require_backend",
    "graph",
    "distributed",
    "nccl",
    "steps",
    "evaluate_every",
    "patience",
    "checkpoint_every",
    "keep",
    "stop_after",
    "quiet",
    "json",
)


def train(
    text: str | os.PathLike[str] | Iterable[str] | None = None,
    *,
    report: Callable[[str], None] | None = progress.say,
    config: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    changed_text: bool = False,
    **flags: Any,
) -> LanguageModel:
    """Train a model on a text, as in `bptt.train("names.txt", cell="gru", hidden=128, seed=1)`.

    A str with a newline in it is the text itself, "-" is standard input, and any other str is a built-in name (dinosaurs,
    python-help) or a path. An iterable gives lines. Without one, it is the text that `config` names, or the dinosaurs.

    The keywords are the flags of `bptt train`, the fields of `bptt.run.settings.Settings`: cell, hidden, steps and so on.
    `config` is a TOML file that holds some of them; keywords come first. With `out` there is a folder of the run, with
    checkpoints to go on from; without, everything stays in memory. `report` gets each piece of news as a string; None is
    silence.

    `resume` goes on with the run in a folder, exactly as if it had never stopped, or from one checkpoint alone in a new
    run; it needs no other arguments, but may have more `steps`. A text that is not the same any more is refused unless
    `changed_text`.

    Returns the best model: the one with the lowest loss on what is held out. Ctrl-C ends the run after the next update; so
    does a loss that becomes NaN or infinite, with a TrainingWarning. After any other exception what was learnt is saved in
    the folder of the run, and the exception goes on. A model that cannot be saved is returned all the same, with a
    TrainingWarning and the reason in its record.

    Raises:
        InputError: a text that cannot be read or learnt from, or a flag that is unknown or out of its range.
        CheckpointError: there is nothing to go on from.
        Diverged: the loss was not finite before there was anything to keep.
        OutOfMemory: the run needs more memory than there is.
    """
    with together.telling_all(alone=flags.get("distributed") is False):
        told = {**({} if config is None else configuration.beside(flags, path("config", config))), **flags}
    named = told.pop("text", None)
    text = named if text is None else text
    with together.telling_all(alone=told.get("distributed") is False):
        settings = from_flags(told)
        tell = progress.plain(settings, report)
        if resume is not None:
            return go_on(path("resume", resume), text, told, tell, changed_text=changed_text)
    return begin("dinosaurs" if text is None else text, settings, tell)


def begin(
    text: Any, settings: Settings, tell: Tell, *, runs: Path | None = None, caught: tuple[str, ...] = signals.INTERRUPT
) -> LanguageModel:
    """Train from the first update on; the command line gives `runs`, where a run gets a folder if there is no `out`."""
    among, told = together.begin(text, settings, "a new run"), settings
    if among.rank:
        settings, runs, tell = dataclasses.replace(settings, out=None), None, together.silent
    with parallel.ending_together(among), contextlib.ExitStack() as stack:
        stack.enter_context(dispatch.restored())
        arrived = stack.enter_context(signals.noted(caught)) if among.size > 1 else None  # MPI may swallow some
        parallel.first(among, partial(checkpoint.refuse_unusable, settings.out))  # before hours are spent
        ready = together.prepared(among, told, lambda: preparation.from_scratch(text, settings, among))
        out = parallel.first(among, lambda: _new_folder(ready.task, settings.out, runs, stack))
        try:
            tell(progress.heading(ready.task), {"event": "start", "record": ready.record})
            return carry_out(ready, out, tell, caught, arrived)
        except BaseException as error:
            if out and not isinstance(error, ForcedInterrupt):
                folder.discard(out)
            raise


def go_on(
    place: Path,
    text: Any,
    told: dict[str, Any],
    tell: Tell,
    *,
    changed_text: bool = False,
    runs: Path | None = None,
    caught: tuple[str, ...] = signals.INTERRUPT,
) -> LanguageModel:
    """Go on with a run from its newest checkpoint, or with a lone checkpoint in a new run; `told` can only be of `ANEW`."""
    in_place = folder.is_run(place)
    for name, value in told.items():
        if name not in ANEW and not (name == "out" and not in_place):
            beginning = f"leave it out, or begin a new run with --from {place}"
            raise InputError(f"{flag(name)} {value}: a run goes on as it was begun: {beginning}")
    told = {name: value for name, value in told.items() if value is not None or name not in Plan._fields}  # None: as before
    asked = from_flags({name: value for name, value in told.items() if name in ("backend", "distributed", "out")})
    among = together.begin(text, asked, "a run to go on with" if in_place else "a checkpoint to go on with")
    if among.rank:
        tell = together.silent
    with parallel.ending_together(among), contextlib.ExitStack() as stack:
        stack.enter_context(dispatch.restored())
        arrived = stack.enter_context(signals.noted(caught)) if among.size > 1 else None
        out: Path | None = None if among.rank else place
        if in_place:
            parallel.first(among, lambda: stack.enter_context(folder.locked(place)))
            prepare = partial(resuming.from_run, place, text, told, among, changed_text=changed_text)
            ready = together.prepared(among, asked, prepare)
            parallel.first(among, lambda: folder.reconfigure(place, configuration.to_toml(ready.task)))
        else:
            prepare = partial(resuming.from_lone, place, text, told, among, changed_text=changed_text)
            ready = together.prepared(among, asked, prepare)
            named = path("out", told["out"]) if "out" in told else None
            out = parallel.first(among, lambda: _first_checkpoint(ready, _new_folder(ready.task, named, runs, stack), tell))
        step = ready.now.progress.step
        row = {"event": "resume", "step": step, "record": ready.record, "history": list(ready.now.progress.history)}
        tell(progress.going_on(ready.task, place, step), row)
        return carry_out(ready, out, tell, caught, arrived)


def _first_checkpoint(ready: Ready, out: Path | None, tell: Tell) -> Path | None:
    """The folder of a run that goes on from a lone checkpoint, if there is one; that is its first one then."""
    if out is not None:
        folder.rewrite(out, ready.now.progress.history)
        session.save(Run(ready.task, ready.record, out, tell), ready.now)
    return out


def carry_out(
    ready: Ready, out: Path | None, tell: Tell, caught: tuple[str, ...], early: list[str] | None = None
) -> LanguageModel:
    """Train to the end, whatever it is, save, and say what there is now; `early` gets signals from before on, if given."""
    twins.rehearse(ready.task.config, ready.task.backend, ready.task.ranks)
    here = {**environment.session(ready.task.backend), "compiled": twins.name(ready.task.backend)}
    if ready.task.link is not None:
        here |= {"processes": ready.task.ranks.size, "sums by": str(ready.task.link)}
    if out:
        folder.record_session(out, here, new=True)
    run = Run(ready.task, ready.record, out, tell)
    noted = signals.noted(caught) if early is None else contextlib.nullcontext(early)
    with np.errstate(all="ignore"), noted as arrived:  # a loss that is not finite is told in words, once
        now = session.go_on(run, ready.now, arrived)
    if now.error is None or getattr(now.error, "agreed", False):  # all processes are here, or will be
        with contextlib.suppress(RuntimeError):  # of a device that is lost; the run is over
            links.close(ready.task.link)
    if now.state.step == 0 and now.error is None:
        raise KeyboardInterrupt("interrupted; nothing was learnt, nothing is saved")
    hurried = isinstance(now.error, KeyboardInterrupt)  # the disk may hang
    failed = now.error is not None and not isinstance(now.error, Diverged | errors.SaveError)
    if isinstance(now.error, MemoryError):
        traceback.clear_frames(now.error.__traceback__)  # the arrays of the update that failed make room for a save
    if failed and not hurried and now.state.step:
        with contextlib.suppress(Exception):  # what comes to light is the first error
            session.save(run, now)
    elif now.ended == "SIGINT":
        now = _saved(run, now)
    if out and not hurried:
        with contextlib.suppress(InputError, MemoryError):
            ended = {"ended": now.ended or "done", "step": now.state.step, "seconds": now.progress.seconds}
            folder.record_session(out, {**here, **ended}, new=False)
    if now.error is not None and failed:
        _fail(run, now.error)
    return _ending(run, now, session.best(run, now))


def _saved(run: Run, now: Standing) -> Standing:
    """The same standing, saved, or with the reason why it could not be."""
    try:
        session.save(run, now)
    except (errors.SaveError, Diverged) as error:
        return now._replace(ended="unsaved" if isinstance(error, errors.SaveError) else "diverged", error=error)
    return now


def _fail(run: Run, error: BaseException) -> NoReturn:
    """Raise what a run ends with, after the news of how to go on."""
    if run.folder and folder.has_saved(run.folder) and not isinstance(error, KeyboardInterrupt):
        warnings.warn(progress.failed(error, run.task, run.folder), TrainingWarning, stacklevel=4)
    if isinstance(error, MemoryError):
        raise errors.OutOfMemory(memory.advice(run.task)) from error
    if isinstance(error, KeyboardInterrupt) and run.folder:
        saved = "what was saved before is in" if folder.has_saved(run.folder) else "nothing was saved yet in"
        raise ForcedInterrupt(f"interrupted; {saved} {run.folder}: {progress.again(run.task, run.folder)}")
    raise error


def _ending(run: Run, now: Standing, trained: LanguageModel | None) -> LanguageModel:
    """The model that a run ends with, after the last news."""
    error = now.error
    if trained is None:
        if isinstance(error, Diverged):
            raise Diverged(f"{error}; nothing was learnt, nothing is saved")
        raise error or KeyboardInterrupt("interrupted; nothing was learnt, nothing is saved")
    run.tell(*progress.ending(trained, run.task, run.folder, now.ended, now.state.step))
    if isinstance(error, errors.SaveError):
        elsewhere = session.save_elsewhere(run, now)
        problem = f"{error}; " + (f"where the run stands is saved in {elsewhere} instead" if elsewhere else "it is not saved")
        trained.record["unsaved"] = problem
        warnings.warn(problem, TrainingWarning, stacklevel=4)
    elif isinstance(error, Diverged):
        warnings.warn(progress.kept(error, trained, run.folder), TrainingWarning, stacklevel=4)
    return trained


def _new_folder(task: Task, named: Path | None, runs: Path | None, stack: contextlib.ExitStack) -> Path | None:
    """Make and lock the folder of a run: the one that was named, or a free name in `runs`, or none."""
    while (out := named or (runs and checkpoint.free(runs / task.data.name))) is not None:
        try:
            folder.create(out, configuration.to_toml(task), {"sessions": []})
        except errors.AlreadyExists:
            if named:
                raise
            continue  # another run has taken the name in the meantime
        stack.enter_context(folder.locked(out))
        return out
    return None
