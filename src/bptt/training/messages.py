"""What a training run says on its way: plain lines for people."""

import contextlib
import json
import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bptt import acceleration
from bptt.config.settings import Settings
from bptt.data.dataset import contained, count_targets, max_columns
from bptt.display.text import printable
from bptt.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from bptt.inference import generate
from bptt.inference.language_model import LanguageModel
from bptt.inference.request import make_request
from bptt.inference.sampling import SamplingOptions
from bptt.nn import model, tree
from bptt.train_step.update import TrainTask

FINAL_TEXTS = 10  # texts at the end that the training text does not contain
PREVIEW_LINES = 10  # lines at a measurement


def header(task: TrainTask) -> str:
    """What is going to be trained, on what, and how."""
    data, settings, plan = task.data, task.settings, task.plan
    unit = "line" if data.mode == "lines" else "character"
    learn, held_out = (len(part) if data.mode == "lines" else count_targets(part) for part in (data.training, data.held_out))
    nothing = "as asked" if settings.validation == 0 else "the text is too short to spare any"
    measured = f"{held_out:,} held out" if held_out else f"nothing held out ({nothing})"
    batch, shrunk = max_columns(data, plan.batch, plan.length), ""
    if batch < plan.batch:
        shrunk = f" (the text is too short for a batch of {plan.batch})"
    compiled = f", compiled by {acceleration.compiled_by(task.backend)}" if acceleration.compiled_by(task.backend) else ""
    share = -(-batch // settings.micro_batches)  # columns at a time
    if compiled and not acceleration.single_launch(task.config.cell, task.config.hidden, share, int(settings.dtype[-2:]) // 8):
        compiled += ", which takes a kernel for each step: weights or batch are too large to stay on the chip"
    return "\n".join(
        [
            f"text   {data.name}: {learn:,} {unit}{'s' * (learn != 1)} to learn from, {measured}, "
            f"{len(data.vocabulary)} symbols",
            f"model  {model_title(task)}{compiled}",
            f"run    {plan.steps:,} steps of {batch} x {plan.length} at most{shrunk}, {settings.optimizer} at "
            f"{plan.learning_rate:g}, dropout {plan.dropout:g}, seed {settings.seed}",
            *["wait   for the compiler, in the first run on this processor"]
            * (compiled != "" and acceleration.cache_is_empty()),
        ]
    )


def model_title(task: TrainTask) -> str:
    """A model in a line: cell, size and where it runs."""
    c = task.config
    return f"{c.cell}, {c.layers} x {c.hidden} units, {tree.num_elements(model.shapes(c)):,} parameters, {task.backend}"


def resume_header(task: TrainTask, place: Path, step: int) -> str:
    """The heading of a run that goes on."""
    return f"{header(task)}\ngoing on with {place} after step {step:,}"


def sample_preview(now: LanguageModel, group: ProcessGroup = SINGLE_PROCESS) -> list[str]:
    """What the model writes at the moment: the texts of this process, of those that all of them write."""
    count, length = (1, 200) if now.mode == "stream" else (PREVIEW_LINES, None)
    first, end = (-(-count * rank // group.size) for rank in (group.rank, group.rank + 1))
    if first == end:
        return []
    request = make_request(now.vocabulary, now.mode, SamplingOptions(0.8), seed=now.record["step"], length=length)
    return generate.generate_texts(now.config, now.params, now.backend, now.vocabulary, request, range(first, end))


def evaluation_line(row: dict[str, Any], task: TrainTask) -> str:
    """One measurement: step, loss, loss on the held-out part, and a taste of what the model writes."""
    held_out = row.get("held_out")
    measured = "" if held_out is None else f"  held out {held_out:.4f} nats/char ({held_out / math.log(2):.4f} bits)"
    texts = [text for text in row["sample"] if text.strip()]
    words = texts[0] if task.data.mode == "stream" and texts else ", ".join(texts[:3])
    return f"{_place(row, task)}  loss {row['loss']:.4f}{measured}  {printable(words[:60])}"


def progress_line(row: dict[str, Any], task: TrainTask, rate: float) -> str:
    """How far a run is between two measurements; `rate` in characters per second."""
    left = format_duration((task.plan.steps - row["step"]) * row["seconds"] / max(1, row["step"]))
    return f"{_place(row, task)}  loss {row['loss']:.4f}  {rate:,.0f} characters/s, about {left} to go"


def _place(row: dict[str, Any], task: TrainTask) -> str:
    return f"{row['seconds']:6.1f} s  step {row['step']:>{len(str(task.plan.steps))}}"


def format_duration(seconds: float) -> str:
    """Seconds in a unit that suits them."""
    number, unit = (seconds, "s") if seconds < 120 else (seconds / 60, "min") if seconds < 7200 else (seconds / 3600, "h")
    return f"{number:.0f} {unit}"


def nonfinite_message(step: int, what: str, task: TrainTask) -> str:
    """Something is not a number any more."""
    return f"step {step}: NaN or infinity in {what}: try --learning-rate {task.plan.learning_rate / 10:g}"


def diverged_message(error: Exception, trained: LanguageModel, out: Path | None) -> str:
    """A run has diverged; what is there of it."""
    where = f" in {out}" if out else ""
    return f"{error}; the best model before, of step {trained.record.get('step')}, is kept{where}"


def failure_message(error: BaseException, task: TrainTask, out: Path) -> str:
    """A run has failed; how to go on with it."""
    return f"the run failed ({type(error).__name__}): go on with it: {resume_command(task, out)}"


def resume_command(task: TrainTask, out: Path) -> str:
    """The command that goes on with a run, in Python where its text was given there."""
    if not task.data.source:
        return f"bptt.train(TEXT, resume={str(out)!r})"
    folder, launcher = shlex.quote(str(out)), f"mpiexec -n {task.group.size} " if task.group.size > 1 else ""
    return f"bptt train - --resume {folder} < TEXT" if task.data.source == "-" else f"{launcher}bptt train --resume {folder}"


def end_message(trained: LanguageModel, task: TrainTask, out: Path | None, ended: str, step: int) -> tuple[str, dict[str, Any]]:
    """How a run ended, new texts, how good the model is, where it is, and how to get more or to go on."""
    held_out = trained.record.get("held_out")
    row = {"event": "end", "ended": ended or "done", "step": step, "best": trained.record.get("step"), "held_out": held_out}
    row["out"] = None if out is None else str(out)
    if ended in ("diverged", "unsaved"):  # a warning has the words
        return "", row
    news: list[str] = []
    if ended == "patience":
        news.append(f"stopped at step {step:,}: no new best one in {task.settings.patience} measurements")
    elif ended:
        why = "paused" if ended == "paused" else f"interrupted ({ended})"
        news.append(f"{why} at step {step:,}" + (f": saved in {out}: go on with" if out else ": keeping the best model so far"))
        if out:
            news.append(f"  {resume_command(task, out)}")
    else:
        with contextlib.suppress(KeyboardInterrupt):  # in a hurry: the texts can be missed, the rest cannot
            news += _new_texts(trained, task)
    if held_out is not None:
        bits = held_out / math.log(2)
        news.append(f"best at step {trained.record.get('step')}: {held_out:.4f} nats per held-out character ({bits:.4f} bits)")
    if out is not None and not ended:
        news += [f"saved in {out}", f"more: bptt sample {shlex.quote(str(out))} --count 10 --seed 1"]
    return "\n".join(news), row


def _new_texts(trained: LanguageModel, task: TrainTask) -> list[str]:
    if trained.mode == "stream":
        return ["new text:", printable(trained.sample(1, temperature=0.8, length=300)[0], "\n\t")]

    def known(texts: list[str]) -> set[str]:
        return contained(task.data, texts) | {""}

    new = [text for text in trained.sample(FINAL_TEXTS, temperature=0.8, without=known) if text.strip()]
    if not new:
        return ["nothing new: what it writes is in the text"]
    return [f"{len(new)} new ones, none of them in the text:", *(f"  {printable(text)}" for text in new)]


def make_reporter(
    settings: Settings, report: Callable[[str], object] | None, *, named: bool = True
) -> Callable[[str, dict[str, Any]], None]:
    """News as words, or as JSON if the settings say so, or none but the folder of the run if it was not `named`."""

    def tell(words: str, row: dict[str, Any]) -> None:
        news = (json.dumps(row) if row else "") if settings.json else words
        if settings.quiet:
            ended = row.get("event") == "end" and not named
            news = "" if not ended else news if settings.json else row["out"]
        if report and news:
            report(news)

    return tell
