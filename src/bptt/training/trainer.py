"""Training, from the first update or from a checkpoint on: `bptt.train`."""

import contextlib
import dataclasses
import os
import time
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from bptt import acceleration, dispatch, errors, system
from bptt.checkpoint import run_folder, store
from bptt.config import toml
from bptt.config.defaults import Hyperparameters
from bptt.config.rules import check_path, names_a_file
from bptt.config.settings import MAY_CHANGE_ON_RESUME, Settings, from_flags
from bptt.config.user_cells import is_user_cell
from bptt.data.dataset import count_text_targets, validation_share
from bptt.display import notebook, text
from bptt.distributed.launcher import launched_processes
from bptt.errors import Diverged, ForcedInterrupt, InputError, TrainingWarning, option
from bptt.inference.language_model import LanguageModel
from bptt.train_step.state import TrainTask
from bptt.training import budget, checkpoints, events, launch, loop, memory_estimate, messages, resume, setup, signals
from bptt.training.setup import Prepared
from bptt.training.state import LoopState, Reporter, RunContext


def train(
    text: str | bytes | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None = None,
    *,
    report: Callable[[str], None] | None = text.print_safe,
    config: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    changed_text: bool = False,
    callbacks: Iterable[events.Callback] = (),
    **flags: Any,
) -> LanguageModel:
    """Implement `bptt.train` (declared in `training.api`); `flags` holds the settings that the caller passed."""
    began = time.perf_counter()
    with launch.fail_on_all(alone=flags.get("distributed") is False):
        passed = {**({} if config is None else toml.read_beneath(flags, check_path("config", config))), **flags}
    text_of_file = passed.pop("text", None)
    text = text_of_file if text is None else text
    with launch.fail_on_all(alone=passed.get("distributed") is False):
        settings = from_flags(passed)
        if "cell" in passed:
            passed["cell"] = settings.cell  # loaded once
        reporter, functions = _make_reporter(settings, report), events.check_callbacks(callbacks)
        if resume is not None:
            place = check_path("resume", resume)
            return resume_run(place, text, passed, reporter, changed_text=changed_text, callbacks=functions)
    return start("dinosaurs" if text is None else text, settings, reporter, began=began, callbacks=functions)


def _make_reporter(settings: Settings, report: Callable[[str], None] | None) -> Reporter:
    """A progress display in a notebook, where nothing else was asked for; else a reporter of lines."""
    if report is not None and not callable(report):
        raise InputError(f"report {report!r:.80}: expected a function that takes a line, or None for silence")
    default = report is text.print_safe and not settings.quiet and not settings.json
    if default and notebook.in_notebook() and launched_processes() == 1:
        return notebook.ProgressDisplay().report
    return messages.make_reporter(settings, report)


def start(
    text: Any,
    settings: Settings,
    report: Reporter,
    *,
    began: float | None = None,
    runs: Path | None = None,
    caught: tuple[str, ...] = signals.INTERRUPT,
    callbacks: tuple[events.Callback, ...] = (),
) -> LanguageModel:
    """Train a new run; without `out`, the command line makes a folder for it in `runs`.

    A budget counts from `began`, a time of `time.perf_counter`; by default from now.
    """
    began = time.perf_counter() if began is None else began
    group, requested = launch.init_training_group(text, settings, "a new run"), settings
    if group.rank:
        settings, runs = dataclasses.replace(settings, out=None), None
        report, callbacks = launch.silent_reporter, ()
    with group.abort_all_on_error(), contextlib.ExitStack() as stack:
        stack.enter_context(dispatch.restored())
        arrived_signals = stack.enter_context(signals.catch_signals(caught)) if group.size > 1 else None  # MPI may swallow some
        group.on_rank_0(partial(store.check_can_save, settings.out))  # before hours are spent
        prepared = launch.setup_all(group, requested, lambda: setup.from_scratch(text, settings, group))
        saving = settings.out is not None or runs is not None
        prepared = budget.fit_to_budget(prepared, requested, began, report, saving=saving)
        if group.rank == 0:
            messages.warn_of_long_warmup(prepared.task)
        out = group.on_rank_0(lambda: _new_folder(prepared.task, settings.out, runs, stack))
        try:
            header = messages.header(prepared.task, prepared.record.get("budget"))
            report(header, {"event": "start", "record": prepared.record})
            run = RunContext(prepared.task, prepared.record, out, report, callbacks)
            return fit(run, prepared.now, caught, arrived_signals)
        except BaseException as error:
            if out and not isinstance(error, ForcedInterrupt):
                run_folder.discard(out)
            raise


