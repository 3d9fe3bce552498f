"""NCCL through CuPy: sends arrays from GPU to GPU without the host."""

import warnings
from pathlib import Path
from typing import Any

import cupy

from bptt.distributed.process_group import ProcessGroup

with warnings.catch_warnings(action="ignore"):  # about a missing library, which `unavailable_reason` reports
    from cupy.cuda import nccl


def unavailable_reason() -> str:
    """Return why NCCL cannot be used, with the remedy; empty if it can."""
    if nccl.available:
        return ""
    major = cupy.cuda.runtime.runtimeGetVersion() // 1000
    return f"NCCL cannot be loaded (remedy: pip install nvidia-nccl-cu{major})"


def device_id() -> str:
    """Return a name for the GPU of this process that no other GPU of any machine has."""
    machine = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()  # NCCL runs on Linux only
    return f"{machine} {cupy.cuda.Device().pci_bus_id}"


class Communicator:
    """The part of an mpi4py communicator that all-reduce uses, for arrays on GPUs.

    Calls are queued on the current stream; none waits for the device.
    """

    def __init__(self, group: ProcessGroup):
        """Join the other processes of the group, each of which has a GPU of its own."""
        self.size = group.size
        unique_id = group.broadcast(nccl.get_unique_id() if group.rank == 0 else None)
        self.nccl = nccl.NcclCommunicator(group.size, unique_id, group.rank)

    def Alltoall(self, sent: Any, received: Any) -> None:
        """Send row r of `sent` (size, n) to process r; row r of `received` (size, n) comes from process r."""
        nccl.groupStart()
        for peer in range(self.size):
            self.nccl.send(sent[peer].data.ptr, *_size_and_type(sent[peer]), peer, _stream())
            self.nccl.recv(received[peer].data.ptr, *_size_and_type(received[peer]), peer, _stream())
        nccl.groupEnd()

    def Allgather(self, sent: Any, received: Any) -> None:
        """Gather the vectors (n,) of all processes as the rows of `received` (size, n)."""
        self.nccl.allGather(sent.data.ptr, received.data.ptr, *_size_and_type(sent), _stream())

    def close(self) -> None:
        """Leave the group; all processes call this, because NCCL waits for them."""
        self.nccl.destroy()


def _size_and_type(array: Any) -> tuple[int, int]:
    """Return the number of elements and NCCL's name of their type."""
    return array.size, nccl.NCCL_FLOAT64 if array.dtype == cupy.float64 else nccl.NCCL_FLOAT32


def _stream() -> int:
    """Return the address of the current stream."""
    pointer: int = cupy.cuda.get_current_stream().ptr
    return pointer
