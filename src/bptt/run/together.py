"""How processes that train together begin: each finds its place, and all of them that they are about to do the same."""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

from bptt import backend as backends
from bptt.errors import InputError
from bptt.run import environment, ranks, twins
from bptt.run.preparation import Ready
from bptt.run.ranks import Ranks
from bptt.run.settings import Settings


def begin(text: Any, settings: Settings) -> Ranks:
    """The process among those that train together, if there are several."""
    among = ranks.begin(asked=settings.distributed)
    if among.size > 1 and isinstance(text, str) and text == "-":
        raise ranks.agreed(among, InputError("text -: standard input is that of one process alone: give a file"))
    if among.size > 1 and settings.micro_batches > 1:
        parts = f"--micro-batches {settings.micro_batches} for {among.size} processes"
        raise ranks.agreed(among, InputError(f"{parts}: leave it out: each process has one part of a batch"))
    return among


def prepared(among: Ranks, settings: Settings, prepare: Callable[[], Ready]) -> Ready:
    """What a run needs, among the processes that train together, which must be about to do the same.

    `settings` are those that were told, of which a run that goes on has others, too.
    """

    def here() -> Ready:
        if among.size > 1 and settings.backend in ("auto", "cupy"):
            backends.use_device(among.local)
        return prepare()

    ready = ranks.one_after_another(among, here)
    before = ready.record.get("processes", ready.task.settings.micro_batches)
    if ready.now.state.step and before != max(among.size, ready.task.settings.micro_batches if among.size == 1 else 1):
        changed = f"the run had {before} processes before and goes on with {among.size}"
        words = f"{changed}: its numbers will be the same but for rounding, not bit for bit"
        warnings.warn(words, twins.TwinsWarning, stacklevel=2)
    if among.size == 1:
        return ready._replace(record={name: value for name, value in ready.record.items() if name != "processes"})
    task, own = ready.task, {"quiet", "json", "distributed"}  # of one process alone
    task = task._replace(settings=dataclasses.replace(task.settings, micro_batches=1))  # a run that goes on had its parts
    told = {f"--{name}": str(value) for name, value in vars(task.settings).items() if name not in own}
    facts = {
        **environment.versions(),
        **told,
        "--out": str(settings.out),
        "text": task.data.sha256,
        "vocabulary": str(task.data.vocabulary.symbols),
        "backend": str(task.backend),
        "compiled": twins.name(task.backend),
        "step": str(ready.now.state.step),
        "best": str((ready.now.progress.best, ready.now.progress.waited)),  # which decide when all end
        "weights": str(ranks.checksum(task.backend.get(ready.now.state.theta))),
    }
    ranks.check_alike(among, facts)
    return ready._replace(task=task, record={**ready.record, "processes": among.size})


def silent(words: str, row: dict[str, Any]) -> None:
    """What a process tells that has another one to speak for it."""