def resume_run(
    folder: Path,
    text: Any,
    changes: dict[str, Any],
    report: Reporter,
    *,
    changed_text: bool = False,
    runs: Path | None = None,
    caught: tuple[str, ...] = signals.INTERRUPT,
    callbacks: tuple[events.Callback, ...] = (),
) -> LanguageModel:
    """Resume a run from its newest checkpoint, or a lone checkpoint in a new run; `changes` holds the settings that change."""
    in_place = run_folder.is_run(folder)
    for name, value in changes.items():
        moved = name == "validation" and names_a_file(value)  # the same file elsewhere, as its checksum will show
        allowed = moved or name in MAY_CHANGE_ON_RESUME or (name == "out" and not in_place)
        if not allowed and not (name == "cell" and is_user_cell(value)):  # a user-defined cell is not saved with the run
            advice = f"leave it out, or start a new run with {option('from_', folder)}"
            raise InputError(f"{option(name, value)}: a resumed run keeps this setting: {advice}")
    changes = {
        name: value for name, value in changes.items() if value is not None or name not in Hyperparameters._fields
    }  # None: as before
    connection = from_flags({name: value for name, value in changes.items() if name in ("backend", "distributed", "out")})
    group = launch.init_training_group(text, connection, "a run to resume" if in_place else "a checkpoint to resume")
    if group.rank:
        report, callbacks = launch.silent_reporter, ()
    with group.abort_all_on_error(), contextlib.ExitStack() as stack:
        stack.enter_context(dispatch.restored())
        arrived_signals = stack.enter_context(signals.catch_signals(caught)) if group.size > 1 else None
        out: Path | None = None if group.rank else folder
        if in_place:
            group.on_rank_0(lambda: stack.enter_context(run_folder.locked(folder)))
            prepare = partial(resume.from_run, folder, text, changes, group, changed_text=changed_text)
            prepared = launch.setup_all(group, connection, prepare)
            group.on_rank_0(lambda: run_folder.write_config(folder, _config_toml(prepared.task)))
        else:
            prepare = partial(resume.from_single_checkpoint, folder, text, changes, group, changed_text=changed_text)
            prepared = launch.setup_all(group, connection, prepare)
            out_setting = check_path("out", changes["out"]) if "out" in changes else None
            out = group.on_rank_0(
                lambda: _first_checkpoint(prepared, _new_folder(prepared.task, out_setting, runs, stack), report)
            )
        step = prepared.now.progress.step
        row = {"event": "resume", "step": step, "record": prepared.record, "history": list(prepared.now.progress.history)}
        report(messages.resume_header(prepared.task, folder, step), row)
        run = RunContext(prepared.task, prepared.record, out, report, callbacks)
        return fit(run, prepared.now, caught, arrived_signals)


def _first_checkpoint(prepared: Prepared, out: Path | None, report: Reporter) -> Path | None:
    """Save the checkpoint that a new run starts from as the first one of its folder, if it has one; returns the folder."""
    if out is not None:
        run_folder.write_history(out, prepared.now.progress.history)
        checkpoints.save(RunContext(prepared.task, prepared.record, out, report), prepared.now)
    return out


