"""Kernels for NumPy arrays, compiled by Numba when they are first called, and then kept on disk."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from bptt.dispatch import Accelerated, Kernel, kernel_for
from bptt.kernels.cpu import cells, gemm
from bptt.kernels.cpu import gradient as gradient_kernels
from bptt.kernels.cpu import loss as loss_kernels
from bptt.kernels.cpu import optimizers as optimizer_kernels
from bptt.nn import gradient, gru, linear, loss, lstm, optimizers, vanilla

NAME: str = f"numba {numba.__version__}"
ARRAY = np.ndarray
CELLS = (vanilla, gru, lstm)  # that the kernels of a whole gradient know: modules, whatever their names


def owned(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, its arrays copied where they are not contiguous and writable: Numba would compile for each kind of them."""

    @functools.wraps(function)
    def copying(*arguments: Any) -> Any:
        return function(*[a.copy() if isinstance(a, np.ndarray) and not a.flags.carray else a for a in arguments])

    return copying


def kernel(function: Accelerated[..., Any]) -> Callable[[Kernel], Kernel]:
    """Register the decorated function as the kernel of an accelerated function for NumPy arrays."""

    def register(decorated: Kernel) -> Kernel:
        kernel_for(function, ARRAY)(owned(decorated))
        return decorated

    return register


def _inputs(x: Any, W: Any) -> tuple[Any, Any]:
    """The ids (T, B) and the vectors (T, B, I) that a layer reads, one of which says nothing."""
    if x.ndim == 2:
        return x, np.empty((*x.shape, 0), W.dtype)
    return np.zeros(x.shape[:2], np.int64), x


def room(Waa: Any) -> Any:
    """Room for the gradient of an array."""
    return gemm.room(np.empty_like(Waa))


@kernel(vanilla.run)
def vanilla_run(Wax: Any, Waa: Any, b: Any, x: Any, a0: Any) -> Any:
    return cells.vanilla(Wax, Waa, b, *_inputs(x, Wax), a0)


@kernel(vanilla.run_backward)
def vanilla_run_backward(Wax: Any, Waa: Any, b: Any, x: Any, a: Any, da: Any, da_next: Any) -> Any:
    da0, (dx, dWax, dWaa, db) = cells.vanilla_backward(Wax, Waa, *_inputs(x, Wax), a, da.copy(), da_next, room(Waa))
    return None if x.ndim == 2 else dx, da0, dWax, dWaa, db


@kernel(gru.run)
def gru_run(Wax: Any, Waa: Any, b: Any, ban: Any, x: Any, a0: Any) -> Any:
    return cells.gru(Wax, Waa, b, ban, *_inputs(x, Wax), a0)


@kernel(gru.run_backward)
def gru_run_backward(
    Wax: Any, Waa: Any, b: Any, ban: Any, x: Any, a: Any, ru: Any, n: Any, p: Any, da: Any, da_next: Any
) -> Any:
    over = ru.copy(), n.copy(), p.copy()
    da0, dban, (dx, dWax, dWaa, db) = cells.gru_backward(Wax, Waa, *_inputs(x, Wax), a, *over, da, da_next, room(Waa))
    return None if x.ndim == 2 else dx, da0, dWax, dWaa, db, dban


@kernel(lstm.run)
def lstm_run(Wax: Any, Waa: Any, b: Any, x: Any, a0: Any, c0: Any) -> Any:
    return cells.lstm(Wax, Waa, b, *_inputs(x, Wax), a0, c0)


@kernel(lstm.run_backward)
def lstm_run_backward(
    Wax: Any, Waa: Any, b: Any, x: Any, a: Any, c: Any, gates: Any, da: Any, da_next: Any, dc_next: Any
) -> Any:
    after = da, da_next, dc_next, room(Waa)
    da0, dc0, (dx, dWax, dWaa, db) = cells.lstm_backward(Wax, Waa, *_inputs(x, Wax), a, c, gates.copy(), *after)
    return None if x.ndim == 2 else dx, da0, dc0, dWax, dWaa, db


