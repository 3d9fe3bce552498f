"""The recurrences on a CUDA device, each as one kernel for all its steps (recurrence.cu).

Where the weights fit on no number of blocks that run at the same time, or a thread would have to look after too much, it goes
step by step (stepwise.py).
"""

import functools
from collections.abc import Sequence
from typing import Any

import cupy

from bptt.backend import Array
from bptt.dispatch import kernel_for
from bptt.kernels.cuda import occupancy, stepwise
from bptt.kernels.cuda.tiling import CELLS, Limits, Tiling, choose_tiling, source
from bptt.nn import gru, lstm, vanilla


@functools.cache
def _limits(number: int) -> Limits:
    device = cupy.cuda.Device(number)
    attributes = device.attributes
    processors = attributes["MultiProcessorCount"] if int(device.compute_capability) >= 70 else 0  # older: step by step
    return Limits(processors, attributes["MaxSharedMemoryPerBlockOptin"], occupancy.max_active_clusters(number))


@functools.lru_cache(256)
def _kernel(number: int, cell: int, backward: bool, hidden: int, batch: int, size: int) -> tuple[Any, Tiling] | None:
    """The kernel of a device for a batch of so many columns, compiled or from CuPy's cache, and its layout."""
    tiling = choose_tiling(cell, backward, hidden, batch, size, _limits(number))
    if tiling is None:
        return None
    code = source(cell, backward, hidden, size, tiling, _limits(number).threads)
    name = "backward" if backward else "forward"
    kernel = cupy.RawKernel(code, name, ("-std=c++17",), enable_cooperative_groups=not tiling.cluster)
    kernel.max_dynamic_shared_size_bytes = tiling.memory
    if tiling.cluster:
        occupancy.allow_large_clusters(kernel)
    return kernel, tiling


def single_launch(cell: str, hidden: int, batch: int, size: int) -> bool:
    """Whether a cell's loops over time are a kernel each on the current device, in numbers of so many bytes."""
    limits = _limits(cupy.cuda.Device().id)
    return all(choose_tiling(CELLS.index(cell), backward, hidden, batch, size, limits) for backward in (False, True))


def _launch(cell: int, backward: bool, Waa: Array, T: int, B: int, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
    """Launch the kernel of a cell, which fills the output arrays; an array that the cell does not have is None."""
    compiled = _kernel(Waa.device.id, cell, backward, Waa.shape[1], B, Waa.itemsize)
    if compiled is None:
        stepwise.run(cell, backward, Waa, T, B, inputs, outputs)
        return
    kernel, tiling = compiled
    if tiling.blocks_per_group > 1 and not tiling.cluster:  # what blocks look for in global memory: not there yet
        awaited = outputs[1 if backward else 0]
        awaited.data.memset_async(0xFF, awaited.nbytes)
    arrays = [0 if one is None else cupy.ascontiguousarray(one) for one in (Waa, *inputs)]
    arrays += [0 if one is None else one for one in outputs]
    arguments = (*arrays, cupy.int32(T), cupy.int32(B))
    kernel((tiling.groups * tiling.blocks_per_group,), (_limits(Waa.device.id).threads,), arguments, shared_mem=tiling.memory)


def _aligned(x: Array) -> Array:
    """An array at a place from which 16 bytes can be read at a time."""
    x = cupy.ascontiguousarray(x)
    return x.copy() if x.data.ptr % 16 else x


@kernel_for(vanilla.recurrence, cupy.ndarray)
def vanilla_recurrence(z: Array, Waa: Array, a0: Array) -> Array:
    """`vanilla.recurrence`."""
    T, B, H = z.shape
    a = cupy.empty((T + 1, B, H), z.dtype)
    _launch(0, False, Waa, T, B, (z, _aligned(a0), None), (a, None, None, None, None))
    return a


@kernel_for(vanilla.recurrence_backward, cupy.ndarray)
def vanilla_recurrence_backward(da: Array, a: Array, da_next: Array, Waa: Array) -> Any:
    """`vanilla.recurrence_backward`."""
    (T, B, _), dz, da0 = da.shape, cupy.empty_like(da, order="C"), cupy.empty_like(da_next, order="C")
    inputs = da, a, None, None, None, da_next, None
    _launch(0, True, Waa, T, B, inputs, (None, dz, da0, None))
    return dz, da0


@kernel_for(gru.recurrence, cupy.ndarray)
def gru_recurrence(z: Array, Waa: Array, ban: Array, a0: Array) -> Any:
    """`gru.recurrence`."""
    T, B, N = z.shape
    H = N // 3
    a, ru, n, p = (cupy.empty(shape, z.dtype) for shape in ((T + 1, B, H), (T, B, 2 * H), (T, B, H), (T, B, H)))
    _launch(1, False, Waa, T, B, (z, _aligned(a0), ban), (a, None, ru, n, p))
    return a, ru, n, p


@kernel_for(gru.recurrence_backward, cupy.ndarray)
def gru_recurrence_backward(da: Array, a: Array, ru: Array, n: Array, p: Array, da_next: Array, Waa: Array) -> Any:
    """`gru.recurrence_backward`."""
    (T, B, H), da0 = da.shape, cupy.empty_like(da_next, order="C")
    dz, dq = (cupy.empty((T, B, 3 * H), da.dtype) for _ in range(2))
    inputs = da, a, ru, n, p, da_next, None
    _launch(1, True, Waa, T, B, inputs, (dz, dq, da0, None))
    return dz, dq, da0


@kernel_for(lstm.recurrence, cupy.ndarray)
def lstm_recurrence(z: Array, Waa: Array, a0: Array, c0: Array) -> Any:
    """`lstm.recurrence`."""
    T, B, N = z.shape
    a, c = (cupy.empty((T + 1, B, N // 4), z.dtype) for _ in range(2))
    gates = cupy.empty((T, B, N), z.dtype)
    _launch(2, False, Waa, T, B, (z, _aligned(a0), c0), (a, c, gates, None, None))
    return a, c, gates


@kernel_for(lstm.recurrence_backward, cupy.ndarray)
def lstm_recurrence_backward(da: Array, c: Array, gates: Array, da_next: Array, dc_next: Array, Waa: Array) -> Any:
    """`lstm.recurrence_backward`."""
    (T, B, H), da0, dc0 = da.shape, *(cupy.empty_like(one, order="C") for one in (da_next, dc_next))
    dz = cupy.empty((T, B, 4 * H), da.dtype)
    inputs = da, c, gates, None, None, da_next, dc_next
    _launch(2, True, Waa, T, B, inputs, (None, dz, da0, dc0))
    return dz, da0, dc0
