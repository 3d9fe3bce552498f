"""A training run: batches to updates, now and then a measurement, in the end a LanguageModel."""

import contextlib
import dataclasses
import math
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bptt import backend as backends
from bptt.backend import Array
from bptt.errors import InputError
from bptt.nn import model, optimizers, packing
from bptt.run import checkpoint, progress
from bptt.run.data import Data, batches_in_epoch, epochs, held_out_batches, prepare, targets
from bptt.run.evaluation import evaluate
from bptt.run.language_model import LanguageModel
from bptt.run.settings import Plan, Settings, choose, from_flags

WARM_UP = 200  # steps in which the rate rises, or a tenth of a shorter run
MEASUREMENTS = 10  # of the held-out part, in a run
PATIENCE = 2.0  # seconds without news, after which a run says how long it will take
BYTES_PER_PARAMETER = 24  # at least: float32 weights, gradient, its two means, and what replaces them

UPDATES: dict[str, Callable[..., tuple[Array, optimizers.State]]] = {
    "adam": optimizers.adam,
    "rmsprop": optimizers.rmsprop,
    "adagrad": optimizers.adagrad,
    "momentum": optimizers.momentum,
    "sgd": optimizers.sgd,
}


class Diverged(ArithmeticError):
    """A run whose loss, or a weight, was not finite before its first measurement: there is no model to keep."""


class TrainingWarning(UserWarning):
    """A run that ended before its time, or a model that could not be saved where it should be."""


class Snapshot(NamedTuple):
    """Where a run stands after an update."""

    step: int
    theta: Array  # (P,) parameters
    loss: Array  # () of the batch, nats per character


def train(
    text: str | os.PathLike[str] | Iterable[str] = "dinosaurs",
    *,
    report: Callable[[str], None] | None = progress.say,
    **flags: Any,
) -> LanguageModel:
    """Train a model on a text, as in `bptt.train("names.txt", cell="gru", hidden=128, seed=1)`.

    A str with a newline in it is the text itself, "-" is standard input, and any other str is a built-in name (dinosaurs,
    python-help) or a path. An iterable gives lines.

    The keywords are the flags of `bptt train`: out, backend, require_backend, dtype, cell, hidden, layers, dropout, init,
    batch, length, mode, vocabulary, steps, epochs, optimizer, learning_rate, clip_norm, seed, validation and quiet;
    `bptt.run.settings.Settings` says what each one means. `report` gets each piece of news as a string; None is silence.

    Ctrl-C stops the run and returns the best model so far; so does a loss that becomes NaN or infinite, with a
    TrainingWarning. After any other exception the best model so far is saved in `out`, and the exception goes on. A model that
    cannot be saved is returned all the same, with a TrainingWarning and the reason in its record.

    Raises:
        InputError: a text that cannot be read or learnt from, or a flag that is unknown or out of its range.
        Diverged: the loss was not finite before there was anything to keep.
    """
    return fit(text, from_flags(flags), report)


@np.errstate(all="ignore")  # a loss that is not finite is told in words, once
def fit(text: Any, settings: Settings, report: Callable[[str], None] | None, runs: Path | None = None) -> LanguageModel:
    """Train as the settings say and save the model in `out`.

    The command line gives `runs`: there the model gets a folder of its own if there is no `out`, and one among the system's
    temporary files if it cannot be saved.
    """

    def tell(news: Callable[..., str], *about: Any) -> None:
        if report and not settings.quiet:
            report(news(*about))

    # one generator for each use, so that dropout, say, does not change the order of the batches
    split_rng, weights_rng, order_rng, dropout_rng = np.random.default_rng(settings.seed).spawn(4)
    where = backends.select(settings.backend, settings.dtype, require=settings.require_backend or None)
    data = prepare(text, settings, split_rng)
    out = settings.out or (runs and checkpoint.free(runs / data.name))
    if out is not None:
        checkpoint.refuse_unusable(out)
    plan = choose(settings, data.mode, targets(data.training), lambda batch, length: batches_in_epoch(data, batch, length))
    config = model.Config(settings.cell, len(data.vocabulary), plan.hidden, settings.layers)
    _refuse_too_large(config)
    params = packing.transform(where.put, model.init(config, weights_rng, settings.init))
    record = {
        "text": data.name,
        "settings": {**vars(settings), "out": None if settings.out is None else str(settings.out)},
        "plan": plan._asdict(),
        "backend": {"asked": where.asked, "ran": where.name},
    }
    untrained = LanguageModel(config, data.vocabulary, data.mode, params, where, record)
    tell(progress.heading, untrained, data, settings, plan)
    updates = _updates(untrained, data, settings, plan, order_rng, dropout_rng)
    trained, end = _watch(untrained, data, plan, updates, tell)
    saved, problem = _save(trained, out, spare=runs is not None) if out else (None, "")  # first of all: what follows may fail
    if problem:
        trained = dataclasses.replace(trained, record={**trained.record, "unsaved": problem})
        warnings.warn(problem, TrainingWarning, stacklevel=1)
    if isinstance(end, Diverged):
        warnings.warn(f"{end}; the best model before is kept", TrainingWarning, stacklevel=1)
    elif isinstance(end, KeyboardInterrupt):
        tell(progress.interrupted, trained)
    elif end is not None:
        if saved:
            why = f"the run failed ({type(end).__name__}): the best model before is saved in {saved}"
            warnings.warn(why, TrainingWarning, stacklevel=1)
        raise end
    tell(progress.ending, trained, data, saved)
    if report and settings.quiet and saved and saved != settings.out:  # nobody could know where
        report(str(saved))
    return trained


