"""The dataset of a training run: vocabulary, training and validation sequences, and the order of its batches."""

import contextlib
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bptt.config.settings import Mode, NewSymbols, Settings
from bptt.data import batches, corpus, duplicates, file_lists, token_store
from bptt.data.batches import WINDOW, Window
from bptt.data.corpus import Corpus
from bptt.data.sequences import Sequences, split
from bptt.data.source import Names, Reading
from bptt.data.vocabulary import RECORD, Vocabulary
from bptt.errors import InputError, option
from bptt.files import FileReference

VALIDATION_LINES = 64  # measured side by side
VALIDATION_STREAMS = 16  # that a stream is cut into to be measured
HEAD = 1 << 14  # characters in which lines are looked for that a stream may consist of
LONG_LINES = 10  # that are enough to notice
MAX_VALIDATION = 100_000  # characters by default: ten evaluations of them take some seconds


class Dataset(NamedTuple):
    """Sequences of ids (n + 1,) for training and validation."""

    name: str
    source: str | list[str]  # what finds the text, or each of several, again; empty where it was given in Python
    sha256: str  # of the whole text and its vocabulary
    vocabulary: Vocabulary
    mode: Mode
    training: Sequences
    validation: Sequences
    validation_file: str = ""  # absolute path of the validation set, or of its folder; empty where it is a part of the text
    validation_sha256: str = ""  # of that file and the vocabulary
    size: int | None = None  # bytes of the file of the text, where it is one alone
    validation_size: int | None = None  # bytes of that of the validation set
    validation_unpacked: int | None = None  # bytes of what it holds, where it is compressed
    validation_places: list[str] | None = None  # the paths of the validation set, where it is several files
    validation_files: dict[str, list[Any]] | None = None  # of these files, as in `corpus.Corpus`
    num_files: int = 1  # that have anything in them
    left_out: int = 0  # files of the validation set in the folder of the texts
    files: dict[str, list[Any]] | None = None  # of the texts, as in `corpus.Corpus`
    skipped: tuple[tuple[str, Counter[str]], ...] = ()  # what a file is called, and how often characters were left out of it


class Position(NamedTuple):
    """The position of a batch in an endless series of epochs."""

    epoch: int
    batch: int


def prepare(
    text: Any,
    settings: Settings,
    rng: np.random.Generator,
    vocabulary: Vocabulary | None = None,
    validation: tuple[FileReference, ...] | None = None,
    *,
    fine_tuning: bool = False,
) -> Dataset:
    """Read a source (see `corpus.read`) and split it by `rng`, or read the validation set; an existing vocabulary is kept.

    `validation` replaces the files of the validation set in the settings. Only a new run (`fine_tuning`) adds symbols to an
    existing vocabulary, those of the text alone.

    Raises:
        InputError: the text or the validation set cannot be read, has nothing to learn from, or has symbols that the
            vocabulary does not have.
    """
    skip: NewSymbols | None = "skip" if settings.new_symbols == "skip" else None
    reading = Reading(settings.encoding, settings.glob, settings.separator, settings.mode, skip)
    of_text = reading._replace(unknown=settings.new_symbols) if fine_tuning else reading
    of_text = of_text._replace(without=_validation_paths(settings))
    source = corpus.read(text, vocabulary or settings.vocabulary, of_text)
    corpus.check_learnable(source)
    if vocabulary is None or fine_tuning:
        _check_records(text, source, settings)
        file_lists.warn_of_unused_pattern([*getattr(text, "names", [text]), settings.validation], settings.glob)
    records: Mode | None = "records" if source.vocabulary.boundary == RECORD else None
    mode = settings.mode or records or source.mode or corpus.choose_mode(source)
    parts = corpus.sequences(source, mode)
    data = Dataset(
        source.name,
        source.source,
        source.sha256,
        source.vocabulary,
        mode,
        parts,
        parts[:0],
        size=source.size,
        num_files=sum(size > 0 for size in source.tokens.parts)
        if isinstance(source.source, list) or source.source == "-"
        else 1,
        left_out=source.left_out,
        files=source.files,
        skipped=((source.shown, source.skipped),),
    )
    if isinstance(settings.validation, Path):
        file = corpus.read_validation_set(validation or settings.validation, source.vocabulary, reading._replace(mode=mode))
        places = file.source if isinstance(file.source, list) else None
        return data._replace(
            validation=corpus.sequences(file, mode),
            validation_file=os.path.abspath(settings.validation) if places else str(file.source),
            validation_sha256=file.sha256,
            validation_size=file.size,
            validation_unpacked=file.files["unpacked"][0] if file.files and not places else None,
            validation_places=places,
            validation_files=file.files if places else None,
            skipped=(*data.skipped, (file.shown, file.skipped)),
        )
    share = validation_share(settings, count_targets(parts))
    if mode != "stream" and len(parts) == 1:  # part of a line is not a line
        share = 0.0
    if mode != "stream" and settings.duplicates == "together":
        training, validation_part = duplicates.split_together(parts, source.vocabulary, share, rng)
    else:
        training, validation_part = split(parts, share, rng, mode)
    return data._replace(training=training, validation=validation_part)


