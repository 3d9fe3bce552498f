"""The compiled kernels: each equals its pure function, whatever the sizes and the layout of its arrays, and no other memory."""

import ast
import ctypes
import dataclasses
import inspect
import mmap
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bptt import acceleration, dispatch, kernels
from bptt.nn import cells, model, optimizers, tree

pytest.importorskip("llvmlite", reason="llvmlite is not installed: pip install '.[fast]'")

import accelerated
from bptt.kernels.cpu import gemm, jit, libraries

HERE = Path(__file__).parent
TOLERANCE = {"float32": 1e-6, "float64": 1e-13}  # of the largest element, or of 1
DTYPES = pytest.mark.parametrize(  # a process of its own for each, where there are several: each compiles its own
    "dtype", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in TOLERANCE]
)
FUNCTIONS, KERNELS = accelerated.functions(), accelerated.kernels()
EACH_KERNEL = pytest.mark.parametrize("name", list(KERNELS))
CELLS = pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
quick = settings(deadline=None, derandomize=True, max_examples=60)

GPU = ("recurrence", "gemm", "elementwise")  # modules with kernels for a GPU
PARTS = {"ops.one_hot", "ops.outer_sum", "ops.bias_grad", "linear.embedded", "tree.concatenate"}  # of larger kernels on a CPU


class Sizes(NamedTuple):
    """Steps, sequences, inputs, units, symbols; what a layer reads; the seed of the numbers."""

    T: int
    B: int
    I: int
    H: int
    V: int
    tokens: bool
    seed: int


def sizes() -> st.SearchStrategy[Sizes]:
    """Sizes on both sides of a vector, of a block of rows and of what is multiplied at a time."""
    columns = st.sampled_from([1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 32, 33, 64, 70, 128])
    rows = st.sampled_from(
        [(1, 1), (40, 1), (3, 2), (2, 3), (7, 4), (1, 7), (40, 7), (33, 8), (5, 9), (7, 17), (1, 257), (1, 300)]
    )
    rest = st.tuples(columns, columns, st.integers(1, 70), st.booleans(), st.integers(0, 99))
    return st.builds(lambda rows, rest: Sizes(*rows, *rest), rows, rest)


def pure_function(name: str) -> Callable[..., Any]:
    """The pure function of a kernel."""
    return FUNCTIONS[name].__wrapped__


