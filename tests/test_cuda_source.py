"""The CUDA source without a device: its arithmetic on a CPU, threads taking turns, and the compilers that take it.

What NVRTC compiles needs its wheel, which comes with the extras cuda12 and cuda13; `nox -s cuda_source` has it.
"""

import ctypes
import functools
import itertools
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

from bptt.fused import layouts as kernels
from bptt.nn import gru, lstm, vanilla

LITTLE = kernels.Limits(processors=9, shared=1 << 16, threads=64)  # few, for each is played by turns
SCANT = kernels.Limits(processors=40, shared=1 << 12, threads=128, words=8)
LAUNCH = """
extern "C" void start(int blocks, int bytes, void** a, int T, int B) {
    real* p[9];
    for (int i = 0; i < 9; ++i) p[i] = static_cast<real*>(a[i]);
    unsigned* counters = static_cast<unsigned*>(a[9]);
    launch(blocks, bytes, [=] { %s; });
}
"""
CALLS = {
    False: "forward(p[0], p[1], p[2], p[3], p[4], p[5], p[6], counters, T, B)",
    True: "backward(p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], static_cast<real*>(a[10]), counters, T, B)",
}


@functools.cache
def compiled(cell, backward, hidden, batch, size, limits):
    """The kernel as a function of a library for this CPU, and its layout."""
    compiler = shutil.which("g++")
    if not compiler:
        pytest.skip("there is no g++ to compile the kernels for this CPU")  # a machine without one: the device tests stand in
    how = kernels.layout(cell, backward, hidden, batch, size, limits)
    assert how is not None
    defines, _, body = kernels.source(cell, backward, hidden, size, how, limits.threads).partition("\n//")
    folder = Path(tempfile.mkdtemp())
    (folder / "kernel.cpp").write_text(f'{defines}\n#include "cuda_on_a_cpu.hpp"\n//{body}{LAUNCH % CALLS[backward]}')
    headers = [
        word for name in ("cmath", "cstdio", "cstdlib", "functional", "vector", "ucontext.h") for word in ("-include", name)
    ]  # before macros
    flags = ["-std=c++17", "-O1", "-shared", "-fPIC", "-Wno-unknown-pragmas", f"-I{Path(__file__).parent}", *headers]
    subprocess.run([compiler, *flags, "kernel.cpp", "-o", "kernel.so"], cwd=folder, check=True)
    library = ctypes.CDLL(str(folder / "kernel.so"))
    shutil.rmtree(folder)
    return library.start, how


def call(cell, backward, T, B, limits, *arrays):
    """Run a kernel on NumPy arrays, None for those that its cell has not."""
    start, how = compiled(cell, backward, arrays[0].shape[1], B, arrays[0].itemsize, limits)
    counters = np.zeros(how.groups * kernels.APART, np.uint32)
    pointers = [None if a is None else a.ctypes.data for a in arrays]
    places = [*pointers[:9], *[None] * (9 - len(pointers)), counters.ctypes.data, *pointers[9:]]
    start(how.groups * how.G, how.memory, (ctypes.c_void_p * len(places))(*places), T, B)


def draw(rng, dtype, *shapes):
    return [rng.normal(size=shape).astype(dtype) / 2 for shape in shapes]


def begun(T, start):
    return np.concatenate([start[None], np.full((T, *start.shape), np.nan, start.dtype)])


# one block with all units; several with some; an odd number that leaves the last one less to do; one unit
SIZES = [(1, 1, LITTLE), (3, 2, LITTLE), (7, 5, LITTLE), (40, 1, LITTLE), (50, 12, LITTLE), (16, 3, SCANT), (33, 70, SCANT)]
TOLERANCES = {"float32": 2e-6, "float64": 1e-13}


@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize(("hidden", "batch", "limits"), SIZES)
@pytest.mark.parametrize("cell", range(3), ids=["vanilla", "gru", "lstm"])
def test_the_kernels_compute_what_the_pure_functions_do(cell, hidden, batch, limits, dtype, rng):
    T, B, H, N = 3, batch, hidden, kernels.GATES[cell] * hidden
    Waa, z, a0, c0, ban = draw(rng, dtype, (N, H), (T, B, N), (B, H), (B, H), (H,))
    a, c, gates = begun(T, a0), begun(T, c0), np.full((T, B, 2 * H if cell == 1 else 4 * H), np.nan, dtype)
    n, p = (np.full((T, B, H), np.nan, dtype) for _ in range(2))
    call(cell, False, T, B, limits, Waa, z, a, ban if cell == 1 else c, gates, n, p)
    da, da_next, dc_next = draw(rng, dtype, (T, B, H), (B, H), (B, H))
    dz, dq, da0, dc0 = *(np.full((T, B, N), np.nan, dtype) for _ in range(2)), da_next.copy(), dc_next.copy()
    if cell == 0:
        forward = [vanilla.recurrence(z, Waa, a0)]
        backward = vanilla.recurrence_backward(da, a, da_next, Waa)
        call(cell, True, T, B, limits, Waa, da, a, None, None, None, None, dz, da0, None)
        got = [a], [dz, da0]
    elif cell == 1:
        forward = gru.recurrence(z, Waa, ban, a0)
        backward = gru.recurrence_backward(da, a, gates, n, p, da_next, Waa)
        call(cell, True, T, B, limits, Waa, da, a, gates, n, p, dz, dq, da0, None)
        got = [a, gates, n, p], [dz, dq, da0]
    else:
        forward = lstm.recurrence(z, Waa, a0, c0)
        backward = lstm.recurrence_backward(da, c, gates, da_next, dc_next, Waa)
        call(cell, True, T, B, limits, Waa, da, c, gates, None, None, None, dz, da0, dc0)
        got = [a, c, gates], [dz, da0, dc0]
    for computed, expected in zip((*got[0], *got[1]), (*forward, *backward), strict=True):
        np.testing.assert_allclose(computed, expected, rtol=0, atol=TOLERANCES[dtype] * max(1, np.abs(expected).max()))


def test_the_sizes_above_take_every_way():
    """One block and several, columns in several goes, several warps for an output, more units of columns than threads."""
    hows = [
        (kernels.layout(cell, backward, hidden, batch, size, limits), limits.threads)
        for hidden, batch, limits in SIZES
        for cell, backward, size in itertools.product(range(3), (False, True), (4, 8))
    ]
    print(hows)
    ways = {how.G == 1 for how, _ in hows}, {how.ROWS < how.R for how, _ in hows}, {n < how.R * how.U for how, n in hows}
    assert ways == ({True, False},) * 3
    assert any(how.groups > 1 and how.G > 1 for how, _ in hows)
    assert any(how.G > 1 and how.R * (how.groups - 1) + 1 < 12 for how, _ in hows)
