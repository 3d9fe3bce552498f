"""One gradient by several threads: the columns of a batch are dealt out in parts, whose gradients are added.

How many parts there are depends on the sizes alone, never on the machine: one core computes the same sums in the same order as
many do, bit for bit.
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

WIDTH = 32  # columns of a part, but two parts from so many on: the fewer there are, the more often the weights are read
LARGE = 2.5e7  # multiplications by a recurrent weight in a part, at least: for less a second thread does not pay


def split_columns(config: model.Config, lengths: HostArray) -> list[slice]:
    """The columns of each part of a batch, given the steps (B,) of each column; the parts have about the same steps in all."""
    batch = len(lengths)
    if batch < WIDTH:
        return [slice(0, batch)]
    steps = np.cumsum(lengths)
    work = int(steps[-1]) * config.layers * model.CELLS[config.cell].GATES * config.hidden**2
    parts = max(1, min(max(2, batch // WIDTH), int(work / LARGE)))
    ends = np.searchsorted(steps, steps[-1] * np.arange(1, parts) / parts) + 1
    borders = [0, *ends[steps[ends - 1] < steps[-1]].tolist(), batch]  # there is something to do behind each
    return [slice(first, end) for first, end in pairwise(borders) if end > first]


def workers() -> int:
    """A thread for each core that this process may use, but no more than its BLAS may have (OMP_NUM_THREADS and its like)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    allowed: list[int] = [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
    return min([cores, *allowed])


@contextlib.contextmanager
def thread_pool(backend: Backend, processes: int = 1) -> Iterator[Executor | None]:
    """Threads to work on parts, while the BLAS has one of its own; None for one core, and for a library that has its own.

    So many processes share the cores of this machine.
    """
    count = max(1, workers() // processes) if backend.is_host else 1
    if count == 1:
        with threadpool_limits(1, "blas") if processes > 1 and backend.is_host else contextlib.nullcontext():
            yield None
    else:
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(count, initializer=partial(np.seterr, all="ignore")) as executor:
            yield executor


def loss_and_grad(
    executor: Executor | None,
    theta: Array,
    config: model.Config,
    x: Array,
    y: Array,
    mask: Array,
    states: Array | None,
    keep: tuple[Array, ...],
    count: Array | None,
    lengths: HostArray,
    every: segments.RecomputeEvery | None,
) -> tuple[Array, Array, Array]:
    """What `segments.loss_and_grad` gives, but for the rounding of sums, by the threads of an executor, if there is one."""
    columns = split_columns(config, lengths)
    if len(columns) == 1:
        given = theta, config, x, y, mask, states, keep, count
        return segments.loss_and_grad(*given, lengths=lengths.tolist(), every=every)
    xp = namespace(mask)
    count = xp.sum(mask) if count is None else count

    def part(own: slice) -> tuple[Array, Array, Array]:
        begun = None if states is None else states[:, :, own, :]
        given = x[:, own], y[:, own], mask[:, own], begun, tuple(one[own, :] for one in keep), count
        return segments.loss_and_grad(theta, config, *given, lengths=lengths[own].tolist(), every=every)

    results = (executor.map if executor else map)(part, columns)
    mean, total, after = next(results)
    afters = [after]
    for share, d, after in results:
        mean, total = mean + share, total + d
        afters.append(after)
    return mean, total, xp.concat(afters, axis=2)
