"""The kernels on a CUDA device, at the sizes they are for: each equals its pure function, and twice the same bits."""

import numpy as np
import pytest

from bptt.nn import gru, linear, lstm, ops, vanilla

pytestmark = pytest.mark.gpu
TOLERANCES = {"float32": 3e-6, "float64": 1e-13}  # of the largest element, or of 1
CELLS = {"vanilla": (vanilla, 1), "gru": (gru, 3), "lstm": (lstm, 4)}
# one block; an odd number in clusters; large clusters; blocks that meet in global memory, few numbers and many
SIZES = [(64, 64), (129, 3), (384, 16), (640, 1), (512, 64)]


@pytest.fixture
def cuda():
    return pytest.importorskip("bptt.kernels.cuda.registry", reason="CuPy is not installed")


def close(got, expected, dtype):
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == dtype
        np.testing.assert_allclose(one.get(), other.get(), rtol=0, atol=TOLERANCES[dtype] * max(1.0, float(abs(other).max())))


def compare(cuda, name, hidden, batch, steps, dtype, rng):
    cell, gates = CELLS[name]
    T, B, H, N = steps, batch, hidden, gates * hidden

    def draw(*shape):
        return cuda.cupy.asarray((rng.normal(size=shape) / 2).astype(dtype))

    Waa, z, c0, ban = draw(N, H) * (2 / H**0.5), draw(T, B, N), draw(B, H), draw(H)
    a0 = draw(B * H + 1)[1:].reshape(B, H)  # at an odd place
    da, da_next, dc_next = draw(T, B, H), draw(B, H), draw(B, H)
    forward, backward = (function.kernels[cuda.ARRAY] for function in (cell.recurrence, cell.recurrence_backward))
    given = {"vanilla": (z, Waa, a0), "gru": (z, Waa, ban, a0), "lstm": (z, Waa, a0, c0)}[name]
    expected = cell.recurrence.__wrapped__(*given)
    a, *rest = expected if isinstance(expected, tuple) else (expected,)
    after = {"vanilla": (a, da_next), "gru": (a, *rest, da_next), "lstm": (*rest, da_next, dc_next)}[name]
    for function, pure, arguments in (
        (forward, cell.recurrence, given),
        (backward, cell.recurrence_backward, (da, *after, Waa)),
    ):
        got, again, wanted = (
            found if isinstance(found, tuple) else (found,)
            for found in (function(*arguments), function(*arguments), pure.__wrapped__(*arguments))
        )
        close(got, wanted, dtype)
        assert all(one.get().tobytes() == other.get().tobytes() for one, other in zip(got, again))


@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize(("hidden", "batch"), SIZES)
@pytest.mark.parametrize("name", list(CELLS))
def test_a_recurrence_kernel_equals_its_pure_function(cuda, name, hidden, batch, dtype, rng):
    compare(cuda, name, hidden, batch, 9, dtype, rng)


@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize("name", list(CELLS))
def test_a_kernel_per_step_equals_the_pure_function(cuda, name, dtype, rng, monkeypatch):
    monkeypatch.setattr(cuda, "_kernel", lambda *size: None)
    compare(cuda, name, 129, 7, 5, dtype, rng)


@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize("name", list(CELLS))
def test_recurrence_kernels_propagate_nan_to_the_last_step(cuda, name, dtype, monkeypatch):
    """Blocks that meet in global memory know what is not there yet by a NaN: no other one may keep them waiting."""
    (_, gates), H, device = CELLS[name], 256, cuda.cupy.cuda.Device().id
    limits = cuda.recurrence._limits(device)._replace(clusters=())
    monkeypatch.setattr(cuda, "_limits", lambda number: limits)
    monkeypatch.setattr(cuda, "_kernel", cuda.recurrence._kernel.__wrapped__)  # which knows kernels with clusters
    _, how = cuda.recurrence._kernel(device, list(CELLS).index(name), False, H, 2, np.dtype(dtype).itemsize)
    assert (how.blocks_per_group > 1, how.cluster) == (True, 0)
    z, Waa = (cuda.cupy.zeros((*shape, H), dtype) for shape in ((3, 2, gates), (gates * H,)))
    z, a0 = (
        z.reshape(3, 2, gates * H),
        cuda.cupy.full(2 * H * np.dtype(dtype).itemsize, 255, np.uint8).view(dtype).reshape(2, H),
    )
    given = {"vanilla": (z, Waa, a0), "gru": (z, Waa, a0[0], a0), "lstm": (z, Waa, a0, a0)}[name]
    found = CELLS[name][0].recurrence.kernels[cuda.ARRAY](*given)
    a = found[0] if isinstance(found, tuple) else found
    assert bool(cuda.cupy.isnan(a[1:]).all())


@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize(("hidden", "symbols"), [(12, 5), (13, 5), (12, 1)])
def test_embedded_looks_up_columns_of_the_weights(cuda, hidden, symbols, dtype, rng):
    x = cuda.cupy.asarray(rng.integers(0, symbols, (6, 5)))
    vector = cuda.cupy.asarray(rng.normal(size=1 + hidden * (symbols + 1)).astype(dtype))  # views at odd places, as in training
    W, b = vector[1 : 1 + hidden * symbols].reshape(hidden, symbols), vector[1 + hidden * symbols :]
    close([linear.embedded.kernels[cuda.ARRAY](W, x, b)], [linear.embedded.__wrapped__(W, x, b)], dtype)


def test_bias_grad_sums_a_view_of_a_wider_array(cuda, rng):
    x = cuda.cupy.asarray(rng.normal(size=(6, 5, 12)))
    for part in (x, x[:, :, 8:], x[:, :, :1], x[:1, :1, 3:5]):
        close([ops.bias_grad.kernels[cuda.ARRAY](part)], [ops.bias_grad.__wrapped__(part)], "float64")