def fit(run: RunContext, now: LoopState, caught: tuple[str, ...], early: list[str] | None = None) -> LanguageModel:
    """Train until the run ends, for whatever reason, save, and report; `early` is a list that already collects signals."""
    task, out = run.task, run.folder
    messages.report_compilation(task, run.report)
    acceleration.warm_up(task.config, task.backend, task.group)
    environment = {**system.run_environment(task.backend), "compiled": acceleration.compiled_by(task.backend)}
    if "cell_file" in run.record:
        environment["cell_file"] = run.record["cell_file"]
    if task.all_reduce is not None:
        environment |= {"processes": task.group.size, "sums by": task.all_reduce.transport}
    if out:
        run_folder.record_session(out, environment, new=True)
    events.send(run, "start", now, {})
    catching = signals.catch_signals(caught) if early is None else contextlib.nullcontext(early)
    with np.errstate(all="ignore"), catching as arrived_signals:  # a loss that is not finite is changes in words, once
        now = loop.train_loop(run, now, arrived_signals)
    if task.all_reduce is not None and (now.error is None or task.group.all_raise(now.error)):  # which all processes reach
        with contextlib.suppress(RuntimeError):  # of a device that is lost; the run is over
            task.all_reduce.close()
    if now.state.step == 0 and now.error is None:
        raise KeyboardInterrupt("interrupted; nothing was learnt, nothing is saved")
    forced = isinstance(now.error, KeyboardInterrupt)  # the disk may hang
    failed = now.error is not None and not isinstance(now.error, Diverged | errors.SaveError)
    if isinstance(now.error, MemoryError):
        traceback.clear_frames(now.error.__traceback__)  # the arrays of the update that failed make room for a save
    if failed and not forced and now.state.step:
        with contextlib.suppress(Exception):  # what comes to light is the first error
            checkpoints.save(run, now)
    elif now.ended == "SIGINT":
        now = _try_save(run, now)
    if out and not forced:
        with contextlib.suppress(InputError, MemoryError):
            ended = {"ended": now.ended or "done", "step": now.state.step, "seconds": now.progress.seconds}
            run_folder.record_session(out, {**environment, **ended}, new=False)
    if now.error is not None and failed:
        _fail(run, now, now.error)
    return _finish(run, now, checkpoints.best_model(run, now))


def _try_save(run: RunContext, now: LoopState) -> LoopState:
    """Save the state of the loop; returns it, with the reason if it could not be saved."""
    try:
        checkpoints.save(run, now)
    except (errors.SaveError, Diverged) as error:
        return now._replace(ended="unsaved" if isinstance(error, errors.SaveError) else "diverged", error=error)
    return now


def _fail(run: RunContext, now: LoopState, error: BaseException) -> NoReturn:
    """Raise the error that a run failed with, after a warning that says how to resume."""
    if not isinstance(error, KeyboardInterrupt):
        events.send_failure(run, now)
    if run.folder and run_folder.has_saved(run.folder) and not isinstance(error, KeyboardInterrupt):
        errors.warn(messages.failure_message(error, run.task, run.folder), TrainingWarning)
    if isinstance(error, MemoryError):
        raise errors.OutOfMemory(memory_estimate.out_of_memory_message(run.task)) from error
    if isinstance(error, KeyboardInterrupt) and run.folder:
        saved = "what was saved before is in" if run_folder.has_saved(run.folder) else "nothing was saved yet in"
        raise ForcedInterrupt(f"interrupted; {saved} {run.folder}: {messages.resume_command(run.task, run.folder)}")
    raise error


def _finish(run: RunContext, now: LoopState, trained: LanguageModel | None) -> LanguageModel:
    """Report the end of a run and return its model."""
    error = now.error
    if trained is None:
        events.send_failure(run, now)
        if isinstance(error, Diverged):
            raise Diverged(f"{error}; nothing was learnt, nothing is saved")
        raise error or KeyboardInterrupt("interrupted; nothing was learnt, nothing is saved")
    words, row = messages.end_message(trained, run.task, run.folder, now.ended, now.state.step)
    run.report(words, row)
    if isinstance(error, errors.SaveError):
        elsewhere = checkpoints.save_elsewhere(run, now)
        problem = f"{error}; " + (f"where the run stands is saved in {elsewhere} instead" if elsewhere else "it is not saved")
        trained.record["unsaved"] = problem
        errors.warn(problem, TrainingWarning)
    elif isinstance(error, Diverged):
        errors.warn(messages.diverged_message(error, trained, run.folder), TrainingWarning)
    events.send(run, "end", now, {name: value for name, value in row.items() if name != "event"}, trained)
    return trained


def _new_folder(task: TrainTask, out_setting: Path | None, runs: Path | None, stack: contextlib.ExitStack) -> Path | None:
    """Make and lock the folder of a run: the one that the settings name, or a free name in `runs`, or none."""
    while (out := out_setting or (runs and store.free_name(runs / task.data.name))) is not None:
        try:
            run_folder.create(out, _config_toml(task), {"sessions": []})
        except errors.AlreadyExists:
            if out_setting:
                raise
            continue  # another run has taken the name in the meantime
        stack.enter_context(run_folder.locked(out))
        return out
    return None


def _config_toml(task: TrainTask) -> str:
    """What config.toml of a run holds."""
    data = task.data
    file = Path(data.validation_file) if data.validation_file else None
    validation = file or validation_share(task.settings, count_text_targets(data))
    return toml.to_toml(task.settings, task.plan, data.mode, data.source, validation)