def _check_records(text: Any, source: Corpus, settings: Settings) -> None:
    """Raise an InputError if a text of a new run is a single record, because nothing separates its records.

    Several texts are a record each; with the separator of a model to start from they need not hold it.
    """
    several = len(source.tokens.parts) > 1 or not isinstance(text, str | bytes | os.PathLike | Names)
    if settings.separator is not None and not (several and settings.from_):
        check_separated(source, settings.separator)
    elif settings.mode == "records" and not several:
        problem = f"{option('mode', 'records')}: all of {source.shown} is one record"
        raise InputError(f"{problem}: give what stands between two records, as in {_example()}")


def _example() -> str:
    return rf"{option('separator')}='\n---\n'"


def check_separated(source: Corpus, separator: str) -> None:
    """Raise an InputError if a text that is to be learnt does not have the separator of its records."""
    vocabulary = source.vocabulary
    ends = sum(int(np.count_nonzero(piece == vocabulary.start)) for piece in token_store.chunks(source.ids[1:]))
    if ends < len(source.tokens.parts):  # of several texts, all but the last one end a record
        problem = f"{option('separator')}={separator!r}: {source.shown} does not hold it"
        as_bytes = vocabulary.symbols is None  # characters have the same newline in all texts
        if as_bytes and "\n" in separator and any(b"\r\n" in piece.tobytes() for piece in token_store.chunks(source.ids)):
            remedy = separator.replace("\r", "").replace("\n", "\r\n")
            raise InputError(f"{problem}: the newlines of this text are \\r\\n: give {option('separator')}={remedy!r}")
        raise InputError(f"{problem}: expected what stands between two records, as in {_example()}")


def _validation_paths(settings: Settings) -> frozenset[str]:
    """The real paths of the validation set, which are no training texts where they lie in a folder of them."""
    place = settings.validation
    if not isinstance(place, Path):
        return frozenset()
    with contextlib.suppress(InputError, ValueError):  # which comes when the validation set is read; ValueError: a NUL in it
        return frozenset(map(os.path.realpath, file_lists.expand(str(place), settings.glob) or [str(place)]))
    return frozenset()


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
    return duplicates.count_shared(data.validation, data.training, data.vocabulary) if data.mode != "stream" else 0


def count_text_targets(data: Dataset) -> int:
    """The number of characters to predict in the text, those that are held out of it included."""
    return count_targets(data.training) + (0 if data.validation_file else count_targets(data.validation))


def contained(data: Dataset, texts: Iterable[str]) -> set[str]:
    """Return the texts that are lines or records of the dataset, held out or not, or in mode "stream" substrings of it."""
    return corpus.contained(data.training.ids, data.vocabulary, data.mode, texts)


