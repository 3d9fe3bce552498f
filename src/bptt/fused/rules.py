"""The twins of clipping and of the update rules, on vectors."""

import functools
import math
from typing import Any

import numpy as np

from bptt.fused.compiling import compiled


@functools.partial(compiled, fastmath=frozenset({"contract", "reassoc"}))
def squares(d: Any) -> Any:
    """The sum of the squares of some elements."""
    total = d.dtype.type(0)
    for i in range(d.size):
        total += d[i] * d[i]
    return total


@compiled
def clipped(d: Any, limit: float) -> Any:
    """The vector at norm `limit` where it is longer, and its norm () before."""
    total = 0.0
    for first in range(0, d.size, 1024):
        total += squares(d[first : first + 1024])
    norm = np.empty((), d.dtype)
    norm[()] = math.sqrt(total)
    # d itself where it is short enough, no copy; where its norm is not a number, nothing but that
    return (d if norm[()] <= limit else d * d.dtype.type(limit / norm[()])), norm


@compiled
def along(theta: Any, d: Any, rate: Any) -> Any:
    """theta - rate d."""
    new = np.empty_like(theta)
    for i in range(theta.size):
        new[i] = theta[i] - rate * d[i]
    return new


@compiled
def adam(theta: Any, d: Any, m: Any, v: Any, numbers: Any) -> Any:
    """theta, m and v after an update, by what `adam_numbers` gives."""
    rate, beta1, rest1, beta2, rest2, fix, eps, keep = numbers
    new, m_new, v_new = np.empty_like(theta), np.empty_like(theta), np.empty_like(theta)
    for i in range(theta.size):
        m_new[i] = beta1 * m[i] + rest1 * d[i]
        v_new[i] = beta2 * v[i] + rest2 * (d[i] * d[i])
        new[i] = keep * theta[i] - rate * m_new[i] / (np.sqrt(v_new[i] * fix) + eps)
    return new, m_new, v_new


def adam_numbers(t: float, rate: float, beta1: float, beta2: float, eps: float, weight_decay: float) -> tuple[float, ...]:
    """The factors of update t."""
    m_fix, v_fix = -math.expm1(t * math.log(beta1)), -math.expm1(t * math.log(beta2))
    return rate / m_fix, beta1, 1.0 - beta1, beta2, 1.0 - beta2, 1.0 / v_fix, eps, 1.0 - rate * weight_decay
