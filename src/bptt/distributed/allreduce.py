"""What carries sums from process to process, MPI or NCCL between GPUs, and the memory in which it finds the numbers."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from bptt.backend import Array, Backend
from bptt.distributed import process_group, reduction
from bptt.distributed.process_group import ProcessGroup
from bptt.errors import InputError


class AllReduce(NamedTuple):
    """The way from this process to the others, and back, for vectors (n,)."""

    group: ProcessGroup
    backend: Backend
    wire: Any  # with `Alltoall` and `Allgather` as an mpi4py communicator has them
    direct: bool  # whether it finds numbers where the backend has them, or on the host
    waits: bool  # whether the device has to be done with them first
    length: int  # n
    rows: tuple[Array, Array, Array]  # (size, part) each, used again: what goes out, what comes in, and the sum

    def __str__(self) -> str:
        """By what the numbers go."""
        if self.wire is not self.group.comm:
            return "NCCL"
        return "MPI from the GPU" if self.direct else "MPI by way of pinned memory" if self.backend.is_gpu else "MPI"


def connect(group: ProcessGroup, backend: Backend, length: int, wire: Any = None) -> AllReduce:
    """The way by a wire for arrays on the device; by default MPI's, for such if it says that it reads a GPU's memory."""
    mpi = wire is None
    direct = not mpi or (group.cuda and backend.is_gpu)
    shape = group.size, -(-length // group.size)

    def zeros() -> Array:
        return backend.xp.zeros(shape, dtype=backend.dtype) if direct else backend.pinned_buffer(shape)

    rows = zeros(), zeros(), zeros()
    return AllReduce(group, backend, group.comm if mpi else wire, direct, direct and mpi, length, rows)


def connect_all(group: ProcessGroup, backend: Backend, length: int, *, nccl: bool) -> AllReduce | None:
    """The link between processes that train together, all of which call this; None where there is one.

    Raises:
        InputError: NCCL is asked for, and two processes have the same GPU; in all of them.
    """
    if group.size == 1:
        return None
    if not nccl:
        return connect(group, backend, length)
    from bptt.distributed import nccl as wires  # needs CuPy

    devices = process_group.all_gather(group, wires.device_id())
    for number, device in enumerate(devices):
        if (first := devices.index(device)) < number:
            same = f"processes {first} and {number} have the same GPU"
            raise process_group.agreed(
                group, InputError(f"--nccl: {same}: start one process for each GPU, or with --nccl=false")
            )
    return connect(
        group, backend, length, wires.Communicator(group.rank, group.size, lambda value: process_group.broadcast(group, value))
    )


def close(link: AllReduce | None) -> None:
    """Give up a link that is not used any more; all processes call this."""
    if link is not None and link.wire is not link.group.comm:
        link.wire.close()


def refuse_nccl(group: ProcessGroup, backend: Backend) -> None:
    """Raise an InputError where NCCL cannot be used in this process."""
    if group.size == 1:
        return
    if not backend.is_gpu:
        raise InputError(f"--nccl: the backend is {backend.name}, and NCCL needs a GPU for each process: give --nccl=false")
    from bptt.distributed import nccl as wires

    if obstacle := wires.unavailable_reason():
        raise InputError(f"--nccl: {obstacle}, or give --nccl=false")


def all_reduce(link: AllReduce, arrays: Sequence[Array], present: list[int]) -> Array:
    """The sum of the vectors (n,) of some processes, in the order of `sums`: the same bits everywhere.

    `arrays` (m,) or () are that of this process one behind the other; none, where it is not among those. Each process adds up
    a part of all, as in a reduce-scatter, and all gather the parts.
    """
    given, parts, found = link.rows
    end, flat = 0, given.reshape(-1)
    for array in arrays:
        begin, end = end, end + math.prod(array.shape)
        if link.direct:
            flat[begin:end] = array.reshape(-1)
        else:
            link.backend.copy_to_host(array, flat[begin:end])
    _ready(link)
    link.wire.Alltoall(given, parts)
    (own,) = reduction.pairwise_sum(lambda number: (parts[number],) if number in present else None, link.group.size) or (
        parts[0],
    )
    _ready(link)
    link.wire.Allgather(own, found)
    whole = found.reshape(-1)[: link.length]
    return link.backend.xp.asarray(whole, copy=True) if link.direct else link.backend.copy_to_device(whole)


def _ready(link: AllReduce) -> None:
    """Let MPI find what the device has been asked for, of which it knows nothing."""
    if link.waits:
        link.backend.synchronize()
