"""Threads for the gradient of one batch: each takes some of the columns, and their gradients are added up.

The number of parts depends on the sizes alone, never on the machine: one core computes the same sums in the same order as many
cores do, bit for bit.
"""

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from bptt.backend import Array, Backend, HostArray, namespace
from bptt.nn import model, segments

WIDTH = 32  # columns of a part (a batch of this size has two): with fewer the weights are read more often
LARGE = 2.5e7  # least multiplications by a recurrent weight in a part: for less a second thread does not pay


def split_columns(config: model.Config, lengths: HostArray) -> list[slice]:
    """The columns of each part of a batch, given the steps (B,) of each column; all parts have about as many steps."""
    batch = len(lengths)
    if batch < WIDTH:
        return [slice(0, batch)]
    steps = np.cumsum(lengths)
    work = int(steps[-1]) * config.recurrent_weights
    count = max(1, min(max(2, batch // WIDTH), int(work / LARGE)))
    ends = np.searchsorted(steps, steps[-1] * np.arange(1, count) / count) + 1
    borders = [0, *ends[steps[ends - 1] < steps[-1]].tolist(), batch]  # there is something to do behind each
    return [slice(first, end) for first, end in pairwise(borders) if end > first]


def workers() -> int:
    """The number of threads: the cores that this process may use, at most the threads of its BLAS (OMP_NUM_THREADS)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    allowed: list[int] = [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
    return min([cores, *allowed])


@contextlib.contextmanager
def thread_pool(backend: Backend, processes: int = 1) -> Iterator[Executor | None]:
    """A pool of threads, while the BLAS uses one thread; None for one core, and for a library with threads of its own.

    `processes` is the number of processes that share the cores of this machine.
    """
    count = max(1, workers() // processes) if backend.is_host else 1
    if count == 1:
        with threadpool_limits(1, "blas") if processes > 1 and backend.is_host else contextlib.nullcontext():
            yield None
    else:
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(count, initializer=partial(np.seterr, all="ignore")) as executor:
            yield executor


def loss_and_grad(
    params_vector: Array,
    config: model.Config,
    x: Array,
    y: Array,
    mask: Array,
    states: Array | None,
    keep: tuple[Array, ...],
    *,
    count: Array | None,
    lengths: HostArray,
    recompute_every: segments.RecomputeEvery | None,
    executor: Executor | None,
) -> tuple[Array, Array, Array]:
    """`segments.loss_and_grad`, up to rounding, by the threads of an executor, if there is one."""
    column_slices = split_columns(config, lengths)
    if len(column_slices) == 1:
        arguments = params_vector, config, x, y, mask, states, keep
        return segments.loss_and_grad(*arguments, count=count, lengths=lengths.tolist(), recompute_every=recompute_every)
    xp = namespace(mask)
    count = xp.sum(mask) if count is None else count

    def part_loss_and_grad(columns: slice) -> tuple[Array, Array, Array]:
        start = None if states is None else states[:, :, columns, :]
        arrays = x[:, columns], y[:, columns], mask[:, columns], start, tuple(layer[columns, :] for layer in keep)
        part_lengths = lengths[columns].tolist()
        return segments.loss_and_grad(
            params_vector, config, *arrays, count=count, lengths=part_lengths, recompute_every=recompute_every
        )

    results = (executor.map if executor else map)(part_loss_and_grad, column_slices)
    mean, total, after = next(results)
    afters = [after]
    for part_mean, grad, after in results:
        mean, total = mean + part_mean, total + grad
        afters.append(after)
    return mean, total, xp.concat(afters, axis=2)
