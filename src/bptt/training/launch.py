"""How processes that train together begin: each finds its place, and all of them that they are about to do the same."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from bptt import acceleration, system
from bptt import backend as backends
from bptt.config.settings import Settings
from bptt.distributed import allreduce, process_group, reduction
from bptt.distributed.process_group import ProcessGroup
from bptt.errors import InputError
from bptt.nn import model, tree
from bptt.training.setup import Prepared


def error_for_all(error: InputError, *, alone: bool) -> InputError:
    """An error that came before `begin`, as all processes raise it that a launcher started, unless each trains `alone`."""
    if alone or process_group.launched_processes() == 1 or hasattr(error, "agreed"):
        return error
    try:
        process_group.init_process_group(asked=None, problem=str(error))
    except InputError as other:  # without `agreed` it is another one: there is no MPI to tell it by
        return other if hasattr(other, "agreed") else error
    return error


@contextlib.contextmanager
def fail_on_all(*, alone: bool) -> Iterator[None]:
    """Around what comes before `begin`: see `told_to_all`."""
    try:
        yield
    except InputError as error:
        other = error_for_all(error, alone=alone)
        if other is error:
            raise
        raise other from error


def init_training_group(text: Any, settings: Settings, work: str) -> ProcessGroup:
    """The process among those that train together, if there are several, which all do the same work."""
    group = process_group.init_process_group(asked=settings.distributed)
    process_group.assert_same(group, {"to do:": work})

    def check() -> None:
        if group.size > 1 and isinstance(text, str) and text == "-":
            raise InputError("text -: standard input is that of one process alone: give a file")
        if settings.micro_batches > 1 and not reduction.is_divisible(settings.micro_batches, group.size):
            told = f"--micro-batches {settings.micro_batches} for {group.size} processes"
            some = f"{group.size}, {2 * group.size}, {4 * group.size} and so on"
            raise InputError(f"{told}: give {some}, or 1 for one part each")

    process_group.rank_0_then_others(group, check)
    return group


def setup_all(group: ProcessGroup, settings: Settings, prepare: Callable[[], Prepared]) -> Prepared:
    """What a run needs, among the processes that train together, which must be about to do the same.

    `settings` are those that were told, of which a run that goes on has others, too.
    """

    def here() -> Prepared:
        if group.size > 1:
            backends.use_device(settings.backend, group.local)
        ready = prepare()
        if ready.task.settings.nccl:
            allreduce.refuse_nccl(group, ready.task.backend)
        return ready

    ready = process_group.rank_0_then_others(group, here)
    if group.size == 1:
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
        "an MPI that reads a GPU's memory:": str(group.cuda and task.backend.is_gpu),
        "weights": str(process_group.checksum(task.backend.get(ready.now.state.params_vector))),
    }
    process_group.assert_same(group, facts)
    length = 1 + tree.num_elements(model.shapes(task.config))  # a gradient and a loss
    all_reduce = allreduce.connect_all(group, task.backend, length, nccl=task.settings.nccl)
    return ready._replace(task=task._replace(all_reduce=all_reduce))


def silent_reporter(words: str, row: dict[str, Any]) -> None:
    """What a process tells that has another one to speak for it."""
