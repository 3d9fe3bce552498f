"""All-reduce of the gradient, by MPI or by NCCL between GPUs."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from bptt.backend import Array, Backend
from bptt.distributed import reduction
from bptt.distributed.process_group import MPIGroup, ProcessGroup
from bptt.errors import InputError, option

NCCL = "NCCL"


class AllReduce(NamedTuple):
    """Sums vectors (n,) of the processes of a group, in buffers that are used again each time."""

    group: ProcessGroup
    backend: Backend
    communicator: Any  # has `Alltoall` and `Allgather`, as in mpi4py
    transport: str  # what carries the numbers, as the record of a run names it
    on_device: bool  # whether the buffers are on the backend's device; otherwise they are on the host
    synchronize: bool  # whether to wait for the device before the communicator reads the buffers
    length: int  # n
    buffers: tuple[Array, Array, Array]  # (size, part) each: what is sent, what is received, and the sum

    def __call__(self, arrays: Sequence[Array], contributing: list[int]) -> Array:
        """Return the sum of the vectors (n,) of the contributing processes, with the same bits in every process.

        Every process calls this. `arrays` (m,) or () are the vector of this process, one after the other; none if it does
        not contribute. As in a reduce-scatter, each process sums one part of all vectors in the order of `reduction`; then
        it gathers the sums of the others.
        """
        sent, received, result = self.buffers
        vector, end = sent.reshape(-1), 0
        for array in arrays:
            begin, end = end, end + math.prod(array.shape)
            if self.on_device:
                vector[begin:end] = array.reshape(-1)
            else:
                self.backend.copy_to_host(array, vector[begin:end])
        self._wait_for_device()
        self.communicator.Alltoall(sent, received)
        part = reduction.pairwise_sum(lambda rank: (received[rank],) if rank in contributing else None, self.group.size)
        self._wait_for_device()
        self.communicator.Allgather(received[0] if part is None else part[0], result)
        reduced = result.reshape(-1)[: self.length]
        return self.backend.xp.asarray(reduced, copy=True) if self.on_device else self.backend.copy_to_device(reduced)

    def _wait_for_device(self) -> None:
        """Let the device finish what MPI, which knows nothing of its queue, is about to read."""
        if self.synchronize:
            self.backend.synchronize()

    def close(self) -> None:
        """Leave NCCL; all processes call this."""
        if self.transport == NCCL:
            self.communicator.close()


def connect(group: ProcessGroup, backend: Backend, length: int, *, nccl: bool) -> AllReduce | None:
    """Return the all-reduce for vectors (n,) of that length, or None for a single process; all processes call this.

    Raises:
        InputError: in all processes, if NCCL is asked for and two processes have the same GPU.
    """
    if not isinstance(group, MPIGroup):
        return None
    return connect_nccl(group, backend, length) if nccl else connect_mpi(group, backend, length)


def connect_mpi(group: MPIGroup, backend: Backend, length: int) -> AllReduce:
    """Return the all-reduce over MPI; arrays on a GPU pass through pinned memory unless MPI reads the memory of a GPU."""
    on_device = group.reads_gpu_memory and backend.is_gpu
    transport = "MPI from the GPU" if on_device else "MPI by way of pinned memory" if backend.is_gpu else "MPI"
    synchronize, buffers = on_device, _buffers(group, backend, length, on_device=on_device)
    return AllReduce(group, backend, group.communicator, transport, on_device, synchronize, length, buffers)


def connect_nccl(group: ProcessGroup, backend: Backend, length: int) -> AllReduce:
    """Return the all-reduce over NCCL; raises an InputError in all processes if two of them have the same GPU."""
    from bptt.distributed.nccl import Communicator, device_id  # needs CuPy

    devices = group.all_gather(device_id())

    def check() -> None:
        for rank, device in enumerate(devices):
            if (other := devices.index(device)) < rank:
                problem = f"processes {other} and {rank} have the same GPU"
                remedy = f"start one process for each GPU, or with {option('nccl', False)}"
                raise InputError(f"{option('nccl')}: {problem}: {remedy}")

    group.on_rank_0(check)
    buffers = _buffers(group, backend, length, on_device=True)
    on_device, synchronize = True, False
    return AllReduce(group, backend, Communicator(group), NCCL, on_device, synchronize, length, buffers)


def _buffers(group: ProcessGroup, backend: Backend, length: int, *, on_device: bool) -> tuple[Array, Array, Array]:
    """Return three buffers (size, part) of zeros, each of which holds a vector (n,)."""
    shape = group.size, -(-length // group.size)

    def zeros() -> Array:
        return backend.xp.zeros(shape, dtype=backend.dtype) if on_device else backend.pinned_buffer(shape)

    return zeros(), zeros(), zeros()


def refuse_nccl(group: ProcessGroup, backend: Backend) -> None:
    """Raise an InputError if this process cannot use NCCL."""
    if group.size == 1:
        return
    if not backend.is_gpu:
        problem = f"the backend is {backend.name}, and NCCL needs a GPU for each process"
        raise InputError(f"{option('nccl')}: {problem}: give {option('nccl', False)}")
    from bptt.distributed import nccl

    if reason := nccl.unavailable_reason():
        raise InputError(f"{option('nccl')}: {reason}, or give {option('nccl', False)}")
