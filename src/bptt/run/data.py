"""A text made ready for a training run: its vocabulary, its sequences, a share of them held out."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from bptt.backend import HostArray
from bptt.run.evaluation import WINDOW
from bptt.run.settings import Settings
from bptt.text import batches, corpus, vocabulary
from bptt.text.batches import Batch
from bptt.text.vocabulary import Vocabulary

MOST_HELD_OUT = 100_000  # characters, where the share is not given: measuring them ten times takes some seconds


class Data(NamedTuple):
    """Sequences of ids (n + 1,), to learn from and to measure on."""

    name: str
    vocabulary: Vocabulary
    mode: corpus.Mode
    training: list[HostArray]
    held_out: list[HostArray]


def prepare(text: Any, settings: Settings, rng: np.random.Generator) -> Data:
    """The text of a source that `corpus.read` understands, split by `rng`."""
    source = corpus.read(text, settings.vocabulary)
    corpus.check_learnable(source)
    mode = settings.mode or corpus.choose_mode(source.text)
    symbols = vocabulary.characters(source.text) if isinstance(source.text, str) else vocabulary.BYTES
    sequences = corpus.sequences(source.text, symbols, mode)
    share = settings.validation
    if share is None:
        share = min(0.1, MOST_HELD_OUT / targets(sequences))
    if mode == "lines" and len(sequences) == 1:  # part of a line is not a line
        share = 0.0
    return Data(source.name, symbols, mode, *corpus.split(sequences, share, rng))


def targets(sequences: list[HostArray]) -> int:
    """The number of characters to predict: those of a stream, or those and the end of each line."""
    return sum(len(sequence) - 1 for sequence in sequences)


def lines(data: Data) -> frozenset[str]:
    """Every line of the text, held out or not."""
    return frozenset(data.vocabulary.decode(sequence[1:-1]) for sequence in data.training + data.held_out)


def widest(data: Data, batch: int, length: int) -> int:
    """How many sequences a batch can hold: `batch`, or fewer where the text is too short for so many."""
    return min(batch, len(data.training) if data.mode == "lines" else max(1, targets(data.training) // length))


def batches_in_epoch(data: Data, batch: int, length: int) -> int:
    """The number of batches of one pass over the training part."""
    if data.mode == "lines":
        return batches.lines_count(data.training, batch, length)
    return batches.stream_count(data.training[0], batch, length)


def epochs(data: Data, batch: int, length: int, rng: np.random.Generator) -> Iterator[Batch]:
    """The batches of one pass over the training part after the other, for ever."""
    while True:
        if data.mode == "lines":
            yield from batches.lines(data.training, batch, length, rng)
        else:
            yield from batches.stream(data.training[0], batch, length)


def held_out_batches(data: Data) -> Iterator[Batch]:
    """The held-out part; a stream is cut into 16, which costs 15 beginnings and saves most of the time."""
    if data.mode == "lines":
        return batches.lines(data.held_out, 64, WINDOW, None)
    return batches.stream(data.held_out[0], 16, WINDOW)