def arguments(name: str, dtype: str, size: Sizes, scale: float = 1.0) -> list[Any]:
    """What the function is called with in training, or random numbers; no network in it is chaotic."""
    T, B, I, H, V, tokens, seed = size
    rng = np.random.default_rng(seed)
    module, _, function = name.partition(".")
    few = (T * B) ** -0.75  # a sum over all rows is not large, nor is its rounding

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape)

    if module in cells.CELLS:
        cell = cells.CELLS[module]
        params = tree.tree_map(
            lambda a: a + 0.1 * rng.normal(size=a.shape) / np.sqrt(a.shape[-1]), cell.init(rng, V if tokens else I, H)
        )
        x = rng.integers(0, V, (T, B)) if tokens else normal(T, B, I) / np.sqrt(I)
        found = [*params, x, *(0.5 * normal(B, H) for _ in cell.State._fields)]
        if function == "run_backward":
            a = pure_function(f"{module}.run")(*found)
            ends = rng.integers(0, T + 1, B)
            da = few * normal(T, B, H) * (np.arange(T)[:, None, None] < ends[:, None])
            states = (a,) if module == "vanilla" else a
            found = [*params, x, *states, da, *(few * normal(B, H) for _ in cell.State._fields)]
    elif module == "linear":
        found = [normal(V, I) / np.sqrt(I), normal(T, B, I), normal(V) if function == "affine" else few * normal(T, B, V)]
    elif module == "loss":
        mask = (np.arange(T)[:, None] < np.maximum(1, rng.integers(0, T + 1, B))).astype(float)
        found = [scale * normal(T, B, V), rng.integers(0, V, (T, B)), mask, np.float64(3 * T * B) if seed % 2 else None]
        if function == "cross_entropy_backward":
            _, p, weight = pure_function("loss.cross_entropy")(*found)
            found = [p, found[1], weight]
    elif module == "gradient":
        cell, layers, dropout = ("vanilla", "gru", "lstm")[seed % 3], 1 + seed // 3 % 2, seed // 6 % 2 * 0.5
        config = model.Config(cell, V, H, layers, "zero" if seed % 4 else "learned")
        theta = tree.ravel(model.init(config, rng))
        theta = theta + 0.1 * rng.normal(size=theta.shape) / np.sqrt(H)
        mask = (np.arange(T)[:, None] < np.maximum(1, rng.integers(0, T + 1, B))).astype(float)
        states = 0.5 * normal(layers, 1 + (cell == "lstm"), B, H) if tokens else None
        keep = tuple(np.asarray(one, dtype) for one in model.dropout_masks(config, rng, dropout, B))
        count = np.float64(3 * T * B) if seed % 2 else None
        found = [theta, config, *rng.integers(0, V, (2, T, B)), mask, states, keep, count]
        if function == "segment_loss_and_grad":
            found.append(few * normal(layers, 1 + (cell == "lstm"), B, H) if seed % 5 else None)
    elif function == "sgd_update":
        found = [normal(H * V), normal(H * V), float(rng.choice([1e-3, 1.0]))]
    elif function == "clip_by_norm":
        found = [normal(H * V), float(rng.choice([1e-3, 1.0, 1e3]))]
    elif function == "average_update":
        found = [normal(H * V), normal(H * V), float(rng.choice([0.5, 0.999]))]
    else:
        assert function == "adam_update", f"{name}: say here what it is called with"
        theta, d, m, v = normal(4, H * V)
        beta1, beta2, eps, decay = rng.choice([0.9, 0.5]), rng.choice([0.999, 0.9]), 1e-8, rng.choice([0.0, 0.1])
        t, rate = np.float64(rng.integers(1, 1000)), 1e-3
        groups = (optimizers.ParamGroup(H, 10.0, 0.0), optimizers.ParamGroup(H * V, 0.5, 2.0)) if V > 1 and seed % 3 else ()
        found = [theta, d, m, v * v, np.asarray(t), rate, float(beta1), float(beta2), eps, float(decay), groups]
    return [np.asarray(a, dtype) if isinstance(a, np.ndarray | np.generic) and a.dtype.kind == "f" else a for a in found]


def leaves(results: Any) -> list[Any]:
    return list(results) if isinstance(results, tuple) else [results]


def assert_results(got: Any, expected: Any, dtype: str, tolerance: float = 0.0) -> None:
    """Assert that results have the same types and shapes and nearly the same values."""
    assert len(leaves(got)) == len(leaves(expected))
    for a, b in zip(leaves(got), leaves(expected)):
        assert (a is None) == (b is None)
        if b is not None:
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            scale = max(1.0, float(np.max(np.abs(b), initial=0.0)))
            np.testing.assert_allclose(a, b, rtol=0, atol=scale * (tolerance or TOLERANCE[dtype]))


@pytest.fixture(autouse=True)
def _nothing_stays():
    with dispatch.restored():
        dispatch.disable()
        yield


# One by one


@EACH_KERNEL
@DTYPES
@quick
@given(size=sizes())
def test_a_kernel_equals_its_pure_function(name, dtype, size):
    found = arguments(name, dtype, size)
    assert_results(KERNELS[name](*found), pure_function(name)(*found), dtype)


@DTYPES
def test_texts_begin_with_the_learned_state_of_each_layer_and_field(dtype):
    """All numbers of the states are different from each other, so that none can be taken for another one."""
    config, rng = model.Config("lstm", 5, 4, 2), np.random.default_rng(0)
    params = model.init(config, rng)
    params = params._replace(initial=tree.tree_map(lambda a: rng.normal(size=a.shape), params.initial))
    x, y = rng.integers(0, 5, (2, 3, 2))
    found = [np.asarray(tree.ravel(params), dtype), config, x, y, np.ones((3, 2), dtype), None, (), None]
    assert_results(KERNELS["gradient.loss_and_grad"](*found), pure_function("gradient.loss_and_grad")(*found), dtype)


