"""Shares of a batch, every so-many-th of its columns each: their gradients, one after the other, add up to that of the batch.

Where several processes train, each has the same columns of all windows, so that what it goes on from stays with it.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from bptt.backend import Array, Backend, HostArray
from bptt.data.batches import Window
from bptt.distributed.process_group import ProcessGroup


class MicroBatch(NamedTuple):
    """Some columns of a window."""

    window: Window  # of these alone
    columns: HostArray  # (n,): where they are in the whole one
    number: int  # among the shares


def split(window: Window, count: int) -> list[MicroBatch]:
    """Up to `count` shares: every count-th column from the first, second and so on, but for those that are over."""
    found = []
    for first in range(min(count, window.columns.shape[1])):
        columns = np.arange(first, window.columns.shape[1], count)
        columns = columns[window.lengths[columns] > 0]
        if not len(columns):
            continue
        lengths = window.lengths[columns]
        own = Window(window.columns[:, columns], int(lengths.max()), int(lengths.sum()), window.start)
        found.append(MicroBatch(own, columns, first))
    return found


def rank_windows(windows: Iterable[Window], count: int, first: int) -> Iterator[Window]:
    """Windows of every count-th column alone from the first on, but for those in which none of them is left."""
    for window in windows:
        own = window._replace(columns=window.columns[:, first::count])
        if own.lengths.any():
            yield own._replace(steps=int(own.lengths.max()), targets=int(own.lengths.sum()))


def take_columns(states: Array, columns: HostArray, backend: Backend) -> Array:
    """The states (L, S, n, H) of some columns, of those (L, S, B, H) of all."""
    return backend.xp.take(states, backend.put(columns), axis=2)


def merge_states(parts: list[tuple[HostArray, Array]], shape: tuple[int, ...], backend: Backend) -> Array:
    """States of a shape (L, S, B, H), given some columns with theirs, (n,) and (L, S, n, H); zeros for the others."""
    xp, (layers, fields, width, units) = backend.xp, shape
    over = np.setdiff1d(np.arange(width), [place for columns, _ in parts for place in columns])
    arrays = [*(states for _, states in parts), backend.put(np.zeros((layers, fields, len(over), units)))]
    order = np.argsort(np.concatenate([*(columns for columns, _ in parts), over]))
    return xp.take(xp.concat(arrays, axis=2), backend.put(order), axis=2)


def rank_states(states: Array | None, group: ProcessGroup) -> Array | None:
    """Return the states (L, S, n, H) of the columns of this process, out of those (L, S, B, H) of all columns."""
    return None if states is None else states[:, :, group.rank :: group.size, :]


def gather_states(states: Array | None, group: ProcessGroup, backend: Backend) -> Array | None:
    """Return the states (L, S, B, H) of all columns in process 0, None in the others; all processes call this."""
    if group.size == 1 or states is None:  # without a copy from the device to the host and back
        return states
    parts = group.gather(backend.get(states))
    if parts is None:
        return None
    layers, fields, _, units = parts[0].shape
    found = np.empty((layers, fields, sum(part.shape[2] for part in parts), units), parts[0].dtype)
    for number, part in enumerate(parts):
        found[:, :, number :: group.size, :] = part
    return backend.put(found)
