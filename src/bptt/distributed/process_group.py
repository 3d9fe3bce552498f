"""Several processes that train one model, each with a share of every batch: all that knows of MPI.

They hold the same parameters, read the same text in the same order, and compute the same update from the sum of their
gradients. So they need to hear of each other only what they add up, and what a clock, a signal or a disk decides.
"""

import contextlib
import os
import sys
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from bptt.backend import HostArray
from bptt.errors import InputError, OutOfSync

T = TypeVar("T")

LAUNCHER_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")  # where launchers tell how many they start
REMEDY = "pip install mpi4py mpich"


class ProcessGroup(NamedTuple):
    """A process among those that train together."""

    rank: int = 0
    size: int = 1
    local: int = 0  # its number among those on this machine
    neighbours: int = 1  # how many are on this machine
    comm: Any = None
    cuda: bool = False  # whether MPI reads and writes the memory of a GPU


SINGLE_PROCESS = ProcessGroup()


def launched_processes() -> int:
    """How many processes a launcher says in the environment that it has started; 1 where there is none."""
    return max((int(os.environ[name]) for name in LAUNCHER_VARIABLES if os.environ.get(name, "").isdigit()), default=1)


def init_process_group(*, asked: bool | None, problem: str = "") -> ProcessGroup:
    """Where this process is among those that a launcher started.

    Alone where it is not asked for, and where nothing is said of it and no launcher has left a trace in the environment.
    A process that cannot begin says its `problem`, for the others would wait for it.

    Raises:
        InputError: MPI is not installed, or is not the one of the launcher; in all processes, where one has a problem.
    """
    told = launched_processes()
    if asked is False or (asked is None and told == 1):
        return SINGLE_PROCESS
    try:
        with warnings.catch_warnings(action="ignore"):  # of what is refused below
            from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise InputError(f"several processes need MPI, which cannot be used: {reason} (remedy: {REMEDY})") from None
    comm = MPI.COMM_WORLD.Dup()  # nothing of the program around is mixed up with this
    if told > 1 and comm.size != told:
        other = f"the launcher started {told} processes, and MPI knows of {comm.size}"
        raise InputError(f"{other}: use the launcher of the MPI that mpi4py was built for (remedy: {REMEDY}, then its mpiexec)")
    if comm.size == 1:
        return SINGLE_PROCESS
    machine = comm.Split_type(MPI.COMM_TYPE_SHARED)
    ranks = ProcessGroup(comm.rank, comm.size, machine.rank, machine.size, comm, reads_cuda(MPI.COMM_WORLD.Get_info()))
    for number, other in enumerate(all_gather(ranks, problem)):
        if other:
            raise agreed(ranks, InputError(other if number == 0 else f"process {number} of {ranks.size}: {other}"))
    return ranks


def reads_cuda(about: Any) -> bool:
    """Whether an MPI says of itself, as MPI 4.1 has it (section 12.4.3), that it takes the memory of a CUDA device."""
    kinds = [kind.split(":") for kind in (about.Get("mpi_memory_alloc_kinds") or "").split(",")]
    return any(kind == "cuda" and (not parts or "device" in parts) for kind, *parts in kinds)


@contextlib.contextmanager
def abort_all_on_error(ranks: ProcessGroup) -> Iterator[None]:
    """Whatever ends this process in here ends them all: the others would wait for it for ever."""
    if ranks.size == 1:
        yield
        return
    try:
        with warnings.catch_warnings():
            if ranks.rank:
                warnings.simplefilter("ignore", UserWarning)  # process 0 has the same ones
            yield
    except BaseException as error:
        if getattr(error, "agreed", False):
            vars(error)["told"] = ranks.rank > 0
            raise
        codes = {InputError: 2, MemoryError: 4, KeyboardInterrupt: 130}
        code = next((code for kind, code in codes.items() if isinstance(error, kind)), 1)
        words = "".join(traceback.format_exception(error)) if code == 1 else str(error) or type(error).__name__
        sys.stderr.write(f"bptt: process {ranks.rank} of {ranks.size} ends all: {words}\n")
        sys.stderr.flush()
        ranks.comm.Abort(code)


def broadcast(ranks: ProcessGroup, value: T) -> T:
    """The value of process 0."""
    found: T = value if ranks.size == 1 else ranks.comm.bcast(value)
    return found


def all_gather(ranks: ProcessGroup, value: T) -> list[T]:
    """The values of all processes, in their order."""
    return [value] if ranks.size == 1 else list(ranks.comm.allgather(value))


def gather(ranks: ProcessGroup, value: T) -> list[T] | None:
    """The values of all processes, in their order, in process 0 alone."""
    found: list[T] | None = [value] if ranks.size == 1 else ranks.comm.gather(value)
    return found


def rank_0_then_others(ranks: ProcessGroup, function: Callable[[], T]) -> T:
    """What a function gives, called by process 0 first, then by the others.

    An InputError or an ArithmeticError (a run that diverged) of any of them is raised in all.
    """
    found: list[T] = []

    def attempt() -> InputError | ArithmeticError | None:
        try:
            found.append(function())
        except (InputError, ArithmeticError) as error:
            return error
        return None

    if ranks.size == 1:
        return function()
    problem = broadcast(ranks, attempt() if ranks.rank == 0 else None)
    if problem is None and ranks.rank:
        problem = attempt()
    for number, other in enumerate(all_gather(ranks, problem)):
        if other is not None:
            raise agreed(ranks, other if number == 0 else type(other)(f"process {number} of {ranks.size}: {other}"))
    return found[0]


def agreed(ranks: ProcessGroup, error: InputError | ArithmeticError) -> InputError | ArithmeticError:
    """An error that all processes raise, and process 0 tells: with marks for those who catch it."""
    vars(error).update(agreed=True, told=ranks.rank > 0)
    return error


def on_rank_0(ranks: ProcessGroup, function: Callable[[], T]) -> T | None:
    """What a function gives, called by process 0 alone; its InputError or ArithmeticError is raised in all."""
    return rank_0_then_others(ranks, function if ranks.rank == 0 else lambda: None)


def assert_same(ranks: ProcessGroup, facts: dict[str, str]) -> None:
    """Raise an InputError in all processes where they are not about to do the same, in number, type or text."""
    first, *others = all_gather(ranks, facts)
    for number, other in enumerate(others, 1):
        for name, value in first.items():
            if other[name] != value:
                difference = f"process {number} of {ranks.size} has {name} {other[name]}, process 0 has {value}"
                raise agreed(ranks, InputError(f"{difference}: start all of them with the same command, packages and files"))


def assert_in_sync(ranks: ProcessGroup, params_vector: HostArray) -> None:
    """Raise OutOfSync where the parameters (P,) are not the same bits in all processes."""
    found = all_gather(ranks, checksum(params_vector))
    if len(set(found)) > 1:
        raise OutOfSync(f"the parameters of {ranks.size} processes are not the same any more (checksums {found})")


def checksum(array: HostArray) -> int:
    """A number that nearly always differs where the bits do."""
    return zlib.crc32(array.tobytes())


def all_signals(ranks: ProcessGroup, signals: list[str]) -> list[str]:
    """The signals that have arrived at any process, those of process 0 first."""
    return signals if ranks.size == 1 else [name for names in all_gather(ranks, list(signals)) for name in names]