@DTYPES
@pytest.mark.parametrize("count", [None, 0])
def test_without_targets_loss_and_gradient_are_zero(dtype, count):
    for name in ("loss.cross_entropy", "gradient.loss_and_grad"):
        found = arguments(name, dtype, Sizes(3, 4, 5, 6, 7, True, 1))
        mask, count = np.zeros((3, 4), dtype), None if count is None else np.asarray(0.0, dtype)
        found = [*found[:2], mask, count] if name == "loss.cross_entropy" else [*found[:4], mask, *found[5:7], count]
        got = KERNELS[name](*found)
        assert_results(got, pure_function(name)(*found), dtype)
        assert not got[0]
        assert not got[2 if name == "loss.cross_entropy" else 1].any()


def strided(array: np.ndarray) -> np.ndarray:
    wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), np.nan if array.dtype.kind == "f" else 10**9, array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


LAYOUTS = {
    "plain": lambda array: array,
    "read-only": read_only,
    "strided": strided,
    "by columns": lambda array: np.asfortranarray(array),
    "backwards": lambda array: array[::-1].copy()[::-1],
    "broadcast": lambda array: np.broadcast_to(array[:1], array.shape),
    "unaligned": lambda array: np.frombuffer(b"\0" + array.tobytes(), array.dtype, offset=1).reshape(array.shape),
}


@EACH_KERNEL
@DTYPES
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_a_kernel_takes_any_array_layout_and_returns_new_arrays(name, dtype, layout):
    for size in [Sizes(3, 4, 5, 6, 7, True, 1), Sizes(2, 9, 16, 32, 20, False, 2)]:
        found = arguments(name, dtype, size)
        if name == "optimizers.clip_by_norm":
            found[1] = 1e-3  # a shorter vector comes back as it is
        laid = [LAYOUTS[layout](a) if isinstance(a, np.ndarray) and a.ndim else a for a in found]
        before = [np.array(a) for a in laid]
        got = leaves(KERNELS[name](*laid))
        assert_results(tuple(got), pure_function(name)(*laid), dtype)
        for a, b in zip(laid, before):
            np.testing.assert_array_equal(a, b)
        arrays = [a for a in laid if isinstance(a, np.ndarray)]
        assert not any(np.shares_memory(a, b) for a in got if a is not None for b in arrays)


@EACH_KERNEL
@DTYPES
@quick
@given(size=sizes(), bad=st.sampled_from([np.nan, np.inf, -np.inf]), place=st.integers(0, 10**6))
@np.errstate(all="ignore")
def test_kernels_propagate_nan_and_infinity(name, dtype, size, bad, place):
    found = arguments(name, dtype, size._replace(T=min(size.T, 7), B=min(size.B, 9)))
    arrays = [a for a in found if isinstance(a, np.ndarray) and a.ndim and a.dtype.kind == "f"]
    spoilt = arrays[place % len(arrays)]
    spoilt.flat[place % spoilt.size] = bad
    for a, b in zip(leaves(KERNELS[name](*found)), leaves(pure_function(name)(*found))):
        assert b is None or np.isfinite(a).all() == np.isfinite(b).all()


@DTYPES
@pytest.mark.parametrize("scale", [1e2, 1e4, 1e30])
def test_cross_entropy_of_large_logits_is_finite(dtype, scale):
    for seed in range(4):
        found = arguments("loss.cross_entropy", dtype, Sizes(3, 4, 1, 1, 30, True, seed), scale)
        got = KERNELS["loss.cross_entropy"](*found)
        assert all(np.isfinite(a).all() for a in got)
        assert_results(got, pure_function("loss.cross_entropy")(*found), dtype)


@DTYPES
@np.errstate(all="ignore")
def test_clip_by_norm_propagates_a_norm_that_is_not_finite(dtype):
    for bad in (np.nan, np.inf):
        d, norm = KERNELS["optimizers.clip_by_norm"](np.array([1.0, bad, 2.0], dtype), 5.0)
        expected = pure_function("optimizers.clip_by_norm")(np.array([1.0, bad, 2.0], dtype), 5.0)
        np.testing.assert_array_equal(d, expected[0])
        np.testing.assert_array_equal(norm, expected[1])


def test_a_cell_without_a_kernel_is_not_implemented():
    found = arguments("gradient.loss_and_grad", "float64", Sizes(2, 3, 4, 5, 6, True, 0))
    elman = dataclasses.replace(found[1], cell="elman", user_cell=types.ModuleType("elman"))
    assert KERNELS["gradient.loss_and_grad"](found[0], elman, *found[2:]) is NotImplemented


