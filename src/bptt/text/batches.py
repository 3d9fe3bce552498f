"""Sequences to batches (x, y, mask), time-major: short lines side by side, or one long text in parallel streams."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from bptt.backend import HostArray
from bptt.errors import InputError


class Batch(NamedTuple):
    """T steps of B sequences side by side; `x` and `y` are views of one array, to be read only."""

    x: HostArray  # (T, B) int64 input ids
    y: HostArray  # (T, B) int64 target ids
    mask: HostArray  # (T, B) float64, 1.0 where a target counts, 0.0 in the padding at the end of a column
    start: bool  # True: begins at the initial state; False: goes on from the state after the batch before


def lines(sequences: Sequence[HostArray], batch: int, length: int, rng: np.random.Generator | None) -> Iterator[Batch]:
    """One epoch of sequences (n + 1,) of ids, each once, in batches of at most `batch` with less than 5 % padding.

    Sequences of like length share a batch, in an order that `rng` draws (None: always the same, longest first); a length
    that is rare makes a small batch. A batch of more than `length` steps comes in windows of at most that, the first of
    which starts anew.

    Raises:
        InputError: a batch or length below 1.
    """
    _check(batch, length)
    lengths = np.fromiter(map(_targets, sequences), np.int64, len(sequences))
    order = np.arange(len(sequences)) if rng is None else rng.permutation(len(sequences))
    order = order[np.argsort(-lengths[order], kind="stable")]
    groups = _groups(lengths[order].tolist(), batch)
    for group in range(len(groups)) if rng is None else rng.permutation(len(groups)):
        yield from windows([sequences[i] for i in order[groups[group]]], length)


def stream(sequence: HostArray, batch: int, length: int) -> Iterator[Batch]:
    """One epoch of one sequence (n + 1,) of ids, cut into at most `batch` streams of n targets together.

    A text too short for `batch` streams of `length` targets is cut into fewer. Each window of at most `length` steps goes on
    where the one before ended, and every target counts exactly once.

    Raises:
        InputError: a batch or length below 1.
    """
    _check(batch, length)
    targets = _targets(sequence)
    streams = _streams(targets, batch, length)
    cuts = [targets * b // streams for b in range(streams + 1)]
    yield from windows([sequence[a : b + 1] for a, b in pairwise(cuts)], length)


def lines_count(sequences: Sequence[HostArray], batch: int, length: int) -> int:
    """The number of batches that `lines` gives, whatever its random order."""
    _check(batch, length)
    lengths = sorted(map(_targets, sequences), reverse=True)
    return sum(_windows_count(lengths[group.start], length) for group in _groups(lengths, batch))


def stream_count(sequence: HostArray, batch: int, length: int) -> int:
    """The number of batches that `stream` gives."""
    _check(batch, length)
    targets = _targets(sequence)
    return _windows_count(-(-targets // _streams(targets, batch, length)), length)


def windows(rows: Sequence[HostArray], length: int) -> Iterator[Batch]:
    """Sequences (n_b + 1,) of ids side by side, one column each, in windows of at most `length` steps."""
    targets = np.array([_targets(row) for row in rows])  # (B,)
    for t in range(0, int(targets.max()), length):
        steps = min(length, int(targets.max()) - t)
        ids = np.zeros((steps + 1, len(rows)), np.int64)
        for b, row in enumerate(rows):
            window = row[t : t + steps + 1]
            ids[: len(window), b] = window
        mask = (np.arange(t, t + steps)[:, None] < targets).astype(np.float64)
        yield Batch(ids[:-1], ids[1:], mask, start=t == 0)


def _groups(lengths: list[int], batch: int) -> list[slice]:
    """Slices of lengths sorted downwards, at most `batch` in each, of which less than 5 % is padding up to the longest."""
    groups, first, padding = [], 0, 0
    for i, n in enumerate(lengths):
        padding += lengths[first] - n
        if i - first == batch or (i > first and 20 * padding >= lengths[first] * (i - first + 1)):
            groups.append(slice(first, i))
            first, padding = i, 0
    return [*groups, slice(first, len(lengths))] if lengths else []


def _streams(targets: int, batch: int, length: int) -> int:
    return min(batch, max(1, targets // length))


def _windows_count(targets: int, length: int) -> int:
    return -(-targets // length)


def _targets(sequence: HostArray) -> int:
    return len(sequence) - 1


def _check(batch: int, length: int) -> None:
    if batch < 1 or length < 1:
        raise InputError(f"batch is {batch} and length is {length}, expected at least 1 of each")
