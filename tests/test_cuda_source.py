"""The CUDA source without a device: its arithmetic on this CPU, threads taking turns, against the pure functions."""

import ctypes
import functools
import itertools
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bptt.kernels.cuda import tiling
from bptt.nn import gru, lstm, vanilla

LITTLE = tiling.Limits(processors=9, shared=1 << 16, threads=64)  # few, for each is played by turns
CLUSTERED = LITTLE._replace(clusters=(4, 3, 2))
SCANT = tiling.Limits(processors=40, shared=1 << 12, threads=128, words=4)
LAUNCH = """
static void** p;
static int T, B;
static real* at(int i) { return static_cast<real*>(p[i]); }
static void body() { %s; }
extern "C" int start(int blocks, int bytes, void** pointers, int steps, int batch) {
    p = pointers, T = steps, B = batch;
    return launch(blocks, bytes, body);
}
"""
ARRAYS = {(False, True): 9, (True, True): 12, (False, False): 8, (True, False): 10}  # of a kernel: backward, of all steps
STEPWISE = 64  # threads of a block where a kernel does one step


def tiling_of(cell, backward, hidden, batch, size, limits):
    """The layout with the same number of weights in a thread for both types."""
    return tiling.choose_tiling(cell, backward, hidden, batch, size, limits._replace(words=limits.words * size // 4))


@functools.cache
def compiled(cell, backward, hidden, size, how, threads):
    """A kernel, of a layout or of a single step, as a function of a library for this CPU."""
    compiler = shutil.which("g++")
    if not compiler:
        pytest.skip("there is no g++ to compile the kernels for this CPU")  # a machine without one: the device tests stand in
    defines, _, body = tiling.source(cell, backward, hidden, size, how, threads).partition("\n//")
    if how is None:
        defines += "\n#define BLOCKS_PER_GROUP 1"
    arrays = ", ".join(f"at({i})" for i in range(ARRAYS[backward, how is not None]))
    launch = LAUNCH % f"{'backward' if backward else 'forward'}({arrays}, T, B)"
    folder = Path(tempfile.mkdtemp())
    (folder / "kernel.cpp").write_text(f'{defines}\n#include "cuda_on_a_cpu.hpp"\n//{body}{launch}')
    headers = [word for name in ("math.h", "setjmp.h", "stdlib.h", "string.h", "ucontext.h") for word in ("-include", name)]
    flags = ["-std=c++17", "-O0", "-shared", "-fPIC", "-Wno-unknown-pragmas", f"-I{Path(__file__).parent}", *headers]
    subprocess.run([compiler, *flags, "kernel.cpp", "-o", "kernel.so"], cwd=folder, check=True)
    library = ctypes.CDLL(str(folder / "kernel.so"))
    shutil.rmtree(folder)
    return library.start


def pointers(arrays):
    return (ctypes.c_void_p * len(arrays))(*(None if a is None else a.ctypes.data for a in arrays))


def call_whole(cell, backward, T, B, limits, Waa, *arrays):
    """Run a kernel on NumPy arrays, None for those that its cell has not."""
    how = tiling_of(cell, backward, Waa.shape[1], B, Waa.itemsize, limits)
    assert how is not None
    start = compiled(cell, backward, Waa.shape[1], Waa.itemsize, how, limits.threads)
    assert start(how.groups * how.blocks_per_group, how.memory, pointers((Waa, *arrays)), T, B), "threads wait for ever"


def call_stepwise(cell, backward, T, B, limits, Waa, *arrays):
    """The same by a kernel for each step, as stepwise.py does it."""
    H = Waa.shape[1]
    start, blocks = compiled(cell, backward, H, Waa.itemsize, None, STEPWISE), -(-B * H // STEPWISE)
    if backward:
        *before, da_next, dc_next, dz, dq, da0, dc0 = arrays
        da0[...], through = da_next, np.zeros_like(da_next)
        if cell == 2:
            dc0[...] = dc_next
        for t in reversed(range(T)):
            assert start(blocks, 16, pointers((*before, through, da0, dc0, dz, dq)), t, B)
            through = dq[t] @ Waa
        da0 += through
    else:
        z, a0, extra, a, c, *rest = arrays
        a[0] = a0
        if cell == 2:
            c[0] = extra
        for t in range(T):
            assert start(blocks, 16, pointers((z, a[t] @ Waa.T, extra, a, c, *rest)), t, B)


def draw(rng, dtype, *shapes):
    return [rng.normal(size=shape).astype(dtype) / 2 for shape in shapes]


def empty_value(dtype, *shape):
    """An array that blocks wait for each other in: nothing has been written to it yet."""
    return np.full((*shape, np.dtype(dtype).itemsize), 0xFF, np.uint8).view(dtype)[..., 0]


# one block with all units; several with some; an odd number that leaves the last one less to do; one unit
SIZES = [(1, 1, LITTLE), (3, 2, LITTLE), (7, 5, LITTLE), (40, 1, LITTLE), (50, 12, LITTLE), (16, 3, SCANT), (33, 20, SCANT)]
SIZES += [(50, 1, CLUSTERED), (50, 20, CLUSTERED), (35, 9, CLUSTERED)]
ALL_SIZES = [*SIZES, (1, 1, None), (50, 7, None)]  # None: step by step
TOLERANCES = {"float32": 2e-6, "float64": 1e-13}


BY_CELL = pytest.mark.parametrize("cell", range(3), ids=["vanilla", "gru", "lstm"])


@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize(("hidden", "batch", "limits"), ALL_SIZES)
@BY_CELL
def test_the_cuda_kernels_equal_the_pure_functions(cell, hidden, batch, limits, dtype, rng):
    compare(cell, hidden, batch, limits, dtype, 5, rng)  # buffers of a cluster take turns, and are even and odd


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize(("hidden", "batch", "limits"), [(7, 5, LITTLE), (33, 20, SCANT), (35, 9, CLUSTERED), (50, 7, None)])
@BY_CELL
def test_the_cuda_kernels_are_right_for_any_number_of_steps(cell, hidden, batch, limits, steps, rng):
    compare(cell, hidden, batch, limits, "float64", steps, rng)


def compare(cell, hidden, batch, limits, dtype, T, rng):
    call = call_stepwise if limits is None else call_whole
    B, H, N = batch, hidden, tiling.GATES[cell] * hidden
    Waa, z, a0, c0, ban = draw(rng, dtype, (N, H), (T, B, N), (B, H), (B, H), (H,))
    Waa = (2 * Waa / H**0.5).astype(dtype)  # larger weights would let rounding grow from step to step
    a, c, gates = (
        empty_value(dtype, *shape) for shape in ((T + 1, B, H), (T + 1, B, H), (T, B, 2 * H if cell == 1 else 4 * H))
    )
    n, p = (empty_value(dtype, T, B, H) for _ in range(2))
    call(cell, False, T, B, limits, Waa, z, a0, ban if cell == 1 else c0, a, c, gates, n, p)
    da, da_next, dc_next = draw(rng, dtype, (T, B, H), (B, H), (B, H))
    dz, dq, da0, dc0 = (empty_value(dtype, *shape) for shape in ((T, B, N), (T, B, N), (B, H), (B, H)))
    after = da_next, dc_next
    if cell == 0:
        forward = [vanilla.recurrence(z, Waa, a0)]
        backward = vanilla.recurrence_backward(da, a, da_next, Waa)
        call(cell, True, T, B, limits, Waa, da, a, None, None, None, *after, None, dz, da0, None)
        got = [a], [dz, da0]
    elif cell == 1:
        forward = gru.recurrence(z, Waa, ban, a0)
        backward = gru.recurrence_backward(da, a, gates, n, p, da_next, Waa)
        call(cell, True, T, B, limits, Waa, da, a, gates, n, p, *after, dz, dq, da0, None)
        got = [a, gates, n, p], [dz, dq, da0]
    else:
        forward = lstm.recurrence(z, Waa, a0, c0)
        backward = lstm.recurrence_backward(da, c, gates, da_next, dc_next, Waa)
        call(cell, True, T, B, limits, Waa, da, c, gates, None, None, *after, None, dz, da0, dc0)
        got = [a, c, gates], [dz, da0, dc0]
    for computed, expected in zip((*got[0], *got[1]), (*forward, *backward), strict=True):
        np.testing.assert_allclose(computed, expected, rtol=0, atol=TOLERANCES[dtype] * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize("cell", [1, 2], ids=["gru", "lstm"])
def test_blocks_do_not_wait_forever_for_a_nan(cell, dtype):
    """What is not there yet is a NaN, too; this processor hands on the very one that it is given."""
    T, B, H, N = 3, 1, 40, tiling.GATES[cell] * 40
    how = tiling_of(cell, False, H, B, np.dtype(dtype).itemsize, LITTLE)
    assert how.blocks_per_group > 1
    assert not how.cluster
    Waa, z, a, c, gates = (np.zeros(shape, dtype) for shape in ((N, H), (T, B, N), (T + 1, B, H), (T + 1, B, H), (T, B, N)))
    a[...], a0 = empty_value(dtype, T + 1, B, H), empty_value(dtype, B, H)
    n, p = np.zeros((2, T, B, H), dtype)
    call_whole(cell, False, T, B, LITTLE, Waa, z, a0, a0[0] if cell == 1 else a0, a, c, gates, n, p)
    assert np.isnan(a).all()


def test_the_tested_sizes_cover_every_kind_of_tiling():
    """One block and several, columns in several goes, one warp for an output and several, and so on."""
    batches = [batch for _, batch, _ in SIZES for _ in range(12)]
    hows = [
        (tiling_of(cell, backward, hidden, batch, size, limits), limits.threads)
        for hidden, batch, limits in SIZES
        for cell, backward, size in itertools.product(range(3), (False, True), (4, 8))
    ]
    ways = (
        {how.blocks_per_group == 1 for how, _ in hows},
        {how.cluster == 1 for how, _ in hows},
        {how.rows_in_shared < how.columns_per_group for how, _ in hows},
        {n < how.columns_per_group * how.units_per_block for how, n in hows},
    )
    assert ways == ({True, False},) * 4
    assert {how.lanes for how, _ in hows} == set(tiling.LANES)
    assert {how.warps for how, _ in hows} == set(tiling.WARPS)
    assert any(
        how.blocks_per_group > 1 and how.groups > 1 and batch % how.columns_per_group for (how, _), batch in zip(hows, batches)
    )


@settings(deadline=None)
@given(
    st.integers(0, 2),
    st.booleans(),
    st.integers(1, 1200),
    st.integers(1, 300),
    st.sampled_from([4, 8]),
    st.sampled_from([20, 132]),
    st.sampled_from([(), (60, 42, 30), (66, 43, 32, 25, 21, 16, 16, 8, 8, 8, 7, 7, 7, 7, 7)]),
)
def test_a_tiling_stays_within_its_limits(cell, backward, hidden, batch, size, processors, clusters):
    clusters = tuple(min(count, processors // (i + 2)) for i, count in enumerate(clusters))
    limits = tiling.Limits(processors, 99_000, clusters)
    how = tiling.choose_tiling(cell, backward, hidden, batch, size, limits)
    if how is None:
        assert hidden * hidden * tiling.GATES[cell] * size > processors * 50_000 or batch * hidden > 400 * processors
        return
    assert how.groups * how.blocks_per_group <= processors  # all run at the same time, or they would wait for ever
    assert how.cluster == 0 or how.groups <= clusters[how.blocks_per_group - 2]
    assert how.units_per_block * (how.blocks_per_group - 1) < hidden <= how.units_per_block * how.blocks_per_group
    assert how.columns_per_group * (how.groups - 1) < batch <= how.columns_per_group * how.groups
    assert 1 <= how.rows_in_shared <= how.columns_per_group
    assert (how.blocks_per_group > 1 and not how.cluster) or how.rows_in_shared == how.columns_per_group
    assert how.memory <= limits.shared
    assert how.columns_per_group * how.units_per_block <= tiling.UNITS * limits.threads