def kernels_on_a_gpu() -> dict[str, list[str]]:
    """The parameters of each kernel for CuPy arrays, as its source says: without CuPy it cannot be imported."""
    found = {}
    for module in GPU:
        for node in ast.parse((Path(kernels.__file__).parent / "cuda" / f"{module}.py").read_text("utf-8")).body:
            for decorator in node.decorator_list if isinstance(node, ast.FunctionDef) else []:
                if ast.unparse(decorator).startswith("kernel_for("):
                    name = ast.unparse(decorator.args[0])
                    found[name] = [one.arg for one in (*node.args.args, node.args.vararg) if one]
    return found


def test_each_accelerated_function_has_a_kernel_with_its_parameters():
    parameters = {name: list(inspect.signature(function.__wrapped__).parameters) for name, function in FUNCTIONS.items()}
    on_cpu = {name: list(inspect.signature(kernel.__wrapped__).parameters) for name, kernel in KERNELS.items()}
    assert on_cpu == {name: parameters[name] for name in on_cpu}
    on_gpu = kernels_on_a_gpu()
    assert on_gpu == {name: parameters[name] for name in on_gpu}
    assert on_cpu.keys() | on_gpu.keys() == FUNCTIONS.keys()
    without = {name for name in FUNCTIONS if "recurrence" in name or name.startswith("graph_inputs.")}
    assert FUNCTIONS.keys() - on_cpu.keys() == without | PARTS


# Together


def random_batch(cell: str, dtype: str, layers: int, hidden: int = 20) -> Any:
    """A config and what its loss is computed of: parameters, tokens, targets, a mask, carried states, dropout."""
    rng = np.random.default_rng(layers)
    config = model.Config(cell, 27, hidden, layers)
    T, B = 12, 9
    x, y = rng.integers(0, 27, (T, B)), rng.integers(0, 27, (T, B))
    mask = (np.arange(T)[:, None] < rng.integers(1, T + 1, B)).astype(dtype)
    nested = model.init(config, rng), model.dropout_masks(config, rng, 0.3, B)
    params, keep = tree.tree_map(lambda a: a.astype(dtype), nested)
    return config, params, x, y, mask, model.forward(config, params, x)[1], keep


@CELLS
@DTYPES
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("fresh", [True, False])
def test_the_gradient_of_a_model_equals_the_pure_one(cell, dtype, layers, fresh):
    config, params, x, y, mask, states, keep = random_batch(cell, dtype, layers)
    given = (config, params, x, y, mask, None if fresh else states, keep)
    expected = tree.leaves(model.loss_and_grad(*given))
    assert acceleration.enable()
    assert_results(tuple(tree.leaves(model.loss_and_grad(*given))), tuple(expected), dtype)


@CELLS
@DTYPES
def test_twenty_updates_give_the_losses_of_the_pure_functions(cell, dtype):
    config, params, x, y, mask, _, keep = random_batch(cell, dtype, 2)

    def losses() -> list[float]:
        theta, shapes = tree.ravel(params), model.shapes(config)
        state, found = optimizers.init_adam(theta), []
        for _ in range(20):
            mean, gradient, _ = model.loss_and_grad(config, tree.unravel(theta, shapes), x, y, mask, None, keep)
            d, _ = optimizers.clip_by_norm(tree.ravel(gradient), 1.0)
            theta, state = optimizers.adam(theta, d, state, 3e-3, weight_decay=0.01)
            found.append(float(mean))
        return found

    expected = losses()
    assert expected[-1] < expected[0]
    assert acceleration.enable()
    np.testing.assert_allclose(losses(), expected, rtol=1e-4 if dtype == "float32" else 1e-10)


def test_other_array_types_use_the_pure_functions():
    xp = pytest.importorskip("array_api_strict")
    assert acceleration.enable()
    d, norm = optimizers.clip_by_norm(xp.asarray([3.0, 4.0]), 1.0)
    assert type(d) is type(norm) is type(xp.asarray(0.0))


# Nothing beyond the arrays


