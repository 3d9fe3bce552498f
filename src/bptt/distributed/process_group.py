"""The processes that train one model together, over MPI.

They hold the same parameters, read the same text in the same order, and compute the same update from the sum of their
gradients. So they only exchange gradients and what depends on a clock, a signal or a disk.
"""

import abc
import contextlib
import sys
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from bptt.backend import Array, Backend, HostArray
from bptt.distributed.launcher import launched_processes
from bptt.errors import InputError, OutOfSync, SharedError

T = TypeVar("T")

REMEDY = "pip install mpi4py mpich"


@dataclass(frozen=True)
class ProcessGroup(abc.ABC):
    """One process and what it needs from the others; every process calls the same methods in the same order."""

    rank: int = 0
    size: int = 1  # number of processes
    local_rank: int = 0  # rank among the processes on this machine
    local_size: int = 1  # number of processes on this machine
    reads_gpu_memory: bool = False  # whether MPI reads and writes the memory of a GPU

    @abc.abstractmethod
    def broadcast(self, value: T) -> T:
        """Return the value of process 0."""

    @abc.abstractmethod
    def all_gather(self, value: T) -> list[T]:
        """Return the values of all processes, by rank."""

    @abc.abstractmethod
    def gather(self, value: T) -> list[T] | None:
        """Return the values of all processes, by rank, in process 0; None in the others."""

    @abc.abstractmethod
    def rank_0_then_others(self, function: Callable[[], T]) -> T:
        """Call a function in process 0 first, then in the others, and return its result.

        A `SharedError` of any process is raised in all of them.
        """

    @abc.abstractmethod
    def assert_same(self, facts: Callable[[], dict[str, str]]) -> None:
        """Raise an InputError in all processes if their facts, by name, differ."""

    @abc.abstractmethod
    def assert_in_sync(self, params_vector: Array, backend: Backend) -> None:
        """Raise OutOfSync if the parameters (P,) of the processes differ in any bit."""

    @abc.abstractmethod
    def all_raise(self, error: BaseException) -> bool:
        """Return whether every process raises this error, so that the processes can still exchange something."""

    @abc.abstractmethod
    def abort_all_on_error(self) -> contextlib.AbstractContextManager[None]:
        """End all processes when an exception leaves the block in one of them, because the others would wait forever."""

    def on_rank_0(self, function: Callable[[], T]) -> T | None:
        """Call a function in process 0 only and return its result there; None in the others.

        A `SharedError` is raised in all processes.
        """
        return self.rank_0_then_others(function if self.rank == 0 else lambda: None)

    def all_signals(self, signals: list[str]) -> list[str]:
        """Return the names of the signals that any process received, by rank."""
        return [name for names in self.all_gather(list(signals)) for name in names]


class SingleProcess(ProcessGroup):
    """The group of a process that trains alone: nothing to exchange or to compare."""

    def broadcast(self, value: T) -> T:
        """Return the value."""
        return value

    def all_gather(self, value: T) -> list[T]:
        """Return the value in a list."""
        return [value]

    def gather(self, value: T) -> list[T] | None:
        """Return the value in a list."""
        return [value]

    def rank_0_then_others(self, function: Callable[[], T]) -> T:
        """Call the function."""
        return function()

    def assert_same(self, facts: Callable[[], dict[str, str]]) -> None:
        """Do nothing."""

    def assert_in_sync(self, params_vector: Array, backend: Backend) -> None:
        """Do nothing."""

    def all_raise(self, error: BaseException) -> bool:
        """Return True."""
        return True

    def abort_all_on_error(self) -> contextlib.AbstractContextManager[None]:
        """Do nothing."""
        return contextlib.nullcontext()


SINGLE_PROCESS = SingleProcess()


