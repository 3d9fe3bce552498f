"""Scores: the negative log-likelihood of each line and of each of its characters, in nats."""

import math
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, AnyStr

import numpy as np

from bptt import acceleration
from bptt.backend import Backend, HostArray
from bptt.config.settings import Mode
from bptt.data import batches, decoding, joining
from bptt.data.batches import WINDOW
from bptt.data.loading import fetch
from bptt.data.sequences import Sequences
from bptt.data.source import DEFAULT_READING, Reading
from bptt.data.vocabulary import NEWLINE, Vocabulary, listed
from bptt.display.cross_entropy import nats_and_bits
from bptt.errors import InputError, UnknownCharacters, option
from bptt.inference import prediction
from bptt.inference.generate import symbol_names
from bptt.inference.prediction import Configs
from bptt.inference.request import Unknown

BATCH = 64  # sequences scored in one batch
LINES_AT_A_TIME = 1024  # lines read and scored at a time
SHOWN = 10  # unknown characters that a message lists
LONGEST_SHOWN = 60  # characters of a line in its repr


@dataclass(frozen=True, repr=False)
class Score:
    """One line by itself, with the nats of each of its characters and, in lines mode, of its end.

    A line may have millions of characters: `symbols` and `each` become lists of objects when they are first used.
    """

    number: int  # of the line, counted from 1
    text: str  # without its end
    ids: "array[int]"  # (n,): what was predicted, as numbers of the vocabulary
    costs: "array[float]"  # (n,): the nats of each, in the type of the model
    names: list[str]  # of the symbols of the vocabulary

    def __repr__(self) -> str:
        """What it is, in one line."""
        shown = self.text if len(self.text) <= LONGEST_SHOWN else f"{self.text[:LONGEST_SHOWN]}..."
        return f"<bptt.Score of line {self.number}: {nats_and_bits(self.nats)}, {self.nats_per_char:.4f} nats each: {shown!r}>"

    @cached_property
    def symbols(self) -> list[str]:
        """What was predicted, the newline at the end included; of a model of bytes, bytes."""
        return [self.names[i] for i in self.ids]

    @cached_property
    def each(self) -> list[float]:
        """The negative log-probability of each symbol, in nats."""
        return self.costs.tolist()

    @property
    def nats(self) -> float:
        """The sum of -log p."""
        return math.fsum(self.costs)

    @property
    def nats_per_char(self) -> float:
        """Mean cross-entropy in nats."""
        return self.nats / len(self.costs)

    def pairs(self) -> Iterator[tuple[str, float]]:
        """Each symbol with its nats, one after the other."""
        return zip(map(self.names.__getitem__, self.ids), self.costs)


def read_lines(source: Any, vocabulary: Vocabulary, reading: Reading = DEFAULT_READING) -> Iterator[str | bytes]:
    """The lines or records of a text that `corpus.read` understands, one after the other, without their ends; bytes as bytes.

    Raises:
        InputError: a text that cannot be read, or is not UTF-8.
    """
    boundary = vocabulary.boundary
    with fetch(source, reading) as texts:
        if vocabulary.symbols is None:
            yield from _split((piece for _, piece in joining.raw(texts, boundary)), boundary.encode())
        else:
            for part in texts.parts:
                decoding.refuse_binary(part)
            yield from _split((piece for _, piece in joining.characters(texts, boundary)), boundary)


def _split(pieces: Iterable[AnyStr], boundary: AnyStr) -> Iterator[AnyStr]:
    begun: list[AnyStr] = []  # the pieces of a line whose end has not come
    for piece in pieces:
        parts = piece.split(boundary)
        begun.append(parts[0])
        if len(parts) > 1:
            yield boundary[:0].join(begun)
            yield from parts[1:-1]
            begun = parts[-1:]
    if rest := boundary[:0].join(begun):
        yield rest