def fenced(array: np.ndarray, end: bool) -> np.ndarray:
    """A copy at the end, or at the beginning, of pages between two that end the process when they are touched."""
    page = mmap.PAGESIZE
    inside = -(-max(1, array.nbytes) // page) * page
    pages = mmap.mmap(-1, inside + 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    for fence in (start, start + page + inside):
        assert protect(ctypes.c_void_p(fence), ctypes.c_size_t(page), 0) == 0
    copy = np.frombuffer(pages, array.dtype, array.size, page + (inside - array.nbytes) * end).reshape(array.shape)
    copy[...] = array
    return copy


def between_fences(dtype: str) -> None:
    """Call every kernel, and the matrix product into given arrays, with all arrays between fences."""
    libraries.LIBRARIES["gemm"] = (gemm.multiply, gemm.outer_sum, gemm.pack, gemm.pack_transposed)
    for end in (True, False):
        for T, B, I, H, V, tokens in [
            (2, 3, 5, 7, 9, True),
            (1, 1, 1, 1, 1, False),
            (3, 9, 17, 33, 19, False),
            (2, 12, 32, 64, 16, False),
        ]:
            for name, kernel in KERNELS.items():
                found = arguments(name, dtype, Sizes(T, B, I, H, V, tokens, 0))
                expected = pure_function(name)(*found)
                inputs = [fenced(a, end) if isinstance(a, np.ndarray) and a.ndim else a for a in found]
                assert_results(kernel(*inputs), expected, dtype)
            D, X, W = (np.random.default_rng(0).normal(size=shape).astype(dtype) for shape in [(B, H), (B, I), (I, H)])
            check_products(dtype, end, D, X, W)


def check_products(dtype: str, end: bool, D: np.ndarray, X: np.ndarray, W: np.ndarray) -> None:
    """Multiply into given arrays: X W twice, and D.T X four times, two of them below each other."""
    (B, I), H, n = X.shape, D.shape[1], 2 * jit.vector_bytes() // X.itemsize
    padded = {size: -(-size // n) * n for size in (I, H)}
    multiply, outer_sum = jit.function("gemm", "multiply", dtype), jit.function("gemm", "outer_sum", dtype)
    C, panels = (fenced(np.full(shape, np.nan, dtype), end) for shape in [(B, padded[H]), (I, padded[H])])
    for times, back in ((1, False), (2, True)):
        if times == 1:
            jit.function("gemm", "pack", dtype)(fenced(W, end), H, I, H, panels)
        else:
            jit.function("gemm", "pack_transposed", dtype)(fenced(W.T.copy(), end), I, H, I, panels)
        multiply(fenced(X, end), I, B, I, panels, H, C, padded[H], times == 2, back)
        assert_results(C[:, :H], times * X @ W, dtype, 10 * TOLERANCE[dtype])
    S = fenced(np.full((2 * H + n // 2, padded[I]), np.nan, dtype), end)
    for add in (False, True):  # what the first one leaves below included
        outer_sum(fenced(D, end), H, H, fenced(X, end), I, I, B, S, padded[I], add)
        outer_sum(fenced(D, end), H, H, fenced(X, end), I, I, B, S[H:], padded[I], add)
    assert_results(S[: 2 * H, :I], np.tile(2 * D.T @ X, (2, 1)), dtype, 10 * TOLERANCE[dtype])


@pytest.mark.skipif(os.name == "nt", reason="Windows protects pages in another way")
@DTYPES
def test_kernels_do_not_access_memory_beyond_the_arrays(dtype):
    """In a process of its own, which would end."""
    code = f"import test_cpu_kernels; test_cpu_kernels.between_fences({dtype!r})"
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code], cwd=HERE, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["vanilla.run_backward", "linear.affine", "gradient.loss_and_grad", "loss.cross_entropy"])
@DTYPES
@pytest.mark.skipif(jit.vector_bytes() < 64, reason="the tests above ran with narrow vectors: this processor has no others")
def test_kernels_of_narrow_vectors_equal_their_pure_functions(name, dtype, monkeypatch, tmp_path):
    monkeypatch.setenv("BPTT_CACHE", str(tmp_path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jit, "processor", lambda: ("haswell", "+avx2,+fma"))
        patch.setattr(jit, "_functions", {})
        jit._target.cache_clear()
        assert jit.vector_bytes() == 32
        for seed, (T, B) in enumerate([(3, 1), (2, 3), (7, 4), (5, 9), (2, 300)]):
            found = arguments(name, dtype, Sizes(T, B, 17, 33, 19, seed % 2 == 0, seed))
            assert_results(KERNELS[name](*found), pure_function(name)(*found), dtype)
    jit._target.cache_clear()
