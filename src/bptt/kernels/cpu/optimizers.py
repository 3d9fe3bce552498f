"""Kernels of gradient clipping and of the optimizers, on flat vectors."""

import functools
import math
from typing import Any

import numpy as np

from bptt.kernels.cpu.jit import compiled


@functools.partial(compiled, fastmath=frozenset({"contract", "reassoc"}))
def sum_of_squares(grad: Any) -> Any:
    """The sum of the squares of some elements."""
    total = grad.dtype.type(0)
    for i in range(grad.size):
        total += grad[i] * grad[i]
    return total


@compiled
def clip_by_norm(grad: Any, limit: float) -> Any:
    """The vector at norm `limit` where it is longer, and its norm () before."""
    total = 0.0
    for first in range(0, grad.size, 1024):
        total += sum_of_squares(grad[first : first + 1024])
    norm = np.empty((), grad.dtype)
    norm[()] = math.sqrt(total)
    # d itself where it is short enough, no copy; where its norm is not a number, nothing but that
    return (grad if norm[()] <= limit else grad * grad.dtype.type(limit / norm[()])), norm


@compiled
def sgd_update(params_vector: Any, grad: Any, learning_rate: Any) -> Any:
    """params_vector - learning_rate * grad."""
    updated = np.empty_like(params_vector)
    for i in range(params_vector.size):
        updated[i] = params_vector[i] - learning_rate * grad[i]
    return updated


@compiled
def adam(params_vector: Any, grad: Any, m: Any, v: Any, numbers: Any, ends: Any, rates: Any, keeps: Any) -> Any:
    """Parameters, m and v after an update; all numbers have the type of the parameters.

    Each group of parameters ends at one of `ends` (G,) and has one of `rates` and of `keeps` (G,).
    """
    beta1, rest1, beta2, rest2, fix, eps = numbers
    updated, m_new, v_new = np.empty_like(params_vector), np.empty_like(params_vector), np.empty_like(params_vector)
    start = 0
    for group in range(ends.size):
        rate, keep = rates[group], keeps[group]
        for i in range(start, ends[group]):
            m_new[i] = beta1 * m[i] + rest1 * grad[i]
            v_new[i] = beta2 * v[i] + rest2 * (grad[i] * grad[i])
            updated[i] = keep * params_vector[i] - rate * m_new[i] / (np.sqrt(v_new[i] * fix) + eps)
        start = ends[group]
    return updated, m_new, v_new


@compiled
def average_update(average: Any, params_vector: Any, rest: Any) -> Any:
    """The average, nearer to the parameters by `rest`, which is 1 - decay, of the difference."""
    updated = np.empty_like(average)
    for i in range(average.size):
        updated[i] = average[i] + rest * (params_vector[i] - average[i])
    return updated
