"""Texts for the commands of a saved model: their names on the command line, their decoding, and how they are printed."""

from typing import Any

from bptt.config import rules
from bptt.data import file_lists
from bptt.data.source import Names, Reading, recorded_reading
from bptt.errors import InputError
from bptt.inference.language_model import LanguageModel

ESCAPES = str.maketrans({"\n": "\\n", "\t": "\\t"})


def as_source(words: tuple[str, ...], pattern: str) -> Any:
    """What `corpus.read` takes for the words of a command line; a warning says if no folder is there for a pattern."""
    file_lists.warn_of_unused_pattern(words, pattern)
    return words[0] if len(words) == 1 else Names(words)


def reading_for(model: LanguageModel, encoding: str | None, separator: str | None, pattern: str) -> Reading:
    """How to read a text for a model: as its training text, unless the flags say something else."""
    reading = recorded_reading(model.record, model.mode)._replace(pattern=rules.check_text("--glob", pattern))
    if encoding is not None:
        reading = reading._replace(encoding=rules.check_encoding("--encoding", encoding))
        if model.vocabulary.symbols is None and reading.encoding != "utf-8":
            raise InputError(f"--encoding {encoding}: a model of bytes decodes nothing: leave it out")
    if separator is not None:
        if model.mode != "records":
            raise InputError(f"--separator {separator!r} only works with a model of records, not with mode {model.mode}")
        reading = reading._replace(separator=rules.check_text("--separator", separator))
    return reading


def runs_and_texts(words: list[str], text: str | None) -> tuple[list[str], tuple[str, ...]]:
    """The runs and the texts that the words of `bptt evaluate` name: without --text, all but the first are texts."""
    if text is not None:
        return words, (text,)
    if len(words) == 1 or any(file_lists.is_run_or_model(word) for word in words[1:]):
        raise InputError(f"{' '.join(words)}: expected RUN TEXT, RUN and several texts, or several runs and --text TEXT")
    return words[:1], tuple(words[1:])


def in_one_field(text: str) -> str:
    r"""A text as a field between tabs: \n for a newline, \t for a tab."""
    return text.translate(ESCAPES)
