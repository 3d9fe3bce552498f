"""Many sequences in one array of ids, as start positions and lengths."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np

from bptt.backend import HostArray
from bptt.config.settings import Mode
from bptt.data import token_store
from bptt.data.token_store import Tokens
from bptt.data.vocabulary import Vocabulary
from bptt.errors import InputError


@dataclass(frozen=True, eq=False, repr=False)
class Sequences(Sequence[HostArray]):
    """Sequences s of ids (n + 1,), inputs s[:-1] and targets s[1:], each a part of `ids`."""

    ids: HostArray  # (N,)
    starts: HostArray  # (S,) unsigned: place of the first id of each
    lengths: HostArray  # (S,) unsigned: number of targets of each

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, index: int) -> HostArray: ...
    @overload
    def __getitem__(self, index: slice) -> "Sequences": ...
    def __getitem__(self, index: int | slice) -> "HostArray | Sequences":
        if isinstance(index, slice):
            return Sequences(self.ids, self.starts[index], self.lengths[index])
        start = int(self.starts[index])  # a sum of small unsigned types would overflow
        return self.ids[start : start + int(self.lengths[index]) + 1]

    def take(self, which: HostArray) -> "Sequences":
        """Select sequences by position or by a boolean mask."""
        return Sequences(self.ids, self.starts[which], self.lengths[which])


def texts(tokens: Tokens) -> Sequences:
    """Make one sequence of each text that has anything in it."""
    counts = np.array(tokens.parts if len(tokens.parts) > 1 else [len(tokens.ids) - 2])
    sequences = Sequences(tokens.ids[:-1], smallest(np.cumsum(counts) - counts), smallest(counts))
    return sequences.take(counts > 0) if len(counts) > 1 else sequences


def lines(text: Tokens) -> Sequences:
    """Make one sequence of each line or record that is not blank, with the boundary at both ends."""

    def nonblank() -> Iterator[tuple[HostArray, HostArray]]:
        for starts, lengths, full in split_lines(marks(text.ids[1:], text.vocabulary)):
            yield starts[full], lengths[full] + 1

    count = longest = 0
    for _, lengths in nonblank():
        count, longest = count + len(lengths), max(longest, int(lengths.max(initial=0)))
    # the ids are gone through twice, for a list of parts would need their memory twice
    result = Sequences(
        text.ids,
        np.empty(count, np.min_scalar_type(len(text.ids))),
        np.empty(count, np.min_scalar_type(longest)),
    )
    i = 0
    for starts, lengths in nonblank():
        result.starts[i : i + len(starts)] = starts
        result.lengths[i : i + len(starts)] = lengths
        i += len(starts)
    return result


def split(sequences: Sequences, fraction: float, rng: np.random.Generator, mode: Mode) -> tuple[Sequences, Sequences]:
    """Split off a validation set: lines or records that `rng` draws, or in mode "stream" the end of each text.

    Every target is in one part or the other. A share that rounds to no line, or to less than two targets of a text, leaves
    everything to training.

    Raises:
        InputError: a fraction below 0, or of 1 and more.
    """
    if not 0 <= fraction < 1:
        raise InputError(f"held-out fraction is {fraction}, expected at least 0 and less than 1, such as 0.1")
    if mode == "stream":
        starts, targets = (values.astype(np.int64) for values in (sequences.starts, sequences.lengths))
        sizes = np.minimum(np.rint(fraction * targets).astype(np.int64), targets - 1)
        sizes[sizes < 2] = 0
        first = Sequences(sequences.ids, sequences.starts, smallest(targets - sizes))
        ends = Sequences(sequences.ids, smallest(starts + targets - sizes), smallest(sizes))
        return first, ends.take(sizes > 0)
    count = min(round(fraction * len(sequences)), max(0, len(sequences) - 1))
    validation_mask = np.zeros(len(sequences), bool)
    validation_mask[shuffled(len(sequences), rng)[:count]] = True
    return sequences.take(~validation_mask), sequences.take(validation_mask)


def marks(ids: HostArray, vocabulary: Vocabulary) -> Iterator[tuple[HostArray, HostArray]]:
    """Yield two masks of pieces of ids: boundaries, and characters that are not white space."""
    if vocabulary.symbols is None:
        ink = np.array([not bytes([byte]).isspace() for byte in range(256)])
    else:
        ink = np.array([not symbol.isspace() for symbol in vocabulary.symbols])
    ink[vocabulary.start] = False
    for piece in token_store.chunks(ids):
        yield piece == vocabulary.start, ink[piece]


def split_lines(pieces: Iterable[tuple[HostArray, HostArray]]) -> Iterator[tuple[HostArray, HostArray, HostArray]]:
    """Yield start and length (without newline) of each line that ends in a newline, and whether it is not blank.

    The pieces are those of `marks`; a line may run through many of them.
    """
    begin, position, inked = 0, 0, False  # of the line that goes on
    for newline, ink in pieces:
        ends = np.flatnonzero(newline)
        if len(ends):
            firsts = np.concatenate([[0], ends[:-1] + 1])
            full = np.logical_or.reduceat(ink[: ends[-1] + 1], firsts)  # a newline is white space and no ink
            full[0] |= inked
            starts = firsts + position
            starts[0] = begin
            yield starts, ends + position - starts, full
            begin, inked = position + int(ends[-1]) + 1, False
            ink = ink[ends[-1] + 1 :]
        inked = inked or bool(ink.any())
        position += len(newline)


class Ink:
    """Counts the characters of a text that are not white space while it passes through."""

    first = -1  # place of the first one
    last = -1
    words = 0

    def watch(self, pieces: Iterable[tuple[HostArray, HostArray]]) -> Iterator[tuple[HostArray, HostArray]]:
        """Yield the pieces of `marks` unchanged, and count."""
        position, before = 0, False  # characters so far, and whether the last one was ink
        for newline, ink in pieces:
            yield newline, ink
            places = np.flatnonzero(ink)
            if len(places):
                self.first = position + int(places[0]) if self.first < 0 else self.first
                self.last = position + int(places[-1])
            self.words += int(np.count_nonzero(ink[1:] & ~ink[:-1])) + (bool(ink[0]) and not before)
            position, before = position + len(ink), bool(ink[-1])


class Layout(NamedTuple):
    """The lines of a text, without white space before and after it."""

    every: int  # lines
    full: int  # that are not blank
    size: int  # characters in these
    words: int


def measure_lines(pieces: Iterable[tuple[HostArray, HostArray]]) -> Layout:
    """Count the lines of a text, with a newline at its end, from the pieces that `marks` yields."""
    ink = Ink()
    every = full = size = 0
    top = bottom = begin = end = 0  # numbers of the first and the last that are not blank, and where they begin and end
    for starts, lengths, inked in split_lines(ink.watch(pieces)):
        which = np.flatnonzero(inked)
        if len(which):
            if not full:
                top, begin = every + int(which[0]), int(starts[which[0]])
            bottom, end = every + int(which[-1]), int(starts[which[-1]] + lengths[which[-1]])
        every += len(inked)
        full += len(which)
        size += int(lengths[which].sum())
    if not full:
        return Layout(0, 0, 0, 0)
    return Layout(bottom - top + 1, full, size - (ink.first - begin + end - (ink.last + 1)), ink.words)


def shuffled(count: int, rng: np.random.Generator | None) -> HostArray:
    """Return a permutation as `rng.permutation` in the smallest integer type; without `rng` in order."""
    places = np.arange(count, dtype=np.min_scalar_type(count))
    if rng is not None:
        rng.shuffle(places)
    return places


def smallest(numbers: HostArray) -> HostArray:
    """Return numbers in the smallest unsigned type."""
    return numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))
