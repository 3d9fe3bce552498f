"""Shares of a batch, some of its columns each: their gradients, computed one after the other, add up to that of the batch."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from bptt.backend import Array, Backend, HostArray
from bptt.text.batches import Window


class Share(NamedTuple):
    """Some columns of a window."""

    window: Window  # of these alone
    columns: HostArray  # (n,): where they are in the whole one


def shares(window: Window, count: int) -> list[Share]:
    """Up to `count` shares that have about as much to do: every count-th column each, but for those that are over."""
    places = np.flatnonzero(window.lengths > 0)
    found = []
    for first in range(min(count, len(places))):
        columns = places[first::count]
        lengths = window.lengths[columns]
        own = Window(window.columns[:, columns], int(lengths.max()), int(lengths.sum()), window.start)
        found.append(Share(own, columns))
    return found


def every(windows: Iterable[Window], count: int, first: int) -> Iterator[Window]:
    """Windows of every count-th column alone from the first on, but for those in which none of them is left."""
    for window in windows:
        own = window._replace(columns=window.columns[:, first::count])
        if own.lengths.any():
            yield own._replace(steps=int(own.lengths.max()), targets=int(own.lengths.sum()))


def rows(states: Array, columns: HostArray, backend: Backend) -> Array:
    """The states (L, S, n, H) of some columns, of those (L, S, B, H) of all."""
    return backend.xp.take(states, backend.put(columns), axis=2)


def joined(parts: list[tuple[HostArray, Array]], width: int, backend: Backend) -> Array:
    """The states (L, S, B, H) of all columns, given some columns with theirs, (n,) and (L, S, n, H); zeros for the others."""
    xp = backend.xp
    arrays, columns = [states for _, states in parts], np.concatenate([columns for columns, _ in parts])
    over = np.setdiff1d(np.arange(width), columns)
    if len(over):
        layers, fields, _, units = arrays[0].shape
        arrays.append(backend.put(np.zeros((layers, fields, len(over), units))))
    order = np.argsort(np.concatenate([columns, over]))
    return xp.take(xp.concat(arrays, axis=2), backend.put(order), axis=2)
