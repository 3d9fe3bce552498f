"""What carries sums from process to process, MPI or NCCL between GPUs, and the memory in which it finds the numbers."""

import math
from collections.abc import Sequence
from typing import Any

from bptt import fused
from bptt.backend import Array, Backend
from bptt.errors import InputError
from bptt.run import parallel, sums
from bptt.run.parallel import Ranks


class Link:
    """The way from this process to the others, and back, for vectors as long as a gradient."""

    def __init__(self, among: Ranks, backend: Backend, wire: Any = None):
        """`wire` has `Alltoall` and `Allgather` as an mpi4py communicator, for arrays on the device.

        By default it is MPI, which gets them there if it says that it reads the memory of GPUs, and on the host if not.
        """
        self.among, self.backend = among, backend
        self.wire = among.comm if wire is None else wire
        self.direct = wire is not None or (among.cuda and backend.name == "cupy")
        self.waits = self.direct and wire is None  # for MPI knows nothing of what the device has been asked for
        self.rows: tuple[Array, ...] = ()  # (size, part) each: what goes out, what comes in, and the sum

    def total(self, arrays: Sequence[Array], count: int, present: list[int]) -> Array:
        """The sum of the vectors (count,) of some processes, in the order of `sums`: the same bits everywhere.

        `arrays` (n,) or () are that of this process one behind the other. Each process adds up a part of all, as in a
        reduce-scatter, and all gather the parts.
        """
        shape = self.among.size, -(-count // self.among.size)
        if not self.rows or self.rows[0].shape != shape:
            self.rows = tuple(self._zeros(shape) for _ in range(3))
        given, parts, found = self.rows
        end, flat = 0, given.reshape(-1)
        for array in arrays:
            begin, end = end, end + math.prod(array.shape)
            self._copy(array, flat[begin:end])
        self._ready()
        self.wire.Alltoall(given, parts)
        (own,) = sums.added(lambda number: (parts[number],) if number in present else None, self.among.size) or (parts[0],)
        self._ready()
        self.wire.Allgather(own, found)
        whole = found.reshape(-1)[:count]
        return self.backend.xp.asarray(whole, copy=True) if self.direct else self.backend.send(whole)

    def _zeros(self, shape: tuple[int, int]) -> Array:
        return self.backend.xp.zeros(shape, dtype=self.backend.dtype) if self.direct else self.backend.exchanged(shape)

    def _copy(self, array: Array, into: Array) -> None:
        if self.direct:
            into[...] = array.reshape(-1)
        else:
            self.backend.fetch(array, into)

    def _ready(self) -> None:
        if self.waits:
            self.backend.synchronise()


def between(among: Ranks, backend: Backend, *, nccl: bool) -> Link | None:
    """The link between processes that train together, all of which call this; None where there is one.

    Raises:
        InputError: NCCL is asked for, and two processes have the same GPU; in all of them.
    """
    if among.size == 1:
        return None
    if not nccl:
        return Link(among, backend)
    wires = fused.wires()
    devices = parallel.each(among, wires.device())
    for number, device in enumerate(devices):
        if (first := devices.index(device)) < number:
            same = f"processes {first} and {number} have the same GPU ({device})"
            raise parallel.agreed(among, InputError(f"--nccl: {same}: start one process for each GPU, or leave --nccl out"))
    return Link(among, backend, wires.Communicator(among.rank, among.size, lambda value: parallel.same(among, value)))


def refuse(among: Ranks, backend: Backend) -> None:
    """Raise an InputError where NCCL cannot be used in this process."""
    if among.size == 1:
        return
    if backend.name != "cupy":
        raise InputError(f"--nccl: the backend is {backend.name}, and NCCL needs a GPU for each process: leave --nccl out")
    if obstacle := fused.wires().obstacle():
        raise InputError(f"--nccl: {obstacle}, or leave --nccl out")
