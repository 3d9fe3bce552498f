"""Gradients from values alone: central differences, the witness that no backward pass can talk to."""

from collections.abc import Callable

import numpy as np


def central_differences(function: Callable[[np.ndarray], float], theta: np.ndarray, h: float = 1e-5) -> np.ndarray:
    """The gradient of a function of a float64 vector (P,), one element at a time; the error is of order h squared."""
    gradient = np.empty_like(theta)
    for i in range(len(theta)):
        step = np.zeros_like(theta)
        step[i] = h
        gradient[i] = (function(theta + step) - function(theta - step)) / (2 * h)
    return gradient


def along(function: Callable[[np.ndarray], float], theta: np.ndarray, direction: np.ndarray, h: float = 1e-5) -> float:
    """The derivative of a function of a vector (P,) along a direction (P,): one number for a model of any size."""
    return (function(theta + h * direction) - function(theta - h * direction)) / (2 * h)