def score_lines(
    config: Configs,
    params: Any,
    backend: Backend,
    vocabulary: Vocabulary,
    mode: Mode,
    lines: Iterable[str | bytes],
    *,
    unknown: Unknown,
    batch_size: int,
) -> Iterator[Score]:
    """The score of each line that is not blank; with `unknown` "skip", without lines that the vocabulary cannot encode.

    The next `batch_size` lines are read when the scores of those before have been taken.
    """
    numbered = enumerate(lines, 1)
    names = symbol_names(vocabulary)
    while batch := list(islice(numbered, batch_size)):
        written = [(number, line) for number, line in batch if not _is_blank(number, line, vocabulary)]
        encodable = _encodable(written, vocabulary, unknown)
        sequences = _sequences([line for _, line in encodable], vocabulary, mode)
        for (number, line), ids, nats in zip(encodable, sequences, token_nats(config, params, backend, sequences)):
            text = line if isinstance(line, str) else line.decode("utf-8", "backslashreplace")
            yield Score(number, text, _compact(ids[1:]), _compact(nats), names)


def _compact(numbers: HostArray) -> "array[Any]":
    """Numbers (n,) as Python has them, in as little memory as NumPy."""
    return array(numbers.dtype.char, numbers.tobytes())


def _is_blank(number: int, line: str | bytes, vocabulary: Vocabulary) -> bool:
    """Whether a line is nothing but white space; an InputError if it is no line."""
    if not isinstance(line, str | bytes) or (isinstance(line, bytes) and vocabulary.symbols is not None):
        raise InputError(f"line {number} is {type(line).__name__}, expected str")
    if vocabulary.boundary.encode() in line if isinstance(line, bytes) else vocabulary.boundary in line:
        unit, end = ("line", "its newline") if vocabulary.boundary == NEWLINE else ("record", "the U+001E at its end")
        raise InputError(f"{unit} {number} is {line!r}, expected one {unit} without {end}")
    return not line.strip()


def _encodable(lines: list[tuple[int, str | bytes]], vocabulary: Vocabulary, unknown: Unknown) -> list[tuple[int, str | bytes]]:
    """The lines without unknown characters; unless `unknown` is "skip", an InputError for the first line with some."""
    missing = set(vocabulary.unknown("".join(line for _, line in lines if isinstance(line, str))))
    if not missing:
        return lines
    if unknown == "skip":
        return [(number, line) for number, line in lines if missing.isdisjoint(line)]
    number, line = next((number, line) for number, line in lines if not missing.isdisjoint(line))
    characters = [character for character in dict.fromkeys(line) if character in missing]
    raise UnknownCharacters(
        f"line {number}: not in the vocabulary: {listed(list(map(str, characters)), SHOWN)}: "
        f"leave such lines out with {option('unknown', 'skip')}; {vocabulary.advice(str(line))}"
    )


def _sequences(lines: list[str | bytes], vocabulary: Vocabulary, mode: Mode) -> Sequences:
    """The ids (n + 1,) of the start symbol and each line, and in lines mode of its end; all are encoded at once."""
    if vocabulary.symbols is None:
        raw = [line.encode("utf-8", "surrogatepass") if isinstance(line, str) else line for line in lines]
        ids = vocabulary.encode(vocabulary.boundary.encode().join([b"", *raw, b""]))
    else:
        ids = vocabulary.encode(vocabulary.boundary.join(["", *map(str, lines), ""]))
    ends = np.flatnonzero(ids == vocabulary.start)
    return Sequences(ids, ends[:-1], np.diff(ends) - (mode == "stream"))


def token_nats(config: Configs, params: Any, backend: Backend, sequences: Sequences) -> list[HostArray]:
    """The nats of every target (n,) of each sequence of ids (n + 1,), n >= 1: -log p, as `evaluation.evaluate` sums them up."""
    read = batches.batch_reader(sequences.ids, backend)
    nats = [np.empty(length, backend.dtype) for length in sequences.lengths.tolist()]
    order = np.argsort(
        -sequences.lengths.astype(np.int64), kind="stable"
    )  # sequences of similar length share a batch: little padding
    for first in range(0, len(order), BATCH):
        group = order[first : first + BATCH]
        states, done = None, 0  # steps so far
        for batch in map(read, batches.windows(sequences.take(group), WINDOW)):
            with acceleration.gpu_kernels(backend):
                each, states = prediction.target_nats(config, params, batch, states)
                columns = backend.get(each)  # (T, W)
            for i, steps, column in zip(group.tolist(), batch.window.lengths.tolist(), columns.T):
                nats[i][done : done + steps] = prediction.check_finite(column[:steps])
            done += batch.window.steps
    return nats