def _refuse_too_large(config: model.Config) -> None:
    """Raise an InputError for a model that this machine cannot train, before the system kills the process for it."""
    parameters = packing.count(model.shapes(config))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else math.inf
    if BYTES_PER_PARAMETER * parameters > memory:
        raise InputError(
            f"--hidden {config.hidden} --layers {config.layers}: {parameters:,} parameters want at least "
            f"{BYTES_PER_PARAMETER * parameters / 1e9:,.0f} GB of memory, this machine has {memory / 1e9:,.0f} GB: choose fewer"
        )


def _updates(
    untrained: LanguageModel,
    data: Data,
    settings: Settings,
    plan: Plan,
    order_rng: np.random.Generator,
    dropout_rng: np.random.Generator,
) -> Iterator[Snapshot]:
    """A snapshot after each of `plan.steps` updates."""
    config, where = untrained.config, untrained.backend
    shapes = model.shapes(config)
    theta = packing.pack(untrained.params)
    memory = optimizers.start(theta)
    states = None
    for step, batch in zip(range(plan.steps), epochs(data, plan.batch, plan.length, order_rng)):
        loss, gradient, states = model.loss_and_gradient(
            config,
            packing.unpack(theta, shapes),
            where.put(batch.x),
            where.put(batch.y),
            where.put(batch.mask),
            None if batch.start else states,
            tuple(where.put(mask) for mask in model.dropout_masks(config, dropout_rng, plan.dropout, batch.x.shape[1])),
        )
        d = packing.pack(gradient)
        if settings.clip_norm:
            d, _ = optimizers.clip_by_norm(d, settings.clip_norm)
        rate = optimizers.warmup_cosine(step, plan.learning_rate, warmup=min(WARM_UP, plan.steps // 10), total=plan.steps)
        theta, memory = UPDATES[settings.optimizer](theta, d, memory, rate)
        yield Snapshot(step + 1, theta, loss)


def _watch(
    untrained: LanguageModel, data: Data, plan: Plan, updates: Iterator[Snapshot], tell: Callable[..., None]
) -> tuple[LanguageModel, BaseException | None]:
    """The model where it was best on the held-out part, or last if nothing is held out; and what ended the run early.

    What ended it is raised only where there is no model to keep.
    """
    best: LanguageModel | None = None
    last: Snapshot | None = None
    end: BaseException | None = None
    every = max(1, plan.steps // MEASUREMENTS)
    began, silent = time.perf_counter(), True
    try:
        for last in updates:
            if last.step % every and last.step < plan.steps:
                if silent and time.perf_counter() - began > PATIENCE:
                    untrained.backend.get(last.loss)  # wait for a device that is behind
                    tell(progress.remaining, last.step, plan, time.perf_counter() - began)
                    silent = False
                continue
            silent = False
            now = _measure(untrained, last, data)
            if now is None:
                raise Diverged(progress.diverged(last.step, float(untrained.backend.get(last.loss)), plan))
            best = _better(best, now)  # before it is told, which may fail
            tell(progress.line, now, plan, time.perf_counter() - began)
    except BaseException as error:
        end = error
    if end is not None and last is not None and (best is None or not data.held_out):
        with contextlib.suppress(Exception, KeyboardInterrupt):  # Ctrl-C again: what there is will do
            best = _better(best, _measure(untrained, last, data))
    if best is None:
        if isinstance(end, Diverged | KeyboardInterrupt):
            raise type(end)(f"{str(end) or 'interrupted'}; nothing was learnt, nothing is saved")
        raise end or RuntimeError("there was no step")
    stopped = {type(None): "", KeyboardInterrupt: "interrupted", Diverged: "diverged"}.get(type(end), "failed")
    record = {**best.record, "stopped": stopped, "seconds": time.perf_counter() - began}
    return dataclasses.replace(best, record=record), end


def _save(trained: LanguageModel, out: Path, spare: bool) -> tuple[Path | None, str]:
    """Where the model now is, if anywhere, and why it is not in `out`; `spare`: then try among the temporary files."""
    try:
        return _write(trained, out), ""
    except (Exception, KeyboardInterrupt) as error:  # hours of work may be in it
        problem = str(error) or type(error).__name__
    if spare:
        with contextlib.suppress(Exception, KeyboardInterrupt):
            folder = _write(trained, Path(tempfile.gettempdir()) / f"bptt-{out.name}")
            return folder, f"{problem}; it is saved in {folder} instead"
    return None, f"{problem}; it is not saved"


def _write(trained: LanguageModel, out: Path) -> Path:
    """Save the model in `out`, or out-2, out-3 ... where another run has taken the name in the meantime."""
    while True:
        folder = checkpoint.free(out)
        with contextlib.suppress(checkpoint.Taken):
            trained.save(folder)
            return folder


def _measure(untrained: LanguageModel, snapshot: Snapshot, data: Data) -> LanguageModel | None:
    """The model at a snapshot, its record saying how good it is; None where a loss or a weight is not finite."""
    where, config = untrained.backend, untrained.config
    params = packing.unpack(snapshot.theta, model.shapes(config))
    loss = float(where.get(snapshot.loss))
    held_out = evaluate(config, params, where, held_out_batches(data)).nats_per_char if data.held_out else None
    if not (math.isfinite(loss) and math.isfinite(held_out or 0.0) and np.isfinite(where.get(snapshot.theta)).all()):
        return None
    record = {**untrained.record, "step": snapshot.step, "loss": loss, "held_out": held_out}
    return dataclasses.replace(untrained, params=params, record=record)


def _better(best: LanguageModel | None, now: LanguageModel | None) -> LanguageModel | None:
    """The one with the lower held-out loss; the later one where nothing is held out."""
    if best is None or now is None:
        return best or now
    before, after = best.record["held_out"], now.record["held_out"]
    return best if before is not None and before <= after else now
