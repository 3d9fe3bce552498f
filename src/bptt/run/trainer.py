"""Training, from the first update or from a checkpoint on: `bptt.train`."""

import contextlib
import os
import traceback
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from bptt.errors import InputError
from bptt.run import checkpoint, configuration, environment, folder, memory, preparation, progress, session, signals
from bptt.run.contents import Checkpoint
from bptt.run.language_model import LanguageModel
from bptt.run.preparation import Ready
from bptt.run.session import Diverged, Run, Standing, Tell, TrainingWarning
from bptt.run.settings import Settings, flag, from_flags, path

# what a session that goes on may be told anew
ANEW = (
    "backend",
    "require_backend",
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
    told = {**({} if config is None else configuration.read(path("config", config))), **flags}
    named = told.pop("text", None)
    text = named if text is None else text
    tell = progress.plain(from_flags(told), report)
    if resume is not None:
        return go_on(path("resume", resume), text, told, tell, changed_text=changed_text)
    return begin("dinosaurs" if text is None else text, from_flags(told), tell)


def begin(
    text: Any, settings: Settings, tell: Tell, *, runs: Path | None = None, caught: tuple[str, ...] = signals.INTERRUPT
) -> LanguageModel:
    """Train from the first update on; the command line gives `runs`, where a run gets a folder if there is no `out`."""
    ready = preparation.from_scratch(text, settings, folder.read(settings.from_) if settings.from_ else None)
    with contextlib.ExitStack() as stack:
        out = _new_folder(ready, settings.out, runs, stack)
        tell(progress.heading(ready.model, ready.task), {"event": "start", "record": ready.model.record})
        try:
            return carry_out(ready, out, tell, caught)
        except BaseException:
            if out:
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
    with contextlib.ExitStack() as stack:
        if in_place:
            stack.enter_context(folder.locked(place))
        if in_place and not folder.steps(place):  # ended before its first checkpoint
            first = {**configuration.read(place / folder.CONFIG), **told}
            named = first.pop("text", None)
            if text is None and named in (None, "-"):
                raise InputError(f"{place}: the run has no checkpoint yet and no file of text: give the text beside --resume")
            source = Path(first["from_"]) if first.get("from_") else None
            read = folder.read(source) if source else None
            folder.mend(place, None, [])
            ready = preparation.from_scratch(named if text is None else text, from_flags(first), read)
        else:
            where, saved = folder.read(place, run=True)
            saved = _mended(place, where, saved) if in_place else _alone(saved)
            ready = preparation.from_checkpoint(where, saved, text, told, changed_text=changed_text)
        out: Path | None = place
        if not in_place:
            out = _new_folder(ready, path("out", told["out"]) if "out" in told else None, runs, stack)
            ready = _settled(ready, out, tell)
        step = ready.now.progress.step
        heading = progress.going_on(ready.model, ready.task, place, step)
        row = {"event": "resume", "step": step, "record": ready.model.record}
        tell(heading, {**row, "history": list(ready.now.progress.history)})
        return carry_out(ready, out, tell, caught)


@np.errstate(all="ignore")  # a loss that is not finite is told in words, once
def carry_out(ready: Ready, out: Path | None, tell: Tell, caught: tuple[str, ...]) -> LanguageModel:
    """Train to the end, whatever it is, save, and say what there is now."""
    here = environment.session(ready.task.backend)
    if out:
        folder.record_session(out, here, new=True)
    run = Run(ready.task, ready.model, out, tell)
    with signals.noted(caught) as arrived:
        now = session.go_on(run, ready.now, arrived)
    if now.state.step == 0 and now.error is None:
        raise KeyboardInterrupt("interrupted; nothing was learnt, nothing is saved")
    hurried = isinstance(now.error, KeyboardInterrupt)  # the disk may hang
    failed = now.error is not None and not isinstance(now.error, Diverged | checkpoint.Unsaved)
    if isinstance(now.error, MemoryError):
        traceback.clear_frames(now.error.__traceback__)  # the arrays of the update that failed make room for a save
    if failed and not hurried:
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
    except (checkpoint.Unsaved, Diverged) as error:
        return now._replace(ended="unsaved" if isinstance(error, checkpoint.Unsaved) else "diverged", error=error)
    return now


def _fail(run: Run, error: BaseException) -> NoReturn:
    """Raise what a run ends with, after the news of how to go on."""
    if run.folder and folder.steps(run.folder):
        warnings.warn(progress.failed(error, run.folder), TrainingWarning, stacklevel=4)
    if isinstance(error, MemoryError):
        raise memory.OutOfMemory(memory.advice(run.task)) from error
    raise error


def _ending(run: Run, now: Standing, trained: LanguageModel | None) -> LanguageModel:
    """The model that a run ends with, after the last news."""
    error = now.error
    if trained is None:
        if isinstance(error, Diverged):
            raise Diverged(f"{error}; nothing was learnt, nothing is saved")
        raise error or KeyboardInterrupt("interrupted; nothing was learnt, nothing is saved")
    if isinstance(error, checkpoint.Unsaved):
        elsewhere = session.save_elsewhere(run, now)
        problem = f"{error}; " + (f"where the run stands is saved in {elsewhere} instead" if elsewhere else "it is not saved")
        trained.record["unsaved"] = problem
        warnings.warn(problem, TrainingWarning, stacklevel=4)
        return trained
    if isinstance(error, Diverged):
        warnings.warn(progress.kept(error, trained, run.folder), TrainingWarning, stacklevel=4)
        return trained
    words, row = progress.ending(trained, run.task, run.folder, now.ended, now.state.step)
    run.tell(words, row)
    return trained


def _new_folder(ready: Ready, named: Path | None, runs: Path | None, stack: contextlib.ExitStack) -> Path | None:
    """Make and lock the folder of a run: the one that was named, or a free name in `runs`, or none."""
    while (out := named or (runs and checkpoint.free(runs / ready.task.data.name))) is not None:
        checkpoint.refuse_unusable(out)
        task = ready.task
        text = configuration.write(task.data.source, task.settings, task.plan, mode=task.data.mode)
        try:
            folder.create(out, text, {"sessions": []})
        except checkpoint.Taken:
            if named:
                raise
            continue  # another run has taken the name in the meantime
        stack.enter_context(folder.locked(out))
        return out
    return None


def _mended(out: Path, where: Path, saved: Checkpoint) -> Checkpoint:
    """Tidy up the folder of a run to go on in, and forget a best checkpoint that is not there any more."""
    now = saved.progress or preparation.BEGINNING
    folder.mend(out, where, now.history)
    if now.best and now.best[0] != now.step:
        best = out / folder.CHECKPOINTS / folder.name(now.best[0])
        try:
            checkpoint.read(best)
        except checkpoint.CheckpointError as problem:
            warnings.warn(f"{problem}; the best from here on takes its place", folder.CheckpointWarning, stacklevel=4)
            now = now._replace(best=None, waited=0)
    folder.point(out, where.name, folder.name(now.best[0]) if now.best else where.name)
    return saved._replace(progress=now)


def _alone(saved: Checkpoint) -> Checkpoint:
    """A checkpoint that leaves its run, and with it the best one."""
    now = saved.progress or preparation.BEGINNING
    return saved if now.best and now.best[0] == now.step else saved._replace(progress=now._replace(best=None, waited=0))


def _settled(ready: Ready, out: Path | None, tell: Tell) -> Ready:
    """A run that goes on with a lone checkpoint: that is its first one, and the best so far if it was before."""
    now = ready.now._replace(best=ready.model if ready.now.progress.best else None)
    if out:
        folder.rewrite(out, now.progress.history)
        session.save(Run(ready.task, ready.model, out, tell), now)
    return ready._replace(now=now)
