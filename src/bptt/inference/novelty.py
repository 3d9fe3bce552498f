"""Texts that a model writes and that its training text, or another one, does not contain."""

import os
from collections.abc import Callable, Collection
from typing import Any

from bptt.config.settings import Mode
from bptt.data import corpus, source
from bptt.data.corpus import Corpus
from bptt.data.source import Reading
from bptt.data.vocabulary import Vocabulary
from bptt.errors import CheckpointWarning, InputError, is_command_line, option, warn


def training_text(record: dict[str, Any], vocabulary: Vocabulary, mode: Mode) -> Callable[[list[str]], Collection[str]]:
    """Return a function that finds the texts that are not novel: blank ones, and those in the training text of a record.

    Raises:
        InputError: the record names no training text, or one that cannot be read.
    """
    files, other = source.recorded_texts(record), "--text" if is_command_line() else option("novel", "FILE")
    if files is None:
        raise InputError(
            f"{option('novel')}: the training text was no file, and the model does not keep it: name a text with {other}"
        )
    try:
        reading = source.recorded_reading(record, mode)
        settings = record.get("settings")
        skips = isinstance(settings, dict) and settings.get("new_symbols") == "skip"
        text = corpus.read(files, vocabulary, reading._replace(unknown="skip") if skips else reading)
    except InputError as error:
        raise InputError(
            f"{option('novel')} needs the training text: {error}; with {other} another file takes its place"
        ) from None
    if text.sha256 != record.get("sha256", text.sha256):
        warn(f"{text.shown} is not what it was when the model was trained", CheckpointWarning)
    return _known(text, mode)


def text(file: str | os.PathLike[str], vocabulary: Vocabulary, reading: Reading) -> Callable[[list[str]], Collection[str]]:
    """Return a function that finds the texts that are not novel: blank ones, and those in a text that a user names.

    The text may have characters that the model does not know.

    Raises:
        InputError: a text that cannot be read.
    """
    return _known(corpus.read(file, vocabulary.kind, reading), reading.mode or "stream")


def _known(text: Corpus, mode: Mode) -> Callable[[list[str]], Collection[str]]:
    return lambda texts: text.contains(texts, mode) | {blank for blank in texts if not blank.strip()}