def may_be_lines(data: Dataset) -> bool:
    """Whether a stream may be JSON Lines, or other long lines that stand each for itself; its beginning is looked at."""
    if data.mode != "stream":
        return False
    lines = data.vocabulary.decode(data.training.ids[1:HEAD]).split("\n")[:-1]  # all of which are whole
    full = [line for line in lines if line.strip()]
    place = data.source if isinstance(data.source, str) else data.source[0]
    is_json = place.endswith((".jsonl", ".ndjson")) or (bool(full) and all(map(_is_json, full)))
    return is_json or (len(lines) >= LONG_LINES and full == lines and sum(map(len, lines)) > 40 * len(lines))


def mode_hint(data: Dataset) -> str:
    """How else a text could be read whose mode was chosen, where that is likely; empty otherwise."""
    hints = {"\n>": "lines that begin with >", "\n\n": "blank lines inside"}
    if separator := separator_hint(data):
        return f"mode   {hints[separator]}: {option('separator')}={separator!r} makes each part a record"
    if may_be_lines(data):
        return f"mode   read as one stream of text; {option('mode', 'lines')} makes each line a text of its own"
    return ""


def separator_hint(data: Dataset) -> str:
    """The separator of the records that a text of lines or a stream may consist of; empty for none.

    The beginning of the text is looked at. Records of FASTA begin with >. Others, such as poems and tunes, have blank lines
    between them, two lines or more each, and short lines. Prose has longer lines, code is indented or has lines that only code
    has, and in a play most parts begin with a name and a colon.
    """
    if data.mode == "records":
        return ""
    head = data.vocabulary.decode(data.training.ids[1:HEAD]).rpartition("\n")[0].strip("\n")
    lines = head.split("\n")
    names = [i for i, line in enumerate(lines) if line.startswith(">") and not line.startswith(("> ", ">>"))]
    if names[:1] == [0] and len(names) > 1 and all(b - a > 1 for a, b in itertools.pairwise([*names, len(lines)])):
        return "\n>"
    parts = [part.split("\n") for part in re.split(r"\n(?:[ \t]*\n)+", head)]
    full = [line for part in parts for line in part]
    if data.mode != "stream" or len(parts) < 3 or min(map(len, parts[:-1])) < 2 or sum(map(len, full)) > 45 * len(full):
        return ""
    code = sum(line.startswith((" ", "\t", "#", "/", "*")) or line.endswith(("{", "}", ");")) for line in full)
    speakers = sum(part[0].endswith(":") for part in parts)
    return "\n\n" if code <= 0.1 * len(full) and speakers <= 0.5 * len(parts) else ""


def _is_json(line: str) -> bool:
    """Whether a line is an object or a list of JSON."""
    try:
        return isinstance(json.loads(line), dict | list)
    except (ValueError, RecursionError):
        return False


def max_columns(data: Dataset, batch: int, length: int) -> int:
    """The number of sequences in a batch: `batch`, or fewer if the text is too short."""
    if data.mode == "stream":
        return batches.stream_width(data.training, batch, length)
    return min(batch, max(1, len(data.training)))


def batches_in_epoch(data: Dataset, batch: int, length: int, seed: int, epoch: int = 0) -> int:
    """The number of batches in one epoch of the training set."""
    if data.mode != "stream":
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
        rng = make_rng(seed, 2, epoch)
        make = batches.stream if data.mode == "stream" else batches.lines
        part = make(data.training, batch, length, rng, first)
        for after, window in enumerate(part, first + 1):
            yield Position(epoch, after) if after < count else Position(epoch + 1, 0), window
        epoch, first = epoch + 1, 0


def validation_windows(data: Dataset) -> Iterator[Window]:
    """Yield the windows of the validation set; streams are split into 16, which is faster and costs 15 restarts."""
    if data.mode != "stream":
        return batches.lines(data.validation, VALIDATION_LINES, WINDOW, None)
    return batches.stream(data.validation, VALIDATION_STREAMS, WINDOW)
