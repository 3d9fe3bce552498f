"""Gradient checks on this machine: each cell against finite differences and against pure NumPy functions."""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bptt import acceleration, dispatch
from bptt import backend as backends
from bptt.backend import Backend, HostArray
from bptt.config.user_cells import is_user_cell, name_of
from bptt.data.dataset import make_rng
from bptt.nn import gradient, loss, model, segments, tree
from bptt.nn.cells import CELLS, Cell

STEP = 1e-5  # of a parameter: the error of a central difference is of the order of its square
TOLERANCE = {"central differences": 1e-7, "float64": 1e-9, "float32": 2e-4}


class Check(NamedTuple):
    """One comparison, and its result."""

    backend: str
    cell: str
    what: str  # "loss", "gradient", "segments": the gradient in segments of time, or "layers": by the kernels of single layers
    dtype: str
    compiled: str  # what compiled the functions; nothing: the pure ones
    against: str
    error: float  # the largest one, relative to the largest element of what is expected
    allowed: float

    @property
    def passed(self) -> bool:
        """Whether the error is within its limit; NaN is not."""
        return self.error <= self.allowed


class Case(NamedTuple):
    """A model of two layers with dropout and a padded batch, on the host."""

    config: model.Config
    params_vector: HostArray  # (P,)
    x: HostArray  # (T, B)
    y: HostArray  # (T, B)
    mask: HostArray  # (T, B)
    keep: tuple[HostArray, ...]  # (B, H) for each layer


def run_checks(name: str, *, require: bool = False, cell: str | Cell | None = None) -> Iterator[Check]:
    """Each check of a backend, as soon as it is made: of one cell, or of all built-in ones; kernels are compiled first.

    In float64 the gradient with respect to each parameter of a small model against central differences. Then, in both types,
    loss and gradient of a larger one, whole and in segments of time, against those of the pure functions on NumPy in float64.
    Where kernels can be used, all of it once more with them, and layer by layer: a whole gradient has a kernel of its own.

    Raises:
        InputError: as `backend.select`.
    """
    selected = backends.select(name, require=require or None).name  # what it falls back to is told once
    checked: list[str | Cell] = list(CELLS) if cell is None else [cell]
    with dispatch.restored():
        for compiled in (False, True):
            for dtype in ("float64", "float32"):
                backend = backends.select(selected, dtype)
                dispatch.disable()
                by = acceleration.enable(backend.name) if compiled else ""
                for config in (make_case(cell, T=1, B=1, V=1, H=1).config for cell in checked):
                    acceleration.warm_up(config, backend)  # gives them up, with a warning, where they fail
                if compiled and not acceleration.compiled_by():
                    return
                for cell in checked:
                    yield from _check_cell(cell, backend, by)


def _check_cell(cell: str | Cell, backend: Backend, compiled: str) -> Iterator[Check]:
    check = functools.partial(Check, backend.name, name_of(cell), dtype=backend.dtype, compiled=compiled)
    if backend.dtype == "float64":
        small = make_case(cell, T=4, B=3, V=5, H=3)
        grad = loss_and_grad(small, backend)[1]
        differences, limit = "central differences", TOLERANCE["central differences"]
        yield check(
            "gradient", against=differences, error=relative_error(grad, central_differences(small, backend)), allowed=limit
        )
    if backend.is_host and backend.dtype == "float64" and not compiled:
        return  # it would be compared with itself
    large = make_case(cell, T=20, B=9, V=30, H=33)
    got = dict(zip(("loss", "gradient"), loss_and_grad(large, backend)))
    got["segments"] = loss_and_grad(large, backend, recompute_every=7)[1]
    if compiled:
        got["layers"] = layer_by_layer(large, backend)
    with dispatch.restored():
        dispatch.disable()
        mean, d = loss_and_grad(large, backends.select("numpy", "float64"))
    for what, one in got.items():
        expected = mean if what == "loss" else d
        yield check(what, against="pure NumPy, float64", error=relative_error(one, expected), allowed=TOLERANCE[backend.dtype])


def make_case(cell: str | Cell, T: int, B: int, V: int, H: int) -> Case:
    """Make a model of two layers with learned initial states, and a batch with padded columns."""
    rng = make_rng(0)
    config = model.Config(name_of(cell), V, H, 2, user_cell=cell if is_user_cell(cell) else None)
    params_vector = tree.ravel(model.init(config, rng))
    params_vector = params_vector + 0.1 * rng.normal(size=params_vector.shape)  # initial states and biases would be zero
    x, y = rng.integers(0, V, (2, T, B))
    mask = (np.arange(T)[:, None] < rng.integers(1, T + 1, B)).astype(np.float64)
    return Case(config, params_vector, x, y, mask, model.dropout_masks(config, rng, 0.3, B))


def loss_value(one: Case, backend: Backend, params_vector: HostArray) -> float:
    """Return the loss at parameters params_vector (P,), by the forward pass."""
    put = backend.put
    params = tree.unravel(put(params_vector), model.shapes(one.config))
    logits, _, _ = model.forward(one.config, params, put(one.x), None, tuple(map(put, one.keep)))
    return float(backend.get(loss.forward(logits, put(one.y), put(one.mask))[0]))


def loss_and_grad(one: Case, backend: Backend, recompute_every: int | None = None) -> tuple[HostArray, HostArray]:
    """Return loss () and gradient (P,) in float64, as in training; with `recompute_every`, in segments of that length."""
    put, get = backend.put, backend.get
    arrays = put(one.x), put(one.y), put(one.mask)
    arguments = put(one.params_vector), one.config, *arrays, None, tuple(map(put, one.keep))
    if recompute_every:
        lengths = [int(steps) for steps in one.mask.sum(axis=0)]
        mean, grad, _ = segments.loss_and_grad(*arguments, lengths=lengths, recompute_every=recompute_every)
    else:
        mean, grad, _ = gradient.loss_and_grad(*arguments, None)
    return np.asarray(get(mean), np.float64), np.asarray(get(grad), np.float64)


def layer_by_layer(one: Case, backend: Backend) -> HostArray:
    """Return the gradient (P,) in float64, computed by the functions that process one layer at a time."""
    put = backend.put
    params = tree.unravel(put(one.params_vector), model.shapes(one.config))
    batch = put(one.x), put(one.y), put(one.mask), None, tuple(map(put, one.keep))
    _, d, _ = model.loss_and_grad(one.config, params, *batch)
    return np.asarray(backend.get(tree.ravel(d)), np.float64)


def central_differences(one: Case, backend: Backend) -> HostArray:
    """Return the gradient (P,) by central differences of the loss, one parameter at a time."""
    result = np.empty_like(one.params_vector)
    for i in range(len(result)):
        step = np.zeros_like(one.params_vector)
        step[i] = STEP
        more, less = (loss_value(one, backend, one.params_vector + sign * step) for sign in (1.0, -1.0))
        result[i] = (more - less) / (2 * STEP)
    return result


def relative_error(got: HostArray, expected: HostArray) -> float:
    """Return the largest difference, relative to the largest expected element."""
    return float(np.max(np.abs(got - expected)) / np.max(np.abs(expected)))
