"""The twins on a CPU, compiled by Numba when they are first called, and then kept on disk."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from bptt.fused import cells
from bptt.fused.compiling import compiled
from bptt.fused.product import multiply, outer, pack, pack_transposed, padded, space, trimmed
from bptt.fused.vectors import exp

NAME: str = f"numba {numba.__version__}"
ARRAY = np.ndarray


def _inputs(x: Any, W: Any) -> tuple[Any, Any]:
    """The ids (T, B) and the vectors (T, B, I) that a layer reads, one of which says nothing."""
    if x.ndim == 2:
        return x, np.empty((*x.shape, 0), W.dtype)
    return np.zeros(x.shape[:2], np.int64), x


def vanilla_run(Wax: Any, Waa: Any, b: Any, x: Any, a0: Any) -> Any:
    return cells.vanilla(Wax, Waa, b, *_inputs(x, Wax), a0)


def vanilla_run_backward(Wax: Any, Waa: Any, b: Any, x: Any, a: Any, da: Any, da_next: Any) -> Any:
    da0, (dx, dWax, dWaa, db) = cells.vanilla_backward(Wax, Waa, *_inputs(x, Wax), a, da, da_next)
    return None if x.ndim == 2 else dx, da0, dWax, dWaa, db


def gru_run(Wax: Any, Waa: Any, b: Any, ban: Any, x: Any, a0: Any) -> Any:
    return cells.gru(Wax, Waa, b, ban, *_inputs(x, Wax), a0)


def gru_run_backward(
    Wax: Any, Waa: Any, b: Any, ban: Any, x: Any, a: Any, ru: Any, n: Any, p: Any, da: Any, da_next: Any
) -> Any:
    da0, dban, (dx, dWax, dWaa, db) = cells.gru_backward(Wax, Waa, *_inputs(x, Wax), a, ru, n, p, da, da_next)
    return None if x.ndim == 2 else dx, da0, dWax, dWaa, db, dban


def lstm_run(Wax: Any, Waa: Any, b: Any, x: Any, a0: Any, c0: Any) -> Any:
    return cells.lstm(Wax, Waa, b, *_inputs(x, Wax), a0, c0)


def lstm_run_backward(
    Wax: Any, Waa: Any, b: Any, x: Any, a: Any, c: Any, gates: Any, da: Any, da_next: Any, dc_next: Any
) -> Any:
    after = da, da_next, dc_next
    da0, dc0, (dx, dWax, dWaa, db) = cells.lstm_backward(Wax, Waa, *_inputs(x, Wax), a, c, gates, *after)
    return None if x.ndim == 2 else dx, da0, dc0, dWax, dWaa, db


@compiled
def products(A: Any, panels: Any, added: Any) -> Any:
    """A W + added (T, B, N) for A (T, B, K) and the panels of W (K, N), by as many rows as a near cache holds."""
    (T, B, K), N = A.shape, added.size
    out, some = np.empty((T * B, N), A.dtype), np.empty((64, padded(N, A)), A.dtype)
    for first in range(0, T * B, 64):
        count = min(64, T * B - first)
        multiply(A, first * K, count, K, panels, some, False)
        for i in range(count):
            for j in range(N):
                out[first + i, j] = some[i, j] + added[j]
    return out.reshape(T, B, N)


@compiled
def linear_affine(W: Any, x: Any, b: Any) -> Any:
    return products(x, pack_transposed(W), b)


@compiled
def linear_affine_backward(W: Any, x: Any, dz: Any) -> Any:
    (T, B, I), N = x.shape, W.shape[0]
    d, db, dW = dz.reshape(T * B, N), np.zeros(N, W.dtype), space(N, I, W)
    for row in d:
        db += row
    outer(d, x.reshape(T * B, I), 0, T * B, dW, False)
    return products(dz, pack(W), np.zeros(I, W.dtype)), trimmed(dW, N, I), db


def loss_cross_entropy(logits: Any, y: Any, mask: Any, count: Any) -> Any:
    return cross_entropy(logits, y, mask, 0.0 if count is None else float(count))


@compiled
def cross_entropy(logits: Any, y: Any, mask: Any, of: float) -> Any:
    T, B, V = logits.shape
    p, weight, mean = np.empty_like(logits), np.empty_like(mask), np.empty((), logits.dtype)
    count = loss = 0.0
    for t in range(T):
        for b in range(B):
            count += mask[t, b]
            row, largest = p[t, b], logits[t, b, 0]
            for v in range(1, V):
                largest = max(largest, logits[t, b, v])
            for v in range(V):
                row[v] = logits[t, b, v] - largest
            weight[t, b] = row[y[t, b]]
    if of:  # the targets here are not all
        count = of
    flat = p.reshape(-1)
    for i in range(flat.size):  # whole vectors
        flat[i] = exp(flat[i])
    for t in range(T):
        for b in range(B):
            row, total = p[t, b], logits.dtype.type(0)
            for v in range(V):
                total += row[v]
            for v in range(V):
                row[v] /= total
            loss += (math.log(total) - weight[t, b]) * mask[t, b]
            weight[t, b] = mask[t, b] / count
    mean[()] = loss / count
    return mean, p, weight


@compiled
def loss_cross_entropy_backward(p: Any, y: Any, weight: Any) -> Any:
    T, B, V = p.shape
    d = np.empty_like(p)
    for t in range(T):
        for b in range(B):
            for v in range(V):
                d[t, b, v] = p[t, b, v] * weight[t, b]
            d[t, b, y[t, b]] -= weight[t, b]
    return d


@functools.partial(compiled, fastmath=frozenset({"contract", "reassoc"}))
def squares(d: Any) -> Any:
    """The sum of the squares of some elements."""
    total = d.dtype.type(0)
    for i in range(d.size):
        total += d[i] * d[i]
    return total


@compiled
def clipped(d: Any, limit: float) -> Any:
    total = 0.0
    for first in range(0, d.size, 1024):
        total += squares(d[first : first + 1024])
    norm = np.empty((), d.dtype)
    norm[()] = math.sqrt(total)
    # d itself where it is short enough, no copy; where its norm is not a number, nothing but that
    return (d if norm[()] <= limit else d * d.dtype.type(limit / norm[()])), norm


def optimizers_clip_by_norm(d: Any, limit: float) -> Any:
    return clipped(d, float(limit))


@compiled
def adam(theta: Any, d: Any, m: Any, v: Any, numbers: Any) -> Any:
    rate, beta1, rest1, beta2, rest2, fix, eps, keep = numbers
    new, m_new, v_new = np.empty_like(theta), np.empty_like(theta), np.empty_like(theta)
    for i in range(theta.size):
        m_new[i] = beta1 * m[i] + rest1 * d[i]
        v_new[i] = beta2 * v[i] + rest2 * (d[i] * d[i])
        new[i] = keep * theta[i] - rate * m_new[i] / (np.sqrt(v_new[i] * fix) + eps)
    return new, m_new, v_new


def optimizers_moments(
    theta: Any, d: Any, m: Any, v: Any, t: Any, rate: Any, beta1: float, beta2: float, eps: float, weight_decay: float
) -> Any:
    t, rate = float(t), float(rate)
    m_fix, v_fix = -math.expm1(t * math.log(beta1)), -math.expm1(t * math.log(beta2))
    numbers = rate / m_fix, beta1, 1.0 - beta1, beta2, 1.0 - beta2, 1.0 / v_fix, eps, 1.0 - rate * weight_decay
    return adam(theta, d, m, v, tuple(map(theta.dtype.type, numbers)))


def owned(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, its arrays copied where they are not contiguous and writable: Numba would compile for each kind of them."""

    @functools.wraps(function)
    def twin(*arguments: Any) -> Any:
        return function(*[a.copy() if isinstance(a, np.ndarray) and not a.flags.carray else a for a in arguments])

    return twin


ROOMS = ("arrays_", "linear_", "vanilla_", "gru_", "lstm_", "loss_", "optimizers_")
TWINS: dict[str, Callable[..., Any]] = {name: owned(function) for name, function in globals().items() if name.startswith(ROOMS)}
