"""Ask the CUDA driver how many clusters of blocks a device runs at the same time; CuPy has no function for it."""

import ctypes
import functools
import os
from typing import Any

import cupy

THREADS = 512  # of a block, as the kernels have them
PROBE = f'extern "C" __global__ void __launch_bounds__({THREADS}, 1) probe() {{}}'
LARGEST = 16  # blocks of a cluster; more than 8 have to be allowed
ALLOWED = 14  # CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED
DIMENSION = 4  # CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION


class Attribute(ctypes.Structure):
    """CUlaunchAttribute: of 64 bytes for its value three numbers are used here."""

    _fields_ = (("id", ctypes.c_int), ("pad", ctypes.c_int), ("dimensions", ctypes.c_uint * 3), ("rest", ctypes.c_uint * 13))


class Config(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(Attribute)),
        ("count", ctypes.c_uint),
    )


def allow_large_clusters(kernel: Any) -> None:
    """Let a kernel (cupy.RawKernel) run in clusters of more than eight blocks, where the device has those."""
    _driver().cuFuncSetAttribute(ctypes.c_void_p(kernel.kernel.ptr), ALLOWED, 1)


@functools.cache
def _driver() -> Any:
    """CUDA's driver, which CuPy has loaded."""
    return ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")


@functools.cache
def max_active_clusters(number: int) -> tuple[int, ...]:
    """How many clusters of 2, 3 and so on blocks, each alone on its multiprocessor, run on a device at the same time."""
    device = cupy.cuda.Device(number)
    if int(device.compute_capability) < 90 or cupy.cuda.nvrtc.getVersion() < (12, 1):  # a compiler that cannot send in them
        return ()
    shared = device.attributes["MaxSharedMemoryPerBlockOptin"]  # all of it, so that no two blocks share a multiprocessor
    with device:
        probe = cupy.RawKernel(PROBE, "probe")
        probe.max_dynamic_shared_size_bytes = shared
        allow_large_clusters(probe)
        return tuple(_active_clusters(probe.kernel.ptr, blocks, shared) for blocks in range(2, LARGEST + 1))


def _active_clusters(function: int, blocks: int, shared: int) -> int:
    """How many clusters of so many blocks run at the same time; 0 where they are too large."""
    attribute = Attribute(DIMENSION, 0, (ctypes.c_uint * 3)(blocks, 1, 1))
    config = Config(
        (ctypes.c_uint * 3)(blocks, 1, 1), (ctypes.c_uint * 3)(THREADS, 1, 1), shared, None, ctypes.pointer(attribute), 1
    )
    count = ctypes.c_int()
    status = _driver().cuOccupancyMaxActiveClusters(ctypes.byref(count), ctypes.c_void_p(function), ctypes.byref(config))
    return 0 if status else count.value