@dataclass(frozen=True)
class MPIGroup(ProcessGroup):
    """The group of several processes that a launcher started."""

    communicator: Any = None  # of mpi4py

    def broadcast(self, value: T) -> T:
        """Return the value of process 0."""
        received: T = self.communicator.bcast(value)
        return received

    def all_gather(self, value: T) -> list[T]:
        """Return the values of all processes, by rank."""
        return list(self.communicator.allgather(value))

    def gather(self, value: T) -> list[T] | None:
        """Return the values of all processes, by rank, in process 0; None in the others."""
        values: list[T] | None = self.communicator.gather(value)
        return values

    def rank_0_then_others(self, function: Callable[[], T]) -> T:
        """Call a function in process 0 first, then in the others; a `SharedError` of any process is raised in all of them."""
        results: list[T] = []

        def call() -> SharedError | None:
            try:
                results.append(function())
            except SharedError as error:
                return error
            return None

        error = self.broadcast(call() if self.rank == 0 else None)
        if error is None and self.rank:
            error = call()
        self.raise_first(self.all_gather(error))
        return results[0]

    def raise_first(self, errors: list[SharedError | None]) -> None:
        """Raise the first error of a list by rank, if there is one; all processes call this with the same list."""
        for rank, error in enumerate(errors):
            if error is not None:
                raise self.copy_for_rank(error, str(error) if rank == 0 else f"process {rank} of {self.size}: {error}")

    def copy_for_rank(self, error: SharedError, message: str) -> SharedError:
        """Return an error that all processes raise, as this process raises it."""
        return type(error)(message, on_all_ranks=True, rank=self.rank)

    def assert_same(self, facts: Callable[[], dict[str, str]]) -> None:
        """Raise an InputError in all processes if their facts, by name, differ."""
        expected, *others = self.all_gather(facts())
        for rank, other in enumerate(others, 1):
            for name, value in expected.items():
                if other[name] != value:
                    difference = f"process {rank} of {self.size} has {name} {other[name]}, process 0 has {value}"
                    remedy = "start all of them with the same command, packages and files"
                    raise InputError(f"{difference}: {remedy}", on_all_ranks=True, rank=self.rank)

    def assert_in_sync(self, params_vector: Array, backend: Backend) -> None:
        """Raise OutOfSync if the parameters (P,) of the processes differ in any bit."""
        checksums = self.all_gather(checksum(backend.get(params_vector)))
        if len(set(checksums)) > 1:
            raise OutOfSync(f"the parameters of {self.size} processes are not the same any more (checksums {checksums})")

    def all_raise(self, error: BaseException) -> bool:
        """Return whether every process raises this error."""
        return isinstance(error, SharedError) and error.on_all_ranks

    @contextlib.contextmanager
    def abort_all_on_error(self) -> Iterator[None]:
        """End all processes when an exception leaves the block, unless all of them raise it."""
        try:
            with warnings.catch_warnings():
                if self.rank:
                    warnings.simplefilter("ignore", UserWarning)  # process 0 has the same ones
                yield
        except BaseException as error:
            if isinstance(error, SharedError) and error.on_all_ranks:
                raise self.copy_for_rank(error, str(error)) from error
            codes = {InputError: 2, MemoryError: 4, KeyboardInterrupt: 130}
            code = next((code for kind, code in codes.items() if isinstance(error, kind)), 1)
            words = "".join(traceback.format_exception(error)) if code == 1 else str(error) or type(error).__name__
            sys.stderr.write(f"bptt: process {self.rank} of {self.size} ends all: {words}\n")
            sys.stderr.flush()
            self.communicator.Abort(code)


def init_process_group(*, distributed: bool | None, problem: str = "") -> ProcessGroup:
    """Join the processes that the launcher started.

    With `distributed=None`, the environment decides whether there is a launcher. A process that cannot train passes its
    `problem`, because the others would wait for it.

    Raises:
        InputError: MPI is not installed, or it is not the launcher's; in all processes: one of them has a problem.
    """
    launched = launched_processes()
    if distributed is False or (distributed is None and launched == 1):
        return SINGLE_PROCESS
    try:
        with warnings.catch_warnings(action="ignore"):  # about what is refused below
            from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise InputError(f"several processes need MPI, which cannot be used: {reason} (remedy: {REMEDY})") from None
    communicator = MPI.COMM_WORLD.Dup()  # separate from the messages of the program that imports bptt
    if launched > 1 and communicator.size != launched:
        sizes = f"the launcher started {launched} processes, and MPI knows of {communicator.size}"
        raise InputError(f"{sizes}: use the launcher of the MPI that mpi4py was built for (remedy: {REMEDY}, then its mpiexec)")
    if communicator.size == 1:
        return SINGLE_PROCESS
    machine = communicator.Split_type(MPI.COMM_TYPE_SHARED)
    reads_gpu_memory = mpi_reads_gpu_memory(MPI.COMM_WORLD.Get_info())
    group = MPIGroup(communicator.rank, communicator.size, machine.rank, machine.size, reads_gpu_memory, communicator)
    group.raise_first([InputError(text) if text else None for text in group.all_gather(problem)])
    return group


def mpi_reads_gpu_memory(info: Any) -> bool:
    """Return whether MPI says in its info object that it takes the memory of a CUDA device (MPI 4.1, section 12.4.3)."""
    kinds = [kind.split(":") for kind in (info.Get("mpi_memory_alloc_kinds") or "").split(",")]
    return any(kind == "cuda" and (not restrictors or "device" in restrictors) for kind, *restrictors in kinds)


def checksum(array: HostArray) -> int:
    """Return the CRC-32 of an array's bytes."""
    return zlib.crc32(array.tobytes())
