"""Rows of numbers from one GPU to others without the host: NCCL, as CuPy presents it."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cupy

with warnings.catch_warnings(action="ignore"):  # of a library that is missing: `obstacle` says so
    from cupy.cuda import nccl


def unavailable_reason() -> str:
    """Why NCCL cannot be used, with the remedy; empty where it is there."""
    if nccl.available:
        return ""
    major = cupy.cuda.runtime.runtimeGetVersion() // 1000
    return f"NCCL cannot be loaded (remedy: pip install nvidia-nccl-cu{major})"


def device_id() -> str:
    """The GPU of this process, by a name that no other one of any machine has."""
    machine = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()  # NCCL is for Linux alone
    return f"{machine} {cupy.cuda.Device().pci_bus_id}"


class Communicator:
    """The GPUs of processes that train together: what is used of an mpi4py communicator, for arrays on them.

    Calls are asked for on the current stream; none waits.
    """

    def __init__(self, rank: int, size: int, same: Callable[[Any], Any]):
        """Join the others, each of which has a GPU of its own; `same` gives all of them what process 0 has."""
        self.size = size
        self.nccl = nccl.NcclCommunicator(size, same(nccl.get_unique_id() if rank == 0 else None), rank)

    def Alltoall(self, given: Any, found: Any) -> None:
        """Row r of `given` (size, n) becomes the row of this process in `found` (size, n) of process r."""
        nccl.groupStart()
        for other in range(self.size):
            self.nccl.send(given[other].data.ptr, *_what(given[other]), other, _stream())
            self.nccl.recv(found[other].data.ptr, *_what(found[other]), other, _stream())
        nccl.groupEnd()

    def Allgather(self, given: Any, found: Any) -> None:
        """The vectors (n,) of all processes become the rows of `found` (size, n)."""
        self.nccl.allGather(given.data.ptr, found.data.ptr, *_what(given), _stream())

    def close(self) -> None:
        """Leave the others, all of which call this: NCCL waits for them, which it must not do at any odd moment."""
        self.nccl.destroy()


def _what(array: Any) -> tuple[int, int]:
    """How many numbers, and of which type."""
    return array.size, nccl.NCCL_FLOAT64 if array.dtype == cupy.float64 else nccl.NCCL_FLOAT32


def _stream() -> int:
    pointer: int = cupy.cuda.get_current_stream().ptr
    return pointer
