"""Messages of a training run: its header, evaluations, progress, warnings and end."""

import contextlib
import json
import math
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bptt import acceleration
from bptt.config.defaults import MOST_TIME, TEMPERATURE
from bptt.config.rules import duration_seconds
from bptt.config.settings import Settings
from bptt.data.dataset import Dataset, contained, count_shared_lines, count_targets, max_columns, mode_hint, validation_share
from bptt.data.new_symbols import skipped_message
from bptt.data.sequences import Sequences
from bptt.display import cross_entropy
from bptt.display.text import printable
from bptt.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from bptt.errors import KernelWarning, TrainingWarning, option, warn
from bptt.inference import generate
from bptt.inference.language_model import LanguageModel
from bptt.inference.request import make_request
from bptt.inference.sampling import SamplingOptions
from bptt.nn import model, tree
from bptt.train_step.state import TrainTask

FINAL_TEXTS = 10  # new lines at the end of a run
FINAL_RECORDS = 3
UNITS = {"lines": "line", "records": "record", "stream": "character"}  # that the size of a text is counted in
PREVIEW_LINES = 10  # lines sampled at an evaluation


def header(task: TrainTask, budget: dict[str, Any] | None = None) -> str:
    """The dataset, the model and the hyperparameters of a run, a line each, and what its budget led to, if it has one."""
    data, settings, plan = task.data, task.settings, task.plan
    unit = UNITS[data.mode] if data.mode != "stream" or data.vocabulary.symbols else "byte"
    training = _size(data, data.training)
    files = f"{data.num_files:,} files, " if data.num_files > 1 else ""
    left_out = printable(os.path.basename(data.validation_file)) if data.left_out else ""
    batch, shrunk = max_columns(data, plan.batch, plan.length), ""
    if batch < plan.batch:
        shrunk = f" (the text is too short for batches of {plan.batch})"
    compiled = f", compiled by {acceleration.compiled_by(task.backend)}" if acceleration.compiled_by(task.backend) else ""
    columns = -(-batch // settings.micro_batches)  # at a time
    if compiled and not acceleration.single_launch(
        task.config.cell, task.config.hidden, columns, int(settings.dtype[-2:]) // 8
    ):
        compiled += ", one kernel launch per time step: the weights or the batch are too large to stay on the chip"
    return "\n".join(
        [
            f"text   {data.name}: {files}{training:,} {unit}{'s' * (training != 1)} to train on, {_validation(task)}, "
            f"{len(data.vocabulary)} symbols",
            *([f"       {left_out} in the folder of the texts is the validation set: not trained on"] if left_out else []),
            *([hint] if settings.mode is None and (hint := mode_hint(data)) else []),
            f"model  {model_title(task)}{compiled}",
            f"run    {plan.steps:,} steps, batches of up to {batch} x {plan.length}{shrunk}, {settings.optimizer}, "
            f"learning rate {plan.learning_rate:g}, dropout {plan.dropout:g}, seed {settings.seed}",
            *([] if budget is None else [_budget_line(task, budget)]),
        ]
    )


def report_compilation(task: TrainTask, report: Callable[[str, dict[str, Any]], None]) -> None:
    """Report that the first update waits for the compiler; nothing where nothing is compiled, or was compiled before."""
    if acceleration.compiled_by(task.backend) and acceleration.cache_is_empty():
        report("compiling kernels, once on this machine, about a second", {"event": "compile"})


def _budget_line(task: TrainTask, budget: dict[str, Any]) -> str:
    """The units and steps that a budget led to, and how long they take where that is something else."""
    asked, seconds, update = duration_seconds(budget["asked"]), budget["seconds"], budget["update_seconds"]
    number, unit = budget["asked"][:-1], budget["asked"][-1].replace("m", "min")
    each = f"{update:.1f} s" if update >= 1 else f"{1000 * update:.{0 if update >= 0.01 else 1}f} ms"
    chosen = f"{task.config.hidden} units, {task.plan.steps:,} steps of about {each}"
    words = f"budget {number} {unit}: {chosen}"
    if 0.9 <= seconds / asked <= 1.1:
        return words
    words = f"{words}, about {format_duration(max(1.0, seconds))} in all"
    return f"{words}: at most {MOST_TIME:g} times the default run of this text" if budget["capped"] else words


def _size(data: Dataset, part: Sequences) -> int:
    """The lines of a part of a dataset, or the characters of a stream."""
    return count_targets(part) if data.mode == "stream" else len(part)


def _validation(task: TrainTask) -> str:
    """What the validation set is: a file, lines, the end of a stream, or nothing."""
    data, count = task.data, _size(task.data, task.data.validation)
    if data.validation_file:
        return f"{count:,} of {printable(os.path.basename(data.validation_file))} to validate on"
    if not count:
        if task.settings.validation == 0:
            return "no validation set (as requested); the last weights are kept"
        lines = len(data.training)
        wanted = min(round(validation_share(task.settings, count_targets(data.training)) * lines), lines - 1)
        unit = UNITS[data.mode]
        short = "the text is too short" if data.mode == "stream" else f"too few {unit}s"
        return f"none held out ({f'most {unit}s are copies of one' if wanted > 0 else short})"
    if data.mode != "stream":
        return f"{count:,} held out"
    of_each = " of each text" * (len(data.training) > 1)
    return f"the last {100 * count / (count + _size(data, data.training)):.2g} %{of_each} ({count:,}) held out"


def model_title(task: TrainTask) -> str:
    """The cell, size and backend of a model."""
    c = task.config
    return f"{c.cell}, {c.layers} x {c.hidden} units, {tree.num_elements(model.shapes(c)):,} parameters, {task.backend}"


def resume_header(task: TrainTask, place: Path, step: int) -> str:
    """The header of a resumed run."""
    return f"{header(task)}\nresuming {place} after step {step:,}"


def sample_preview(current: LanguageModel, group: ProcessGroup = SINGLE_PROCESS) -> list[str]:
    """Texts from the current model; of several processes, each writes some of them and returns its own."""
    count, length = (PREVIEW_LINES, None) if current.mode == "lines" else (1, 200)
    first, end = (-(-count * rank // group.size) for rank in (group.rank, group.rank + 1))
    if first == end:
        return []
    request = make_request(
        current.vocabulary, current.mode, SamplingOptions(TEMPERATURE), seed=current.record["step"], length=length
    )
    parts = current.config, current.params, current.backend, current.vocabulary
    return [sample.text for sample in generate.generate_texts(*parts, request, range(first, end))]


def evaluation_line(row: dict[str, Any], task: TrainTask) -> str:
    """One evaluation: step, training loss, validation loss, and a preview of what the model writes."""
    validation_loss = row.get("held_out")
    validation = ""
    if validation_loss is not None:
        validation = f"  held out {validation_loss:.4f} nats/char ({validation_loss / math.log(2):.4f} bits)"
    texts = [text for text in row["sample"] if text.strip()]
    words = ", ".join(texts[:3]) if task.data.mode == "lines" else "".join(texts[:1])
    return f"{_place(row, task)}  loss {row['loss']:.4f}{validation}  {printable(words[:60])}"


def progress_line(row: dict[str, Any], task: TrainTask, speed: float) -> str:
    """Progress between two evaluations; `speed` in characters per second."""
    left = format_duration((task.plan.steps - row["step"]) * row["seconds"] / max(1, row["step"]))
    return f"{_place(row, task)}  loss {row['loss']:.4f}  {speed:,.0f} characters/s, about {left} to go"


def _place(row: dict[str, Any], task: TrainTask) -> str:
    return f"{row['seconds']:6.1f} s  step {row['step']:>{len(str(task.plan.steps))}}"


def format_duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever suits."""
    number, unit = (seconds, "s") if seconds < 120 else (seconds / 60, "min") if seconds < 7200 else (seconds / 3600, "h")
    return f"{number:.0f} {unit}"


def nonfinite_message(step: int, tensor: str, task: TrainTask) -> str:
    """A tensor is not finite any more."""
    return f"step {step}: NaN or infinity in {tensor}: try {option('learning_rate', task.plan.learning_rate / 10)}"


def diverged_message(error: Exception, trained: LanguageModel, out: Path | None) -> str:
    """A run has diverged: which model is left."""
    where = f" in {out}" if out else ""
    return f"{error}; the best model before that, from step {trained.record.get('step')}, is kept{where}"


def failure_message(error: BaseException, task: TrainTask, out: Path) -> str:
    """A run has failed: how to resume it."""
    return f"the run failed ({type(error).__name__}): resume it with: {resume_command(task, out)}"


def resume_command(task: TrainTask, out: Path) -> str:
    """The command that resumes a run, in Python if its text was passed in Python."""
    if not task.data.source:
        cell = f", cell={task.config.cell}" if task.config.user_cell else ""
        return f"bptt.train(TEXT, resume={str(out)!r}{cell})"
    folder, launcher = shlex.quote(str(out)) + _cell_flag(task), f"mpiexec -n {task.group.size} " if task.group.size > 1 else ""
    return f"{launcher}bptt train {'TEXT ' * (task.data.source == '-')}--resume {folder}"


def _cell_flag(task: TrainTask) -> str:
    """The flag that supplies a user-defined cell again, or nothing."""
    file = getattr(task.config.user_cell, "__file__", "")
    return f" --cell {shlex.quote(os.path.relpath(file))}" if file else ""


def end_message(trained: LanguageModel, task: TrainTask, out: Path | None, ended: str, step: int) -> tuple[str, dict[str, Any]]:
    """The end of a run: why it ended, new texts, the validation loss, where the model is and how to sample or resume."""
    validation_loss = trained.record.get("held_out")
    row = {
        "event": "end",
        "ended": ended or "done",
        "step": step,
        "best": trained.record.get("step"),
        "held_out": validation_loss,
    }
    row["out"] = None if out is None else str(out)
    if ended in ("diverged", "unsaved"):  # which a warning reports
        return "", row
    lines: list[str] = []
    if ended == "patience":
        lines.append(f"stopped early at step {step:,}: no lower validation loss in {task.settings.patience} evaluations")
    elif ended:
        why = {"paused": "paused", "callback": "stopped by a callback"}.get(ended, f"interrupted ({ended})")
        lines.append(
            f"{why} at step {step:,}" + (f": saved in {out}, resume with" if out else ": keeping the best model so far")
        )
        if out:
            lines.append(f"  {resume_command(task, out)}")
    else:
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C skips the texts only
            lines += _new_texts(trained, task)
    if validation_loss is not None:
        explained = cross_entropy.in_words(validation_loss, trained.vocabulary.kind)
        lines.append(f"best at step {trained.record.get('step')}: {cross_entropy.per_held_out(validation_loss)}, {explained}")
    if out is not None and not ended:
        several = "--length 1000" if task.data.mode == "stream" else "--count 10"
        lines += [f"saved in {out}", f"more: bptt sample {shlex.quote(str(out))}{_cell_flag(task)} {several} --seed 1"]
    return "\n".join(lines), row


def _new_texts(trained: LanguageModel, task: TrainTask) -> list[str]:
    if trained.mode == "stream":
        return ["new text:", printable(trained.sample(1, length=300)[0], "\n\t")]

    def known(texts: list[str]) -> set[str]:
        return contained(task.data, texts) | {""}

    count, kept = (FINAL_TEXTS, "") if trained.mode == "lines" else (FINAL_RECORDS, "\n\t")
    unit = UNITS[trained.mode]
    new = [text for text in trained.sample(count, exclude=known) if text.strip()]
    if not new:
        return [f"no new {unit}s: all that was generated is in the training text"]
    title = f"{len(new)} new {unit}{'s' * (len(new) != 1)}, not in the training text:"
    shown = [f"  {printable(text, kept)}".replace("\n", "\n  ") for text in new]
    return [title, *shown] if trained.mode == "lines" else [title, "\n\n".join(shown)]


def make_reporter(
    settings: Settings, report: Callable[[str], object] | None, *, named: bool = True
) -> Callable[[str, dict[str, Any]], None]:
    """A function that passes messages on to `report`: as text, or with --json as JSON; with --quiet none.

    The folder of a run whose name was chosen automatically (not `named`) is reported even with --quiet.
    """

    def reporter(text: str, row: dict[str, Any]) -> None:
        message = (json.dumps(row) if row else "") if settings.json else printable(text, "\n\t")
        if settings.quiet:
            is_new_folder = row.get("event") == "end" and not named
            message = "" if not is_new_folder else message if settings.json else row["out"]
        if report and message:
            report(message)

    return reporter


def warn_if_micro_batches_changed(before: int, task: TrainTask) -> None:
    """Warn if a resumed run splits its batches into another number of micro-batches than before."""
    if (count := task.settings.micro_batches) != before:
        had = f"had {before} micro-batches" if before > 1 else "were not split"
        changed = f"batches {had} before and have {count} micro-batches for {task.group.size} processes"
        warn(f"{changed}: the numbers will be equal up to rounding, not bit for bit", KernelWarning)


def warn_of_skipped_characters(data: Dataset) -> None:
    """Warn if characters were left out of the text or of the validation set (--new-symbols skip)."""
    for shown, skipped in data.skipped:
        if skipped:
            warn(skipped_message(shown, skipped), TrainingWarning)


def warn_of_shared_lines(data: Dataset) -> None:
    """Warn if lines of the validation set are also in the training text."""
    if data.validation_sha256 == data.sha256:
        warn(f"the validation set {data.validation_file!r} is the training text itself", TrainingWarning)
    elif any(
        place in data.source
        for place in (data.validation_file, *(data.validation_places or []))
        if isinstance(data.source, list)
    ):
        warn("a file of the validation set is also a training text: name it as one of the two", TrainingWarning)
    elif shared := count_shared_lines(data):
        unit = UNITS[data.mode]
        lines = f"{shared:,} of {len(data.validation):,} validation {unit}s {'is' if shared == 1 else 'are'}"
        problem = f"{lines} also in the training text"
        warn(f"{problem}: the validation loss is lower than it would be on new {unit}s", TrainingWarning)


def warn_of_long_warmup(task: TrainTask) -> None:
    """Warn if a new run ends before its learning rate has risen to the peak."""
    if (warmup := task.settings.warmup or 0) >= task.plan.steps > 1:
        problem = (
            f"{option('warmup', warmup)}: the run has {task.plan.steps:,} steps, so its learning rate never reaches the peak"
        )
        warn(problem, TrainingWarning)
