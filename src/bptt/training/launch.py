"""How processes that train together begin: each finds its place, and all of them that they are about to do the same."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from bptt import acceleration, system
from bptt import backend as backends
from bptt.config.settings import Settings
from bptt.distributed import allreduce, process_group, reduction
from bptt.distributed.process_group import Ranks
from bptt.errors import InputError
from bptt.nn import model, tree
from bptt.training.setup import Ready


def told_to_all(error: InputError, *, alone: bool) -> InputError:
    """An error that came before `begin`, as all processes raise it that a launcher started, unless each trains `alone`."""
    if alone or process_group.launched() == 1 or hasattr(error, "agreed"):
        return error
    try:
        process_group.begin(asked=None, problem=str(error))
    except InputError as other:  # without `agreed` it is another one: there is no MPI to tell it by
        return other if hasattr(other, "agreed") else error
    return error


@contextlib.contextmanager
def telling_all(*, alone: bool) -> Iterator[None]:
    """Around what comes before `begin`: see `told_to_all`."""
    try:
        yield
    except InputError as error:
        other = told_to_all(error, alone=alone)
        if other is error:
            raise
        raise other from error


def begin(text: Any, settings: Settings, work: str) -> Ranks:
    """The process among those that train together, if there are several, which all do the same work."""
    among = process_group.begin(asked=settings.distributed)
    process_group.check_alike(among, {"to do:": work})

    def check() -> None:
        if among.size > 1 and isinstance(text, str) and text == "-":
            raise InputError("text -: standard input is that of one process alone: give a file")
        if settings.micro_batches > 1 and not reduction.divide(settings.micro_batches, among.size):
            told = f"--micro-batches {settings.micro_batches} for {among.size} processes"
            some = f"{among.size}, {2 * among.size}, {4 * among.size} and so on"
            raise InputError(f"{told}: give {some}, or 1 for one part each")

    process_group.one_after_another(among, check)
    return among


def prepared(among: Ranks, settings: Settings, prepare: Callable[[], Ready]) -> Ready:
    """What a run needs, among the processes that train together, which must be about to do the same.

    `settings` are those that were told, of which a run that goes on has others, too.
    """

    def here() -> Ready:
        if among.size > 1 and settings.backend in ("auto", "cupy"):
            backends.use_device(among.local)
        ready = prepare()
        if ready.task.settings.nccl:
            allreduce.refuse(among, ready.task.backend)
        return ready

    ready = process_group.one_after_another(among, here)
    if among.size == 1:
        return ready
    task, own = ready.task, {"quiet", "json", "distributed"}  # of one process alone
    told = {f"--{name}": str(value) for name, value in vars(task.settings).items() if name not in own}
    facts = {
        **system.versions(),
        **told,
        "--out": str(settings.out),
        "text": task.data.sha256,
        "vocabulary": str(task.data.vocabulary.symbols),
        "backend": str(task.backend),
        "compiled": acceleration.compiled_by(task.backend),
        "step": str(ready.now.state.step),
        "best": str((ready.now.progress.best, ready.now.progress.waited)),  # which decide when all end
        "an MPI that reads a GPU's memory:": str(among.cuda and task.backend.name == "cupy"),
        "weights": str(process_group.checksum(task.backend.get(ready.now.state.theta))),
    }
    process_group.check_alike(among, facts)
    length = 1 + tree.count(model.shapes(task.config))  # a gradient and a loss
    return ready._replace(task=task._replace(link=allreduce.between(among, task.backend, length, nccl=task.settings.nccl)))


def silent(words: str, row: dict[str, Any]) -> None:
    """What a process tells that has another one to speak for it."""
