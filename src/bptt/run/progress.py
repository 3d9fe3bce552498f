"""What a training run says on its way: plain lines for people."""

import contextlib
import math
import shlex
import sys
from pathlib import Path

from bptt.nn import model, packing
from bptt.run.data import Data, lines, targets, widest
from bptt.run.language_model import LanguageModel
from bptt.run.settings import Plan, Settings
from bptt.text import batches

NEW = 10  # texts at the end that the training text does not contain


def heading(untrained: LanguageModel, data: Data, settings: Settings, plan: Plan) -> str:
    """What is going to be trained, on what, and how."""
    symbols = f"{len(data.vocabulary)} symbols"
    unit = "line" if data.mode == "lines" else "character"
    learn, held_out = (len(part) if data.mode == "lines" else targets(part) for part in (data.training, data.held_out))
    nothing = "as asked" if settings.validation == 0 else "the text is too short to spare any"
    measured = f"{held_out:,} held out" if held_out else f"nothing held out ({nothing})"
    parameters = packing.count(model.shapes(untrained.config))
    batch, shrunk = widest(data, plan.batch, plan.length), ""
    if batch < plan.batch:
        shrunk = f" (the text is too short for a batch of {plan.batch})"
    elif data.mode == "lines":  # one batch holds lines of like length only
        batch = max(group.x.shape[1] for group in batches.lines(data.training, plan.batch, plan.length, None))
        shrunk = f" (too few lines of like length for a batch of {plan.batch})" if batch < plan.batch else ""
    return "\n".join(
        [
            f"text   {data.name}: {learn:,} {unit}{'s' * (learn != 1)} to learn from, {measured}, {symbols}",
            f"model  {settings.cell}, {settings.layers} x {plan.hidden} units, {parameters:,} parameters, {untrained.backend}",
            f"run    {plan.steps:,} steps of {batch} x {plan.length} at most{shrunk}, {settings.optimizer} at "
            f"{plan.learning_rate:g}, dropout {plan.dropout:g}, seed {settings.seed}",
        ]
    )


def line(now: LanguageModel, plan: Plan, seconds: float) -> str:
    """One measurement: step, loss of the batch, loss on the held-out part, and a taste of what the model writes."""
    held_out = now.record["held_out"]
    measured = "" if held_out is None else f"  held out {held_out:.4f} nats/char ({held_out / math.log(2):.4f} bits)"
    if now.mode == "lines":
        taste = ", ".join(filter(str.strip, now.sample(3, temperature=0.8, seed=now.record["step"])))[:60]
    else:
        taste = now.sample(1, temperature=0.8, seed=now.record["step"], length=60)[0]
    return (
        f"{seconds:6.1f} s  step {now.record['step']:>{len(str(plan.steps))}}  loss {now.record['loss']:.4f}{measured}  "
        f"{printable(taste)}"
    )


def remaining(step: int, plan: Plan, seconds: float) -> str:
    """How long the rest of a run will take, from the seconds of its first steps."""
    left = seconds * (plan.steps - step) / step
    number, unit = (left, "s") if left < 120 else (left / 60, "min") if left < 7200 else (left / 3600, "h")
    return f"about {number:.0f} {unit} to go"


def interrupted(kept: LanguageModel) -> str:
    """Ctrl-C was pressed."""
    return f"interrupted: keeping the best model so far, of step {kept.record['step']}"


def diverged(step: int, loss: float, plan: Plan) -> str:
    """The loss, or a weight, is not a number any more."""
    return f"step {step}: the loss ({loss:g}) or a weight is not finite: try --learning-rate {plan.learning_rate / 10:g}"


def ending(trained: LanguageModel, data: Data, out: Path | None) -> str:
    """New texts, how good the model is, where it is, and how to get more."""
    news = []
    with contextlib.suppress(KeyboardInterrupt):  # in a hurry: the texts can be missed, the rest cannot
        news = _new(trained, data)
    held_out = trained.record["held_out"]
    if held_out is not None:
        bits = held_out / math.log(2)
        news.append(f"best at step {trained.record['step']}: {held_out:.4f} nats per held-out character ({bits:.4f} bits)")
    if out is not None:
        news += [f"saved in {out}", f"more: bptt sample {shlex.quote(str(out))} --count 10 --seed 1"]
    return "\n".join(news)


def _new(trained: LanguageModel, data: Data) -> list[str]:
    if trained.mode == "stream":
        return ["new text:", printable(trained.sample(1, temperature=0.8, length=300)[0], "\n\t")]
    new = [text for text in trained.sample(NEW, temperature=0.8, without=lines(data) | {""}) if text.strip()]
    if not new:
        return ["nothing new: what it writes is in the text"]
    return [f"{len(new)} new ones, none of them in the text:", *(f"  {printable(text)}" for text in new)]


def say(news: str) -> None:
    """Print at once, with ? for each character that standard output cannot encode."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(news.encode(encoding, "replace").decode(encoding), flush=True)


def printable(text: str, fine: str = "") -> str:
    """The text with a space for each character that could move the cursor or worse, but for those in `fine`."""
    fine += "\u200c\u200d"  # joiners, which scripts and emoji need
    return "".join(character if character.isprintable() or character in fine else " " for character in text)
