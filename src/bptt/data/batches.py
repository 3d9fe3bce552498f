"""Batches (x, y, mask), time-major: short lines side by side, or one long text in parallel streams.

Where a batch is in the text is decided on the host; its arrays are made where the ids are, on the device if they fit.
"""

import functools
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from bptt.backend import Array, Backend, HostArray, namespace, select
from bptt.data import token_store
from bptt.data.sequences import Sequences, shuffled
from bptt.errors import InputError

WINDOW = 256  # steps evaluated at a time: bounds the memory, does not change the numbers
GROUPED_AT_A_TIME = 1 << 16  # sequences of which the places are computed at a time


class Window(NamedTuple):
    """T steps of B columns, as positions in the ids."""

    columns: HostArray  # (2, B) int64: where the first input of each is, and the last target of its sequence, perhaps passed
    steps: int  # T
    targets: int  # that count
    start: bool  # True: begins at the initial state; False: goes on from the state after the window before

    @property
    def full(self) -> bool:
        """Whether no column has padding."""
        return bool(self.targets == self.steps * self.columns.shape[1])

    @property
    def lengths(self) -> HostArray:
        """The steps (B,) of each column before its padding."""
        left = self.columns[1] - self.columns[0]
        steps: HostArray = np.minimum(np.maximum(left, 0), self.steps)  # np.clip takes 10 µs
        return steps


class Batch(NamedTuple):
    """The arrays of a window on the device; `x` and `y` are read-only views of one array."""

    x: Array  # (T, B) int64 input ids, 0 in the padding
    y: Array  # (T, B) int64 target ids, 0 in the padding
    mask: Array  # (T, B) 1.0 where a target counts, 0.0 in the padding at the end of a column
    window: Window


def ids_on_device(ids: HostArray, backend: Backend) -> Array | None:
    """Copy the ids (N,) to the device for a whole run; None for NumPy, and if they do not fit."""
    small = np.dtype(np.uint8 if ids.itemsize == 1 else np.int32)  # types in which every library can gather
    if backend.is_host or len(ids) * small.itemsize > backend.text_capacity():
        return None
    return backend.xp.concat([backend.put(piece, small.name) for piece in token_store.chunks(ids)])


def batch_reader(ids: HostArray, backend: Backend, on_device: Array | None = None) -> Callable[[Window], Batch]:
    """Return a function that makes the batch of a window of ids (N,); `on_device` is the result of `ids_on_device`."""
    put, near, xp = backend.put, _near(ids), backend.xp

    @functools.lru_cache(32)
    def template(steps: int, width: int) -> tuple[Array, Array]:
        ramp = xp.arange(steps + 1, dtype=xp.int64, device=backend.device)[:, None]
        return ramp, xp.ones((steps, width), dtype=getattr(xp, backend.dtype), device=backend.device)

    def batch(ids: Array, columns: Array, window: Window) -> Batch:
        ramp, ones = template(window.steps, columns.shape[1])
        return Batch(*gather(ids, columns, ramp, ones, window.full), window)

    if backend.is_host:
        return lambda window: batch(*near(window), window)
    there = ids_on_device(ids, backend) if on_device is None else on_device
    if there is not None:
        return lambda window: batch(there, put(window.columns), window)

    on_host = batch_reader(ids, select("numpy", backend.dtype))

    def transferred(window: Window) -> Batch:
        x, y, mask, _ = on_host(window)
        return Batch(put(x), put(y), put(mask), window)

    return transferred