kernel(linear.affine)(loss_kernels.affine)
kernel(linear.affine_backward)(loss_kernels.affine_backward)
kernel(loss.cross_entropy_backward)(loss_kernels.cross_entropy_backward)


@kernel(loss.cross_entropy)
def loss_cross_entropy(logits: Any, y: Any, mask: Any, count: Any) -> Any:
    return loss_kernels.cross_entropy(logits, y, mask, -1.0 if count is None else float(count))


@functools.cache
def nothing(dtype: Any, *shape: int) -> Any:
    """An array without elements, for what is not given."""
    return np.empty(shape, dtype)


@kernel(gradient.loss_and_grad)
def gradient_loss_and_grad(
    params_vector: Any, config: Any, x: Any, y: Any, mask: Any, states: Any, keep: Any, count: Any
) -> Any:
    result = gradient_segment_loss_and_grad(params_vector, config, x, y, mask, states, keep, count, None)
    return result if result is NotImplemented else result[:3]


@kernel(gradient.segment_loss_and_grad)
def gradient_segment_loss_and_grad(
    params_vector: Any, config: Any, x: Any, y: Any, mask: Any, states: Any, keep: Any, count: Any, dafter: Any
) -> Any:
    if config.definition not in CELLS:
        return NotImplemented
    L, S, G, _, H, _ = sizes = gradient_kernels.model_sizes(config)
    states, dafter = (nothing(params_vector.dtype, L, S, 0, H) if array is None else array for array in (states, dafter))
    masks = np.stack(keep) if keep else nothing(params_vector.dtype, 0, 0, H)
    of = -1.0 if count is None else float(count)
    return gradient_kernels.loss_and_grad(params_vector, x, y, mask, states, masks, of, dafter, sizes, (0,) * G)


@kernel(optimizers.clip_by_norm)
def optimizers_clip_by_norm(grad: Any, limit: float) -> Any:
    return optimizer_kernels.clip_by_norm(grad, float(limit))


@kernel(optimizers.sgd_update)
def optimizers_sgd_update(params_vector: Any, grad: Any, learning_rate: Any) -> Any:
    return optimizer_kernels.sgd_update(params_vector, grad, params_vector.dtype.type(learning_rate))


@kernel(optimizers.adam_update)
def optimizers_adam_update(
    params_vector: Any,
    grad: Any,
    m: Any,
    v: Any,
    t: Any,
    learning_rate: Any,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    groups: Any,
) -> Any:
    t, learning_rate = float(t), float(learning_rate)
    m_fix, v_fix = -math.expm1(t * math.log(beta1)), -math.expm1(t * math.log(beta2))
    numbers = beta1, 1.0 - beta1, beta2, 1.0 - beta2, 1.0 / v_fix, eps
    ends, rate_factors, decay_factors = param_groups(groups, params_vector.size)
    rates = learning_rate * rate_factors
    keeps = 1.0 - rates * (weight_decay * decay_factors)
    kind = params_vector.dtype
    group_numbers = ends, (rates / m_fix).astype(kind), keeps.astype(kind)
    return optimizer_kernels.adam(params_vector, grad, m, v, tuple(map(kind.type, numbers)), *group_numbers)


@functools.lru_cache(8)
def param_groups(groups: Any, size: int) -> Any:
    """The ends (G,) of the groups of parameters, and their factors of the learning rate and of the weight decay."""
    ends, rates, decays = zip(*(groups or ((size, 1.0, 1.0),)))
    return np.array(ends, np.int64), np.array(rates), np.array(decays)


@kernel(optimizers.average_update)
def optimizers_average_update(average: Any, params_vector: Any, decay: float) -> Any:
    kind = average.dtype.type
    return optimizer_kernels.average_update(average, params_vector, kind(1.0 - decay))
