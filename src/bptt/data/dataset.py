"""The dataset of a training run: vocabulary, training and validation sequences, and the order of its batches."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bptt.config.settings import Mode, Settings
from bptt.data import batches, corpus, duplicates
from bptt.data.batches import WINDOW, Window
from bptt.data.sequences import Sequences
from bptt.data.vocabulary import Vocabulary
from bptt.files import FileReference

VALIDATION_LINES = 64  # measured side by side
VALIDATION_STREAMS = 16  # that a stream is cut into to be measured
MAX_VALIDATION = 100_000  # characters by default: ten evaluations of them take some seconds


class Dataset(NamedTuple):
    """Sequences of ids (n + 1,) for training and validation."""

    name: str
    source: str  # what finds the text again, empty where it was given in Python
    sha256: str  # of the whole text and its vocabulary
    vocabulary: Vocabulary
    mode: Mode
    training: Sequences
    validation: Sequences
    validation_file: str = ""  # absolute path of the validation set, empty where it is a part of the text
    validation_sha256: str = ""  # of that file and the vocabulary
    size: int | None = None  # bytes of the file of the text
    validation_size: int | None = None  # bytes of that of the validation set


class Position(NamedTuple):
    """The position of a batch in an endless series of epochs."""

    epoch: int
    batch: int


def prepare(
    text: Any,
    settings: Settings,
    rng: np.random.Generator,
    vocabulary: Vocabulary | None = None,
    validation: FileReference | None = None,
) -> Dataset:
    """Read a source (see `corpus.read`) and split it by `rng`, or read the validation set; an existing vocabulary is kept.

    `validation` replaces the file of the validation set in the settings.

    Raises:
        InputError: the text or the validation set cannot be read, has nothing to learn from, or has symbols that the
            vocabulary does not have.
    """
    source = corpus.read(text, vocabulary or settings.vocabulary)
    corpus.check_learnable(source)
    mode = settings.mode or corpus.choose_mode(source)
    sequences = corpus.sequences(source, mode)
    facts = (source.name, source.source, source.sha256, source.vocabulary, mode)
    if isinstance(settings.validation, Path):
        file = corpus.read_validation_file(validation or settings.validation, source.vocabulary)
        parts = sequences, corpus.sequences(file, mode)
        return Dataset(*facts, *parts, file.source, file.sha256, size=source.size, validation_size=file.size)
    share = validation_share(settings, count_targets(sequences))
    if mode == "lines" and len(sequences) == 1:  # part of a line is not a line
        share = 0.0
    if mode == "lines" and settings.duplicates == "together":
        return Dataset(*facts, *duplicates.split_together(sequences, source.vocabulary, share, rng), size=source.size)
    return Dataset(*facts, *corpus.split(sequences, share, rng), size=source.size)


def validation_share(settings: Settings, targets: int) -> float:
    """The share of the targets of a text that is held out for validation; 0 where the validation set is a file."""
    if isinstance(settings.validation, Path):
        return 0.0
    return min(0.1, MAX_VALIDATION / targets) if settings.validation is None else settings.validation


def make_rng(seed: int, *use: int) -> np.random.Generator:
    """Return a random generator for one purpose: 0 validation split, 1 weights, 2 and epoch: order, 3 and step: dropout."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=use))


def count_targets(sequences: Sequences) -> int:
    """The number of characters to predict; in lines the end of each line counts."""
    return int(sequences.lengths.sum(dtype=np.int64))


def count_shared_lines(data: Dataset) -> int:
    """The number of validation lines that are also in the training text; 0 in mode "stream"."""
    return duplicates.count_shared(data.validation, data.training, data.vocabulary) if data.mode == "lines" else 0


def count_text_targets(data: Dataset) -> int:
    """The number of characters to predict in the text, those that are held out of it included."""
    return count_targets(data.training) + (0 if data.validation_file else count_targets(data.validation))


def contained(data: Dataset, texts: Iterable[str]) -> set[str]:
    """Return the texts that are lines of the dataset, held out or not, or substrings of it in mode "stream"."""
    return corpus.contained(data.training.ids, data.vocabulary, data.mode, texts)


def max_columns(data: Dataset, batch: int, length: int) -> int:
    """The number of sequences in a batch: `batch`, or fewer if the text is too short."""
    return min(batch, max(1, len(data.training) if data.mode == "lines" else count_targets(data.training) // length))


def batches_in_epoch(data: Dataset, batch: int, length: int, seed: int, epoch: int = 0) -> int:
    """The number of batches in one epoch of the training set."""
    if data.mode == "lines":
        return batches.lines_count(data.training, batch, length, make_rng(seed, 2, epoch))
    return batches.stream_count(data.training, batch, length)


def epochs(
    data: Dataset, batch: int, length: int, seed: int, position: Position = Position(0, 0)
) -> Iterator[tuple[Position, Window]]:
    """Yield the windows of all batches from a position on, epoch after epoch, without end.

    With each comes the position of the batch after it. The lines of an epoch are in an order that only the seed and the
    number of the epoch decide, so that a position is all it takes to go on.
    """
    epoch, first = position
    while True:
        count = batches_in_epoch(data, batch, length, seed, epoch)
        if data.mode == "lines":
            rng = make_rng(seed, 2, epoch)
            part = batches.lines(data.training, batch, length, rng, first)
        else:
            part = batches.stream(data.training, batch, length, first)
        for after, window in enumerate(part, first + 1):
            yield Position(epoch, after) if after < count else Position(epoch + 1, 0), window
        epoch, first = epoch + 1, 0


def validation_windows(data: Dataset) -> Iterator[Window]:
    """Yield the windows of the validation set; a stream is split into 16, which is faster and costs 15 restarts."""
    if data.mode == "lines":
        return batches.lines(data.validation, VALIDATION_LINES, WINDOW, None)
    return batches.stream(data.validation, VALIDATION_STREAMS, WINDOW)