def gather(ids: Array, columns: Array, ramp: Array, ones: Array, full: bool) -> tuple[Array, Array, Array]:
    """Return inputs, targets and mask (T, B) of the columns (2, B) of a window, from ids (N,) on the same device.

    `ramp` (T+1, 1) counts from 0; `ones` (T, B) is the mask of a window without padding, a `full` one.
    """
    xp = namespace(ids)
    places = columns[0, :] + ramp  # (T+1, B)
    if full:
        tokens = xp.astype(ids[places], xp.int64)
        return tokens[:-1, :], tokens[1:, :], ones
    inside, last = places <= columns[1, :], xp.minimum(places, columns[1, :])
    tokens = ids[last]  # `take` would want them in one row: a small batch would take a fifth longer
    tokens = xp.where(inside, xp.astype(tokens, xp.int64), 0)
    return tokens[:-1, :], tokens[1:, :], xp.where(inside[1:, :], ones, 0.0)


def lines(sequences: Sequences, batch: int, length: int, rng: np.random.Generator | None, first: int = 0) -> Iterator[Window]:
    """Yield one epoch of sequences, each once, in batches of at most `batch` and of nearly equal size.

    `rng` draws the order of all sequences, so that lengths mix as they do in the text: a batch of one length is another text.
    Without it the longest come first, with next to no padding. Within a batch the longest is the first column. A batch of
    more than `length` steps comes in windows of at most that, the first of which starts anew. The epoch begins with its
    window number `first`; those before cost nothing.

    Raises:
        InputError: a batch or length below 1.
    """
    _check(batch, length)
    order, borders = _order(sequences.lengths, rng), _borders(len(sequences), batch)
    group = 0
    if first:
        ends = np.cumsum(_windows_count(sequences.lengths[order], borders, length))
        group = int(np.searchsorted(ends, first, side="right"))  # groups to leave out
        first -= int(ends[group - 1]) if group else 0
    per_block = max(1, GROUPED_AT_A_TIME // batch)
    for block in range(group, len(borders) - 1, per_block):
        edges = borders[block : block + per_block + 1]
        places, edges = order[edges[0] : edges[-1]], edges - edges[0]
        groups = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
        descending = np.lexsort((~sequences.lengths[places], groups))  # ~ turns the order of unsigned numbers around
        columns = _columns(sequences.take(places[descending]))
        targets = columns[1] - columns[0]
        longests, totals = targets[edges[:-1]].tolist(), np.add.reduceat(targets, edges[:-1]).tolist()
        for longest, total, (begin, end) in zip(longests, totals, pairwise(edges.tolist())):
            if 0 < longest <= length:  # nearly all of them
                yield Window(columns[:, begin:end], longest, total, True)
            else:
                yield from _windows(columns[:, begin:end], length, first)
            first = 0


def stream(
    texts: Sequences, batch: int, length: int, rng: np.random.Generator | None = None, first: int = 0
) -> Iterator[Window]:
    """Yield one epoch of texts that are split into at most `batch` parallel streams.

    Texts too short for `batch` streams of `length` targets are cut into fewer. Each window of at most `length` steps goes on
    where the one before ended, and every target counts exactly once. A stream is of one text. Where there are more of them
    than `batch`, those of about one length are side by side, and `rng` draws the order of these groups. The epoch begins
    with its window number `first`.

    Raises:
        InputError: a batch or length below 1.
    """
    _check(batch, length)
    columns = _stream_columns(texts, batch, length)
    borders = _borders(columns.shape[1], batch)
    counts = _windows_count(columns[1] - columns[0], borders, length).tolist()
    for group in shuffled(len(counts), rng).tolist():
        if first < counts[group]:
            yield from _windows(columns[:, borders[group] : borders[group + 1]], length, first)
        first = max(0, first - counts[group])


def lines_count(sequences: Sequences, batch: int, length: int, rng: np.random.Generator | None) -> int:
    """The number of windows that `lines` yields."""
    _check(batch, length)
    lengths, borders = sequences.lengths, _borders(len(sequences), batch)
    if len(lengths) and lengths.min() > 0 and lengths.max() <= length:
        return len(borders) - 1
    return int(_windows_count(lengths[_order(lengths, rng)], borders, length).sum())


def stream_count(texts: Sequences, batch: int, length: int) -> int:
    """The number of windows that `stream` yields."""
    _check(batch, length)
    columns = _stream_columns(texts, batch, length)
    return int(_windows_count(columns[1] - columns[0], _borders(columns.shape[1], batch), length).sum())


def stream_width(texts: Sequences, batch: int, length: int) -> int:
    """The largest number of streams side by side that `stream` yields."""
    return int(np.diff(_borders(_stream_columns(texts, batch, length).shape[1], batch)).max())


def windows(sequences: Sequences, length: int, first: int = 0) -> Iterator[Window]:
    """Yield windows of at most `length` steps over sequences side by side, one column each, from number `first` on."""
    return _windows(_columns(sequences), length, first)


def _windows(columns: HostArray, length: int, first: int) -> Iterator[Window]:
    starts, ends = columns
    targets = ends - starts
    longest = int(targets.max())
    before = int(np.minimum(targets, first * length).sum()) if first else 0
    for t in range(first * length, longest, length):
        until = int(np.minimum(targets, t + length).sum())
        yield Window(np.array((starts + t, ends)), min(length, longest - t), until - before, t == 0)
        before = until


def _near(ids: HostArray) -> Callable[[Window], tuple[HostArray, HostArray]]:
    """Return a function that loads the ids of a window into memory, and its columns (2, B) relative to them."""
    if not token_store.is_map(ids):
        return lambda window: (ids, window.columns)
    read = token_store.reader(ids)

    def brought(window: Window) -> tuple[HostArray, HostArray]:
        begins = window.columns.min(axis=0)  # of a column that is over, its end
        counts = np.minimum(window.columns[1] - begins, window.steps) + 1
        parts = [read(begin, begin + count) for begin, count in zip(begins.tolist(), counts.tolist())]
        return np.concatenate(parts), window.columns - begins + np.cumsum(counts) - counts

    return brought


def _columns(sequences: Sequences) -> HostArray:
    """The positions of the first input and the last target of each sequence, (2, S) int64."""
    starts = sequences.starts.astype(np.int64)
    return np.array((starts, starts + sequences.lengths.astype(np.int64)))


def _borders(count: int, batch: int) -> HostArray:
    """The borders of equal groups of at most `batch` sequences, the end of the last group included."""
    groups = -(-count // batch)
    return np.arange(groups + 1) * count // max(1, groups)


def _order(lengths: HostArray, rng: np.random.Generator | None) -> HostArray:
    """A permutation of the sequences: random with `rng`, else from the longest to the shortest."""
    if rng is not None:
        return shuffled(len(lengths), rng)
    return np.argsort(~lengths, kind="stable").astype(np.min_scalar_type(len(lengths)))


def _stream_columns(texts: Sequences, batch: int, length: int) -> HostArray:
    """The positions of the first input and the last target of each stream, (2, S) int64: in order, or the longest first.

    Each text is cut into as many equal streams as its share of all targets.
    """
    starts, targets = texts.starts.astype(np.int64), texts.lengths.astype(np.int64)
    streams = min(batch, max(1, int(targets.sum()) // length))
    counts = np.maximum(1, targets * streams // max(1, int(targets.sum())))  # of the streams of each text
    which = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)  # of a stream in its text
    begins, ends = (starts[which] + targets[which] * k // counts[which] for k in (number, number + 1))
    if len(which) > batch:
        order = np.argsort(begins - ends, kind="stable")
        begins, ends = begins[order], ends[order]
    return np.array((begins, ends))


def _windows_count(lengths: HostArray, borders: HostArray, length: int) -> HostArray:
    """The number of windows of each group of lengths; a group without targets has none."""
    if not len(lengths):
        return np.zeros(0, np.int64)
    longest = np.maximum.reduceat(lengths, borders[:-1]).astype(np.int64)
    return -(-longest // length)


def _check(batch: int, length: int) -> None:
    if batch < 1 or length < 1:
        raise InputError(f"batch is {batch} and length is {length}, expected at least 1 of each")
