"""Micro-batches for gradient accumulation: micro-batch k holds columns k, k+n, k+2n, ... of a batch.

Their gradients, one after the other, add up to that of the batch. In data parallel training each process has the same columns
of all batches, so that the states of its columns stay with it.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from bptt.backend import Array, Backend, HostArray
from bptt.data.batches import Window
from bptt.distributed.process_group import ProcessGroup


class MicroBatch(NamedTuple):
    """Some columns of a window."""

    window: Window  # of these columns only
    columns: HostArray  # (n,): their places in the window of the batch
    number: int  # k


def split(window: Window, count: int) -> list[MicroBatch]:
    """Up to `count` micro-batches, without the columns that have ended."""
    micro_batches = []
    for number in range(min(count, window.columns.shape[1])):
        columns = np.arange(number, window.columns.shape[1], count)
        columns = columns[window.lengths[columns] > 0]
        if not len(columns):
            continue
        lengths = window.lengths[columns]
        part = Window(window.columns[:, columns], int(lengths.max()), int(lengths.sum()), window.start)
        micro_batches.append(MicroBatch(part, columns, number))
    return micro_batches


def rank_windows(windows: Iterable[Window], count: int, first: int) -> Iterator[Window]:
    """Each window reduced to every `count`-th column from `first` on, without the windows in which these have all ended."""
    for window in windows:
        part = window._replace(columns=window.columns[:, first::count])
        if part.lengths.any():
            yield part._replace(steps=int(part.lengths.max()), targets=int(part.lengths.sum()))


def take_columns(states: Array, columns: HostArray, backend: Backend) -> Array:
    """The states (L, S, n, H) of some columns, given those (L, S, B, H) of all."""
    return backend.xp.take(states, backend.put(columns), axis=2)


def merge_states(column_states: list[tuple[HostArray, Array]], shape: tuple[int, ...], backend: Backend) -> Array:
    """States of a shape (L, S, B, H), given places (n,) and states (L, S, n, H) of some columns; zeros for the others."""
    xp, (layers, fields, width, units) = backend.xp, shape
    others = np.setdiff1d(np.arange(width), [place for columns, _ in column_states for place in columns])
    arrays = [*(states for _, states in column_states), backend.put(np.zeros((layers, fields, len(others), units)))]
    order = np.argsort(np.concatenate([*(columns for columns, _ in column_states), others]))
    return xp.take(xp.concat(arrays, axis=2), backend.put(order), axis=2)


def rank_states(states: Array | None, group: ProcessGroup) -> Array | None:
    """Return the states (L, S, n, H) of the columns of this process, out of those (L, S, B, H) of all columns."""
    return None if states is None else states[:, :, group.rank :: group.size, :]


def gather_states(states: Array | None, group: ProcessGroup, backend: Backend) -> Array | None:
    """Return the states (L, S, B, H) of all columns in process 0, None in the others; all processes call this."""
    if group.size == 1 or states is None:  # without a copy from the device to the host and back
        return states
    states_by_rank = group.gather(backend.get(states))
    if states_by_rank is None:
        return None
    layers, fields, _, units = states_by_rank[0].shape
    states_of_all = np.empty(
        (layers, fields, sum(states_of_rank.shape[2] for states_of_rank in states_by_rank), units), states_by_rank[0].dtype
    )
    for rank, states_of_rank in enumerate(states_by_rank):
        states_of_all[:, :, rank :: group.size, :] = states_of_rank
    return backend.put(states_of_all)
