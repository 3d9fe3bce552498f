"""The twins of clipping and of the update rules, on vectors."""

import functools
import math
from typing import Any

import numpy as np

from bptt.kernels.cpu.jit import compiled


@functools.partial(compiled, fastmath=frozenset({"contract", "reassoc"}))
def sum_of_squares(d: Any) -> Any:
    """The sum of the squares of some elements."""
    total = d.dtype.type(0)
    for i in range(d.size):
        total += d[i] * d[i]
    return total


@compiled
def clip_by_norm(d: Any, limit: float) -> Any:
    """The vector at norm `limit` where it is longer, and its norm () before."""
    total = 0.0
    for first in range(0, d.size, 1024):
        total += sum_of_squares(d[first : first + 1024])
    norm = np.empty((), d.dtype)
    norm[()] = math.sqrt(total)
    # d itself where it is short enough, no copy; where its norm is not a number, nothing but that
    return (d if norm[()] <= limit else d * d.dtype.type(limit / norm[()])), norm


@compiled
def sgd_update(theta: Any, d: Any, rate: Any) -> Any:
    """theta - rate d."""
    new = np.empty_like(theta)
    for i in range(theta.size):
        new[i] = theta[i] - rate * d[i]
    return new


@compiled
def adam(theta: Any, d: Any, m: Any, v: Any, numbers: Any) -> Any:
    """theta, m and v after an update, by numbers of the type of theta."""
    rate, beta1, rest1, beta2, rest2, fix, eps, keep = numbers
    new, m_new, v_new = np.empty_like(theta), np.empty_like(theta), np.empty_like(theta)
    for i in range(theta.size):
        m_new[i] = beta1 * m[i] + rest1 * d[i]
        v_new[i] = beta2 * v[i] + rest2 * (d[i] * d[i])
        new[i] = keep * theta[i] - rate * m_new[i] / (np.sqrt(v_new[i] * fix) + eps)
    return new, m_new, v_new
