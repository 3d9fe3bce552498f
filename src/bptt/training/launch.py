"""The start of data-parallel training: the processes form a group, and compare settings, texts and weights."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from bptt import acceleration, system
from bptt import backend as backends
from bptt.config.settings import Settings
from bptt.distributed import allreduce, process_group, reduction
from bptt.distributed.launcher import launched_processes
from bptt.distributed.process_group import ProcessGroup
from bptt.errors import InputError, option
from bptt.nn import model, tree
from bptt.training.setup import Prepared

LOCAL_SETTINGS = {"quiet", "json", "distributed", "device"}  # may differ between processes


def error_for_all(error: InputError, *, alone: bool) -> InputError:
    """Return the error that all launched processes raise for an error before `init_training_group`.

    The others wait in `init_training_group`, unless each process trains `alone`. Process 0's error comes first.
    """
    if alone or launched_processes() == 1 or error.on_all_ranks:
        return error
    try:
        process_group.init_process_group(distributed=None, problem=str(error))
    except InputError as shared:
        return shared if shared.on_all_ranks else error  # otherwise there is no MPI to share it by
    return error


@contextlib.contextmanager
def fail_on_all(*, alone: bool) -> Iterator[None]:
    """Raise an InputError of this block in all launched processes; see `error_for_all`."""
    try:
        yield
    except InputError as error:
        shared = error_for_all(error, alone=alone)
        if shared is error:
            raise
        raise shared from error


def init_training_group(text: Any, settings: Settings, work: str) -> ProcessGroup:
    """Return the group of the processes that train together, all of which are about to do the same work."""
    group = process_group.init_process_group(distributed=settings.distributed)
    group.assert_same(lambda: {"to do:": work})

    def check() -> None:
        if group.size > 1 and isinstance(text, str) and text == "-":
            raise InputError("text -: standard input is that of one process alone: give a file")
        if settings.micro_batches > 1 and not reduction.is_divisible(settings.micro_batches, group.size):
            problem = f"{option('micro_batches', settings.micro_batches)} for {group.size} processes"
            remedy = f"give {group.size}, {2 * group.size}, {4 * group.size} and so on, or 1 for one part each"
            raise InputError(f"{problem}: {remedy}")

    group.rank_0_then_others(check)
    return group


def setup_all(group: ProcessGroup, settings: Settings, prepare: Callable[[], Prepared]) -> Prepared:
    """Prepare a run in all processes, compare the results and connect the all-reduce.

    `settings` are those of the command; a resumed run takes the others from its folder.
    """

    def prepare_process() -> Prepared:
        if group.size > 1:
            backends.use_device(settings.backend, group.local_rank)
        prepared = prepare()
        if prepared.task.settings.nccl:
            allreduce.refuse_nccl(group, prepared.task.backend)
        return prepared

    prepared = group.rank_0_then_others(prepare_process)
    task = prepared.task
    group.assert_same(lambda: _facts(prepared, settings))
    length = 1 + tree.num_elements(model.shapes(task.config))  # the gradient and the loss
    all_reduce = allreduce.connect(group, task.backend, length, nccl=task.settings.nccl)
    return prepared._replace(task=task._replace(all_reduce=all_reduce))


def _facts(prepared: Prepared, settings: Settings) -> dict[str, str]:
    """Return by name what has to be the same in all processes."""
    task, state, progress = prepared.task, prepared.now.state, prepared.now.progress
    flags = {f"--{name}": str(value) for name, value in vars(task.settings).items() if name not in LOCAL_SETTINGS}
    flags["--cell"] = str(prepared.record.get("cell_file", task.config.cell))  # a file by its content
    return {
        **system.versions(),
        **flags,
        "--out": str(settings.out),
        "text": task.data.sha256,
        "validation set": task.data.validation_sha256,
        "vocabulary": str(task.data.vocabulary.symbols),
        "backend": f"{task.backend.name} {task.backend.dtype}",
        "compiled": acceleration.compiled_by(task.backend),
        "step": str(state.step),
        "best": str((progress.best, progress.waited)),  # which decide when all end
        "an MPI that reads a GPU's memory:": str(task.group.reads_gpu_memory and task.backend.is_gpu),
        "weights": str(process_group.checksum(task.backend.get(state.params_vector))),
    }


def silent_reporter(words: str, row: dict[str, Any]) -> None:
    """Report nothing, because process 0 reports for the group."""
