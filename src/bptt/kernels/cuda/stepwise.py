"""The recurrences on a CUDA device step by step: one matrix product and one kernel each (stepwise.cu)."""

import functools
from collections.abc import Sequence
from typing import Any

import cupy

from bptt.backend import Array
from bptt.kernels.cuda import gemm
from bptt.kernels.cuda.tiling import source

THREADS = 256  # of a block


@functools.lru_cache(64)
def _kernel(number: int, cell: int, backward: bool, hidden: int, size: int) -> Any:
    """The kernel of a step; a module of CUDA belongs to one device."""
    code = source(cell, backward, hidden, size, None, THREADS)
    return cupy.RawKernel(code, "backward" if backward else "forward", ("-std=c++17",))


def run(cell: int, backward: bool, Waa: Array, T: int, B: int, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
    """Fill the output arrays of forward.cu or backward.cu step by step; an array that the cell does not have is None."""
    kernel = _kernel(Waa.device.id, cell, backward, Waa.shape[1], Waa.itemsize)
    blocks = -(-B * Waa.shape[1] // THREADS)
    arrays = [None if one is None else cupy.ascontiguousarray(one) for one in inputs]

    def step(t: int, *arrays: Array | None) -> None:
        pointers = (0 if one is None else one for one in arrays)
        kernel((blocks,), (THREADS,), (*pointers, cupy.int32(t), cupy.int32(B)))

    if backward:
        *before, da_next, dc_next = arrays
        dz, dq, da0, dc0 = outputs
        through = cupy.zeros_like(da_next)
        da0[...] = da_next
        if dc0 is not None:
            dc0[...] = dc_next
        for t in reversed(range(T)):
            step(t, *before, through, da0, dc0, dz, dq)
            through = gemm.product(dq[t], Waa)
        da0 += through
    else:
        z, a0, extra = arrays
        a, c, *rest = outputs
        a[0] = a0
        if c is not None:
            c[0] = extra
        for t in range(T):
            step(t, z, gemm.product(a[t], Waa.T), extra, a, c, *rest)
