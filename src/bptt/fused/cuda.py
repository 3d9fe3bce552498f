"""Twins on a CUDA device: each recurrence as one kernel for all its steps (recurrence.cu).

Where the weights fit on no number of blocks that run at the same time, or a thread would have to look after too much, a
recurrence gives NotImplemented and the pure function runs.
"""

import functools
from collections.abc import Callable
from typing import Any

import cupy

from bptt.backend import Array
from bptt.fused import blas, elementwise
from bptt.fused.layouts import APART, CELLS, Layout, Limits, layout, source

NAME = "nvrtc " + ".".join(map(str, cupy.cuda.nvrtc.getVersion()))
ARRAY = cupy.ndarray


@functools.cache
def _limits(number: int) -> Limits:
    device = cupy.cuda.Device(number)
    cluster = 8 if int(device.compute_capability) >= 90 else 1  # more would have to be asked for at the launch
    attributes = device.attributes
    return Limits(attributes["MultiProcessorCount"], attributes["MaxSharedMemoryPerBlockOptin"], cluster)


@functools.lru_cache(256)
def _kernel(number: int, cell: int, backward: bool, hidden: int, batch: int, size: int) -> tuple[Any, Layout] | None:
    """The kernel of a device for a batch of so many columns, compiled or from CuPy's cache, and its layout."""
    how = layout(cell, backward, hidden, batch, size, _limits(number))
    if how is None:
        return None
    code = source(cell, backward, hidden, size, how, _limits(number).threads)
    name = "backward" if backward else "forward"
    kernel = cupy.RawKernel(code, name, ("-std=c++17",), enable_cooperative_groups=not how.CLUSTER)
    kernel.max_dynamic_shared_size_bytes = how.memory
    return kernel, how


def fits(cell: str, hidden: int, batch: int, size: int) -> bool:
    """Whether there are kernels for the loops over time of a cell, on the current device, in numbers of so many bytes."""
    limits = _limits(cupy.cuda.Device().id)
    return all(layout(CELLS.index(cell), backward, hidden, batch, size, limits) for backward in (False, True))


def _run(cell: int, backward: bool, Waa: Array, T: int, B: int, *arrays: Array) -> bool:
    """Launch the kernel on arrays, None among them for those that its cell has not; False where there is none."""
    found = _kernel(Waa.device.id, cell, backward, Waa.shape[1], B, Waa.itemsize)
    if found is None:
        return False
    kernel, how = found
    counters = cupy.zeros(how.groups * APART, cupy.uint32)
    given = [cupy.ascontiguousarray(Waa), *arrays, counters, T, B]
    arguments = [0 if one is None else cupy.int32(one) if isinstance(one, int) else one for one in given]
    kernel((how.groups * how.G,), (_limits(Waa.device.id).threads,), tuple(arguments), shared_mem=how.memory)
    return True


def _begun(T: int, start: Array) -> Array:
    """An array (T+1, B, H) that begins with the state before the first step."""
    states = cupy.empty((T + 1, *start.shape), start.dtype)
    states[0] = start
    return states


def vanilla(z: Array, Waa: Array, a0: Array) -> Array:
    """`vanilla.recurrence`."""
    T, B, _ = z.shape
    a = _begun(T, a0)
    return a if _run(0, False, Waa, T, B, cupy.ascontiguousarray(z), a, None, None, None, None) else NotImplemented


def vanilla_backward(da: Array, a: Array, da_next: Array, Waa: Array) -> Any:
    """`vanilla.recurrence_backward`."""
    (T, B, _), da0 = da.shape, cupy.array(da_next)
    dz = cupy.empty(da.shape, da.dtype)
    given = cupy.ascontiguousarray(da), cupy.ascontiguousarray(a), None, None, None, None, dz, da0, None
    return (dz, da0) if _run(0, True, Waa, T, B, *given) else NotImplemented


def gru(z: Array, Waa: Array, ban: Array, a0: Array) -> Any:
    """`gru.recurrence`."""
    T, B, N = z.shape
    a, ru = _begun(T, a0), cupy.empty((T, B, N // 3 * 2), z.dtype)
    n, p = (cupy.empty((T, B, N // 3), z.dtype) for _ in range(2))
    given = cupy.ascontiguousarray(z), a, cupy.ascontiguousarray(ban), ru, n, p
    return (a, ru, n, p) if _run(1, False, Waa, T, B, *given) else NotImplemented


def gru_backward(da: Array, a: Array, ru: Array, n: Array, p: Array, da_next: Array, Waa: Array) -> Any:
    """`gru.recurrence_backward`."""
    (T, B, H), da0 = da.shape, cupy.array(da_next)
    dz, dq = (cupy.empty((T, B, 3 * H), da.dtype) for _ in range(2))
    given = (*map(cupy.ascontiguousarray, (da, a, ru, n, p)), dz, dq, da0, None)
    return (dz, dq, da0) if _run(1, True, Waa, T, B, *given) else NotImplemented


def lstm(z: Array, Waa: Array, a0: Array, c0: Array) -> Any:
    """`lstm.recurrence`."""
    T, B, _ = z.shape
    a, c, gates = _begun(T, a0), _begun(T, c0), cupy.empty(z.shape, z.dtype)
    return (a, c, gates) if _run(2, False, Waa, T, B, cupy.ascontiguousarray(z), a, c, gates, None, None) else NotImplemented


def lstm_backward(da: Array, c: Array, gates: Array, da_next: Array, dc_next: Array, Waa: Array) -> Any:
    """`lstm.recurrence_backward`."""
    (T, B, H), da0, dc0 = da.shape, cupy.array(da_next), cupy.array(dc_next)
    dz = cupy.empty((T, B, 4 * H), da.dtype)
    given = (*map(cupy.ascontiguousarray, (da, c, gates)), None, None, None, dz, da0, dc0)
    return (dz, da0, dc0) if _run(2, True, Waa, T, B, *given) else NotImplemented


TWINS: dict[str, Callable[..., Any]] = {
    "vanilla_recurrence": vanilla,
    "vanilla_recurrence_backward": vanilla_backward,
    "gru_recurrence": gru,
    "gru_recurrence_backward": gru_backward,
    "lstm_recurrence": lstm,
    "lstm_recurrence_backward": lstm_backward,
    "arrays_one_hot": elementwise.one_hot,
    "arrays_outer": blas.outer,
    "linear_affine": blas.affine,
    "linear_affine_backward": blas.affine_backward,
    "linear_embedded": elementwise.embedded,
    "loss_cross_entropy": elementwise.cross_entropy,
    "loss_cross_entropy_backward": elementwise.cross_entropy_backward,
    "optimizers_clip_by_norm": elementwise.clip_by_norm,
    "optimizers_moments": elementwise.moments,
    "packing_strung": elementwise.strung,
    "replays_batch": elementwise.batch,
    "replays_finish": elementwise.finish,
    "replays_replace": elementwise.replace,
}
