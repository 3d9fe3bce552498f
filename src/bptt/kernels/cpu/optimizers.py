"""Kernels of gradient clipping and of the optimizers, on flat vectors."""

from bptt.kernels.cpu.llvm import Variable, compiled, minimum, steps
from bptt.kernels.cpu.simd import as_double, lane_sum, load, sqrt, store, width, zeros
from bptt.kernels.cpu.values import DOUBLE, Double, Doubles, Int, Ints, Number, Numbers

CHUNK = 1024  # numbers whose squares are added in the type of the library, before 64 bits take over


@compiled
def squared_norm(grad: Numbers, size: Int, out: Doubles) -> None:
    """Compute the sum of the squares of a vector."""
    result = Variable(Double(size.code, DOUBLE(0.0)))
    for first in steps(0, size, CHUNK):
        last, sums = minimum(first + CHUNK, size), Variable(zeros(grad))
        for i in steps(first, last, width(grad)):
            g = load(grad, i, last - i)
            sums.set(sums.get() + g * g)
        result.set(result.get() + as_double(lane_sum(sums.get())))
    out[0] = result.get()


@compiled
def sgd_update(params_vector: Numbers, grad: Numbers, learning_rate: Number, size: Int, updated: Numbers) -> None:
    """Compute params_vector - learning_rate * grad."""
    for i in steps(0, size, width(grad)):
        m = size - i
        store(load(params_vector, i, m) - load(grad, i, m) * learning_rate, updated, i, m)


@compiled
def adam(
    params_vector: Numbers,
    grad: Numbers,
    m: Numbers,
    v: Numbers,
    numbers: Numbers,
    ends: Ints,
    rates: Numbers,
    keeps: Numbers,
    groups: Int,
    updated: Numbers,
    m_new: Numbers,
    v_new: Numbers,
) -> None:
    """Compute parameters, m and v after an update; `numbers` are beta1, 1 - beta1, beta2, 1 - beta2, 1 / v_fix and eps.

    Each group of parameters ends at one of `ends` (G,) and has one of `rates` and of `keeps` (G,).
    """
    beta1, rest1, beta2, rest2, fix, eps = (numbers[i] for i in range(6))
    start = Variable(groups * 0)
    for group in steps(0, groups):
        rate, keep, end = rates[group], keeps[group], ends[group]
        for i in steps(start.get(), end, width(grad)):
            left = end - i
            g = load(grad, i, left)
            m_i = load(m, i, left) * beta1 + g * rest1
            v_i = load(v, i, left) * beta2 + g * g * rest2
            store(m_i, m_new, i, left)
            store(v_i, v_new, i, left)
            step = m_i * rate / (sqrt(v_i * fix) + eps)
            store(load(params_vector, i, left) * keep - step, updated, i, left)
        start.set(end)


@compiled
def average_update(average: Numbers, params_vector: Numbers, rest: Number, size: Int, updated: Numbers) -> None:
    """Compute the average, nearer to the parameters by `rest`, which is 1 - decay, of the difference."""
    for i in steps(0, size, width(average)):
        m, old = size - i, load(average, i, size - i)
        store(old + (load(params_vector, i, m) - old) * rest, updated, i, m)
