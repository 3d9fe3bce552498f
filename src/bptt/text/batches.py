"""Sequences to batches (x, y, mask), time-major: short lines side by side, or one long text in parallel streams.

Where a batch is in the text is decided on the host; its arrays are made where the ids are, on the device if they fit.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from bptt.backend import Array, Backend, HostArray, device, namespace
from bptt.errors import InputError
from bptt.text import tokens
from bptt.text.sequences import Sequences, shuffled


class Window(NamedTuple):
    """T steps of B columns side by side, by their places in the ids."""

    columns: HostArray  # (2, B) int64: where the first input of each is, and the last target of its sequence, perhaps passed
    steps: int  # T
    targets: int  # that count
    start: bool  # True: begins at the initial state; False: goes on from the state after the window before


class Batch(NamedTuple):
    """The arrays of a window on the device; `x` and `y` are views of one array, to be read only."""

    x: Array  # (T, B) int64 input ids, 0 in the padding
    y: Array  # (T, B) int64 target ids, 0 in the padding
    mask: Array  # (T, B) 1.0 where a target counts, 0.0 in the padding at the end of a column
    targets: int
    start: bool


def reader(ids: HostArray, backend: Backend) -> Callable[[Window], Batch]:
    """What makes the batch of a window of ids (N,) on the device, where the ids stay for it if they fit."""
    put, near, dtype = backend.put, _near(ids), getattr(backend.xp, backend.dtype)
    if backend.name == "numpy":
        return lambda w: Batch(*gather(*near(w), w.steps, dtype), w.targets, w.start)
    small = np.dtype(np.uint8 if ids.itemsize == 1 else np.int32)  # types in which every library can gather
    if len(ids) * small.itemsize <= backend.room():
        held = backend.xp.concat([put(piece, small.name) for piece in tokens.pieces(ids)])
        return lambda w: Batch(*gather(held, put(w.columns), w.steps, dtype), w.targets, w.start)

    def transferred(window: Window) -> Batch:
        x, y, mask = gather(*near(window), window.steps, np.float64)
        return Batch(put(x), put(y), put(mask), window.targets, window.start)

    return transferred


def gather(ids: Array, columns: Array, steps: int, dtype: Any) -> tuple[Array, Array, Array]:
    """Inputs, targets and mask (T, B) of the columns (2, B) of a window, from ids (N,) on the same device."""
    xp = namespace(ids)
    firsts, ends = columns[0, :], columns[1, :]
    places = firsts + xp.arange(steps + 1, dtype=columns.dtype, device=device(columns))[:, None]  # (T+1, B)
    inside = places <= ends
    found = ids[xp.minimum(places, ends)]  # `take` would want them in one row: a small batch would take a fifth longer
    found = xp.where(inside, xp.astype(found, xp.int64), 0)
    return found[:-1, :], found[1:, :], xp.astype(inside[1:, :], dtype)


def lines(sequences: Sequences, batch: int, length: int, rng: np.random.Generator | None, first: int = 0) -> Iterator[Window]:
    """One epoch of sequences, each once, in batches of at most `batch` with less than 5 % padding.

    Sequences of like length share a batch, in an order that `rng` draws (None: always the same, longest first); a length
    that is rare makes a small batch. A batch of more than `length` steps comes in windows of at most that, the first of
    which starts anew. The epoch begins with its window number `first`; those before cost nothing.

    Raises:
        InputError: a batch or length below 1.
    """
    _check(batch, length)
    order, borders = _order(sequences.lengths, rng), _borders(_descending(sequences.lengths), batch)
    groups = shuffled(len(borders) - 1, rng)
    skipped = 0
    for piece in tokens.pieces(groups) if first else ():
        ends = np.cumsum(_windows_count(sequences.lengths[order[borders[piece]]], length))
        whole = int(np.searchsorted(ends, first, side="right"))  # groups to leave out
        skipped, first = skipped + whole, first - int(ends[whole - 1]) * (whole > 0)
        if whole < len(piece):
            break
    for group in map(int, groups[skipped:]):
        yield from windows(sequences.take(order[borders[group] : borders[group + 1]]), length, first)
        first = 0


def stream(text: Sequences, batch: int, length: int, first: int = 0) -> Iterator[Window]:
    """One epoch of a single sequence, cut into at most `batch` streams of its targets together.

    A text too short for `batch` streams of `length` targets is cut into fewer. Each window of at most `length` steps goes on
    where the one before ended, and every target counts exactly once. The epoch begins with its window number `first`.

    Raises:
        InputError: a batch or length below 1.
    """
    _check(batch, length)
    start, targets = int(text.starts[0]), int(text.lengths[0])
    streams = _streams(targets, batch, length)
    cuts = np.array([start + targets * b // streams for b in range(streams + 1)])
    yield from windows(Sequences(text.ids, cuts[:-1], np.diff(cuts)), length, first)


def lines_count(sequences: Sequences, batch: int, length: int) -> int:
    """The number of windows that `lines` gives, whatever its random order."""
    _check(batch, length)
    descending = _descending(sequences.lengths)
    firsts = _borders(descending, batch)[:-1]
    return sum(int(_windows_count(descending[piece], length).sum()) for piece in tokens.pieces(firsts))


def lines_width(sequences: Sequences, batch: int) -> int:
    """The most sequences that share a batch of `lines`."""
    _check(batch, 1)
    descending = _descending(sequences.lengths)
    borders = _borders(descending, batch)
    return int(np.diff(borders)[descending[borders[:-1]] > 0].max(initial=0))  # without targets there is no batch


def stream_count(text: Sequences, batch: int, length: int) -> int:
    """The number of windows that `stream` gives."""
    _check(batch, length)
    targets = int(text.lengths[0])
    longest = -(-targets // _streams(targets, batch, length))
    return -(-longest // length)


def windows(sequences: Sequences, length: int, first: int = 0) -> Iterator[Window]:
    """Sequences side by side, one column each, in windows of at most `length` steps; `first` of them are left out."""
    starts, targets = sequences.starts.astype(np.int64), sequences.lengths.astype(np.int64)
    ends, longest = starts + targets, int(targets.max())
    before = int(np.minimum(targets, first * length).sum()) if first else 0
    for t in range(first * length, longest, length):
        until = int(np.minimum(targets, t + length).sum())
        yield Window(np.array((starts + t, ends)), min(length, longest - t), until - before, t == 0)
        before = until


def _near(ids: HostArray) -> Callable[[Window], tuple[HostArray, HostArray]]:
    """What gives ids in memory that hold those of a window, and its columns (2, B) in them."""
    if not tokens.is_map(ids):
        return lambda window: (ids, window.columns)
    read = tokens.reader(ids)

    def brought(window: Window) -> tuple[HostArray, HostArray]:
        begins = window.columns.min(axis=0)  # of a column that is over, its end
        counts = np.minimum(window.columns[1] - begins, window.steps) + 1
        parts = [read(begin, begin + count) for begin, count in zip(begins.tolist(), counts.tolist())]
        return np.concatenate(parts), window.columns - begins + np.cumsum(counts) - counts

    return brought


def _borders(descending: HostArray, batch: int) -> HostArray:
    """Where groups of lengths sorted downwards begin, and where the last one ends.

    There are at most `batch` in each group, and less than 5 % of it is padding up to the longest.
    """
    dtype = np.min_scalar_type(len(descending))
    borders, i = [], 0
    for end in _runs(descending)[1:].tolist():
        while i < end:
            if whole := (end - i) // batch * batch:  # full groups without padding
                borders.append(np.arange(i, i + whole, batch, dtype=dtype))
                i += whole
                continue
            block = descending[i : i + batch].astype(np.int64)
            too_much = 20 * np.cumsum(block[0] - block) >= block[0] * np.arange(1, len(block) + 1)
            too_much[0] = False
            borders.append(np.array([i], dtype))
            i += int(too_much.argmax()) or len(block)
    return np.concatenate([*borders, np.array([i], dtype)])


def _order(lengths: HostArray, rng: np.random.Generator | None) -> HostArray:
    """The places of lengths sorted downwards, those of one length in an order that `rng` draws.

    A counting sort: argsort would take 16 bytes for each line, this takes 4.
    """
    descending = _descending(lengths)
    runs = _runs(descending)
    values = -descending[runs[:-1]].astype(np.int64)  # the different ones, upwards
    free = runs[:-1].copy()  # where the next one of each belongs
    order = np.empty(len(lengths), np.min_scalar_type(len(lengths)))
    position = 0
    for piece in tokens.pieces(lengths):
        kinds = np.searchsorted(values, -piece.astype(np.int64)).astype(np.min_scalar_type(len(values)))
        places = np.argsort(kinds, kind="stable")
        kinds = kinds[places]
        counts = np.bincount(kinds, minlength=len(values))
        order[(free - np.cumsum(counts) + counts)[kinds] + np.arange(len(kinds))] = places + position
        free += counts
        position += len(piece)
    if rng is not None:
        for a, b in pairwise(runs.tolist()):
            rng.shuffle(order[a:b])
    return order


def _descending(lengths: HostArray) -> HostArray:
    return np.sort(lengths)[::-1]


def _runs(descending: HostArray) -> HostArray:
    """Where each run of equal numbers begins, and where the last one ends."""
    changes = np.flatnonzero(descending[1:] != descending[:-1]) + 1
    return np.unique(np.concatenate([[0], changes, [len(descending)]]))


def _streams(targets: int, batch: int, length: int) -> int:
    return min(batch, max(1, targets // length))


def _windows_count(targets: HostArray, length: int) -> HostArray:
    return -(-targets.astype(np.int64) // length)


def _check(batch: int, length: int) -> None:
    if batch < 1 or length < 1:
        raise InputError(f"batch is {batch} and length is {length}, expected at least 1 of each")
