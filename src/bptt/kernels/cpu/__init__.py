"""Kernels for NumPy arrays, compiled by LLVM when they are first called, and then kept on disk."""

import functools
import math
from collections.abc import Callable
from typing import Any

import llvmlite
import numpy as np

from bptt.dispatch import Accelerated, Kernel, kernel_for
from bptt.kernels.cpu.jit import function
from bptt.nn import gradient, gru, linear, loss, lstm, optimizers, vanilla

NAME: str = f"llvmlite {llvmlite.__version__}"
ARRAY = np.ndarray
NO_IDS = np.zeros(1, np.int64)
GRADIENTS = {vanilla: "vanilla", gru: "gru", lstm: "lstm"}  # the libraries, by the module of a cell


def prepared(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """The function, its arrays copied where they are not contiguous and aligned, and ids in 64 bits."""

    @functools.wraps(kernel)
    def preparing(*arguments: Any) -> Any:
        return kernel(*[_prepared(one) if isinstance(one, np.ndarray) else one for one in arguments])

    return preparing


def _prepared(array: Any) -> Any:
    flags, is_real = array.flags, array.dtype.kind == "f"
    if flags.c_contiguous and flags.aligned and (is_real or array.dtype == np.int64):
        return array
    return array.copy() if is_real else np.array(array, np.int64, order="C")


def kernel(function: Accelerated[..., Any]) -> Callable[[Kernel], Kernel]:
    """Register the decorated function as the kernel of an accelerated function for NumPy arrays."""

    def register(decorated: Kernel) -> Kernel:
        kernel_for(function, ARRAY)(prepared(decorated))
        return decorated

    return register


def _empty(like: Any, *shape: int) -> Any:
    return np.empty(shape, like.dtype)


def _layer(Wax: Any, Waa: Any, b: Any, x: Any) -> tuple[Any, ...]:
    """What a layer reads and its weights: ids (T, B), or vectors (T, B, I), whose ids are of no use."""
    T, B = x.shape[:2]
    if x.ndim == 2:
        return Wax, Waa, b, x, Wax, Wax.shape[1], 0, T, B, Waa.shape[1]
    return Wax, Waa, b, NO_IDS, x, x.shape[2], x.shape[2], T, B, Waa.shape[1]


def _gradients(Wax: Any, Waa: Any, b: Any, x: Any) -> tuple[Any, ...]:
    """Room for dx (T, B, I), dWax, dWaa and db."""
    return _empty(Wax, *(x.shape if x.ndim == 3 else (0,))), np.empty_like(Wax), np.empty_like(Waa), np.empty_like(b)


@kernel(vanilla.run)
def vanilla_run(Wax: Any, Waa: Any, b: Any, x: Any, a0: Any) -> Any:
    a = _empty(a0, x.shape[0] + 1, *a0.shape)
    function("vanilla", "vanilla", a.dtype)(*_layer(Wax, Waa, b, x), a0, a)
    return a


@kernel(vanilla.run_backward)
def vanilla_run_backward(Wax: Any, Waa: Any, b: Any, x: Any, a: Any, da: Any, da_next: Any) -> Any:
    da0, grads = np.empty_like(da_next), _gradients(Wax, Waa, b, x)
    function("vanilla", "vanilla_backward", a.dtype)(*_layer(Wax, Waa, b, x), a, da.copy(), da_next, da0, *grads)
    dx, *dparams = grads
    return dx if x.ndim == 3 else None, da0, *dparams


@kernel(gru.run)
def gru_run(Wax: Any, Waa: Any, b: Any, ban: Any, x: Any, a0: Any) -> Any:
    (B, H), T = a0.shape, x.shape[0]
    states = _empty(a0, T + 1, B, H), _empty(a0, T, B, 2 * H), _empty(a0, T, B, H), _empty(a0, T, B, H)
    function("gru", "gru", a0.dtype)(*_layer(Wax, Waa, b, x), ban, a0, *states)
    return states


@kernel(gru.run_backward)
def gru_run_backward(
    Wax: Any, Waa: Any, b: Any, ban: Any, x: Any, a: Any, ru: Any, n: Any, p: Any, da: Any, da_next: Any
) -> Any:
    da0, dban, grads = np.empty_like(da_next), np.empty_like(ban), _gradients(Wax, Waa, b, x)
    over = ru.copy(), n.copy(), p.copy()
    function("gru", "gru_backward", a.dtype)(*_layer(Wax, Waa, b, x), a, *over, da, da_next, da0, dban, *grads)
    dx, *dparams = grads
    return dx if x.ndim == 3 else None, da0, *dparams, dban


@kernel(lstm.run)
def lstm_run(Wax: Any, Waa: Any, b: Any, x: Any, a0: Any, c0: Any) -> Any:
    (B, H), T = a0.shape, x.shape[0]
    states = _empty(a0, T + 1, B, H), _empty(a0, T + 1, B, H), _empty(a0, T, B, 4 * H)
    function("lstm", "lstm", a0.dtype)(*_layer(Wax, Waa, b, x), a0, c0, *states)
    return states


@kernel(lstm.run_backward)
def lstm_run_backward(
    Wax: Any, Waa: Any, b: Any, x: Any, a: Any, c: Any, gates: Any, da: Any, da_next: Any, dc_next: Any
) -> Any:
    da0, dc0, grads = np.empty_like(da_next), np.empty_like(dc_next), _gradients(Wax, Waa, b, x)
    after = da, da_next, dc_next
    function("lstm", "lstm_backward", a.dtype)(*_layer(Wax, Waa, b, x), a, c, gates.copy(), *after, da0, dc0, *grads)
    dx, *dparams = grads
    return dx if x.ndim == 3 else None, da0, dc0, *dparams


@kernel(linear.affine)
def linear_affine(W: Any, x: Any, b: Any) -> Any:
    (T, B, I), N = x.shape, W.shape[0]
    out = _empty(W, T, B, N)
    function("loss", "affine", W.dtype)(W, x, b, T * B, I, N, out)
    return out


@kernel(linear.affine_backward)
def linear_affine_backward(W: Any, x: Any, dz: Any) -> Any:
    (T, B, I), N = x.shape, W.shape[0]
    dx, dW, db = np.empty_like(x), np.empty_like(W), _empty(W, N)
    function("loss", "affine_backward", W.dtype)(W, x, dz, T * B, I, N, dx, dW, db)
    return dx, dW, db


@kernel(loss.cross_entropy)
def loss_cross_entropy(logits: Any, y: Any, mask: Any, count: Any) -> Any:
    T, B, V = logits.shape
    mean, p, weight = _empty(logits), np.empty_like(logits), np.empty_like(mask)
    function("loss", "cross_entropy", p.dtype)(logits, y, mask, T * B, V, _count(count), mean, p, weight)
    return mean, p, weight


def _count(count: Any) -> float:
    """The number of all targets; -1 stands for those that there are."""
    return -1.0 if count is None else float(count)


@kernel(loss.cross_entropy_backward)
def loss_cross_entropy_backward(p: Any, y: Any, weight: Any) -> Any:
    (T, B, V), d = p.shape, np.empty_like(p)
    function("loss", "cross_entropy_backward", p.dtype)(p, y, weight, T * B, V, d)
    return d


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
    if config.definition not in GRADIENTS:
        return NotImplemented
    (T, B), L, S, H = x.shape, config.layers, len(config.definition.State._fields), config.hidden
    none = params_vector  # an array that is not looked at
    mean, d, after, dbefore = _empty(none), np.empty_like(none), _empty(none, L, S, B, H), _empty(none, L, S, B, H)
    masks = np.stack(keep) if keep else none
    batch = [x, y, mask, _count(count), none if states is None else states, states is None, masks, bool(keep)]
    batch += [none if dafter is None else dafter, dafter is None]
    sizes = L, config.vocabulary, H, T, B, d.size
    library = GRADIENTS[config.definition]
    function(library, f"{library}_gradient", d.dtype)(params_vector, *batch, *sizes, mean, d, after, dbefore)
    return mean, d, after, dbefore


@kernel(optimizers.clip_by_norm)
def optimizers_clip_by_norm(grad: Any, limit: float) -> Any:
    squares, norm = np.empty(1), _empty(grad)
    function("optimizers", "squared_norm", grad.dtype)(grad, grad.size, squares)
    norm[()] = math.sqrt(squares[0])
    # the gradient itself where it is short enough, no copy; where its norm is not a number, nothing but that
    return (grad if norm <= limit else grad * grad.dtype.type(limit / norm)), norm


@kernel(optimizers.sgd_update)
def optimizers_sgd_update(params_vector: Any, grad: Any, learning_rate: Any) -> Any:
    updated = np.empty_like(params_vector)
    function("optimizers", "sgd_update", grad.dtype)(params_vector, grad, float(learning_rate), grad.size, updated)
    return updated


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
    ends, rate_factors, decay_factors = param_groups(groups, params_vector.size)
    rates = learning_rate * rate_factors
    keeps = 1.0 - rates * (weight_decay * decay_factors)
    kind = params_vector.dtype
    numbers = np.array([beta1, 1.0 - beta1, beta2, 1.0 - beta2, 1.0 / v_fix, eps], kind)
    made = tuple(np.empty_like(params_vector) for _ in range(3))
    group_numbers = ends, (rates / m_fix).astype(kind), keeps.astype(kind), ends.size
    function("optimizers", "adam", kind)(params_vector, grad, m, v, numbers, *group_numbers, *made)
    return made


@functools.lru_cache(8)
def param_groups(groups: Any, size: int) -> Any:
    """The ends (G,) of the groups of parameters, and their factors of the learning rate and of the weight decay."""
    ends, rates, decays = zip(*(groups or ((size, 1.0, 1.0),)))
    return np.array(ends, np.int64), np.array(rates), np.array(decays)


@kernel(optimizers.average_update)
def optimizers_average_update(average: Any, params_vector: Any, decay: float) -> Any:
    updated = np.empty_like(average)
    function("optimizers", "average_update", average.dtype)(average, params_vector, 1.0 - decay, average.size, updated)
    return updated
