"""Sequences to batches (x, y, mask), time-major: short lines side by side, or one long text in parallel streams."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np

from bptt.backend import HostArray
from bptt.errors import InputError
from bptt.text import tokens
from bptt.text.sequences import Sequences, shuffled

_READ = 512  # rows after which the pages of a memory map are let go: each can bring half a megabyte into this process


class Batch(NamedTuple):
    """T steps of B sequences side by side; `x` and `y` are views of one array, to be read only."""

    x: HostArray  # (T, B) int64 input ids
    y: HostArray  # (T, B) int64 target ids
    mask: HostArray  # (T, B) float64, 1.0 where a target counts, 0.0 in the padding at the end of a column
    start: bool  # True: begins at the initial state; False: goes on from the state after the batch before


def lines(
    sequences: Sequence[HostArray], batch: int, length: int, rng: np.random.Generator | None, first: int = 0
) -> Iterator[Batch]:
    """One epoch of sequences (n + 1,) of ids, each once, in batches of at most `batch` with less than 5 % padding.

    Sequences of like length share a batch, in an order that `rng` draws (None: always the same, longest first); a length
    that is rare makes a small batch. A batch of more than `length` steps comes in windows of at most that, the first of
    which starts anew. The epoch begins with its batch number `first`; those before cost nothing.

    Raises:
        InputError: a batch or length below 1.
    """
    _check(batch, length)
    lengths = _lengths(sequences)
    order, borders = _order(lengths, rng), _borders(_descending(lengths), batch)
    groups = shuffled(len(borders) - 1, rng)
    skipped = 0
    for piece in tokens.pieces(groups) if first else ():
        ends = np.cumsum(_windows_count(lengths[order[borders[piece]]], length))
        whole = int(np.searchsorted(ends, first, side="right"))  # groups to leave out
        skipped, first = skipped + whole, first - int(ends[whole - 1]) * (whole > 0)
        if whole < len(piece):
            break

    def rows(group: int) -> list[HostArray]:
        return [sequences[i] for i in order[borders[group] : borders[group + 1]].tolist()]

    parts = (windows(rows(int(group)), length, first * (n == 0)) for n, group in enumerate(groups[skipped:]))
    yield from _letting_go(chain.from_iterable(parts), sequences.ids if isinstance(sequences, Sequences) else lengths)


def stream(sequence: HostArray, batch: int, length: int, first: int = 0) -> Iterator[Batch]:
    """One epoch of one sequence (n + 1,) of ids, cut into at most `batch` streams of n targets together.

    A text too short for `batch` streams of `length` targets is cut into fewer. Each window of at most `length` steps goes on
    where the one before ended, and every target counts exactly once. The epoch begins with its batch number `first`.

    Raises:
        InputError: a batch or length below 1.
    """
    _check(batch, length)
    targets = len(sequence) - 1
    streams = _streams(targets, batch, length)
    cuts = [targets * b // streams for b in range(streams + 1)]
    yield from _letting_go(windows([sequence[a : b + 1] for a, b in pairwise(cuts)], length, first), sequence)


def lines_count(sequences: Sequence[HostArray], batch: int, length: int) -> int:
    """The number of batches that `lines` gives, whatever its random order."""
    _check(batch, length)
    descending = _descending(_lengths(sequences))
    firsts = _borders(descending, batch)[:-1]
    return sum(int(_windows_count(descending[piece], length).sum()) for piece in tokens.pieces(firsts))


def lines_width(sequences: Sequence[HostArray], batch: int) -> int:
    """The most sequences that share a batch of `lines`."""
    _check(batch, 1)
    return int(np.diff(_borders(_descending(_lengths(sequences)), batch)).max(initial=0))


def stream_count(sequence: HostArray, batch: int, length: int) -> int:
    """The number of batches that `stream` gives."""
    _check(batch, length)
    targets = len(sequence) - 1
    longest = -(-targets // _streams(targets, batch, length))
    return -(-longest // length)


def windows(rows: Sequence[HostArray], length: int, first: int = 0) -> Iterator[Batch]:
    """Sequences (n_b + 1,) of ids side by side, one column each, in windows of at most `length` steps; `first` are left out."""
    targets = np.array([len(row) - 1 for row in rows])  # (B,)
    for t in range(first * length, int(targets.max()), length):
        steps = min(length, int(targets.max()) - t)
        ids = np.zeros((steps + 1, len(rows)), np.int64)
        for b, row in enumerate(rows):
            window = row[t : t + steps + 1]
            ids[: len(window), b] = window
        mask = (np.arange(t, t + steps)[:, None] < targets).astype(np.float64)
        yield Batch(ids[:-1], ids[1:], mask, start=t == 0)


def _lengths(sequences: Sequence[HostArray]) -> HostArray:
    """The number of targets of each (S,)."""
    if isinstance(sequences, Sequences):
        return sequences.lengths
    return np.fromiter((len(sequence) - 1 for sequence in sequences), np.int64, len(sequences))


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


def _letting_go(batches: Iterable[Batch], ids: HostArray) -> Iterator[Batch]:
    """The batches; the pages of a memory map that they were read from are let go every now and then."""
    rows = 0
    for one in batches:
        yield one
        rows += one.x.shape[1]
        if rows >= _READ:
            tokens.let_go(ids)
            rows = 0


def _streams(targets: int, batch: int, length: int) -> int:
    return min(batch, max(1, targets // length))


def _windows_count(targets: HostArray, length: int) -> HostArray:
    return -(-targets.astype(np.int64) // length)


def _check(batch: int, length: int) -> None:
    if batch < 1 or length < 1:
        raise InputError(f"batch is {batch} and length is {length}, expected at least 1 of each")
