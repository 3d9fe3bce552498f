"""Arguments of text generation, checked and encoded for `generate`."""

import sys
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from bptt import files
from bptt.backend import HostArray
from bptt.config import rules
from bptt.config.settings import Mode
from bptt.data import compression, decoding
from bptt.data.source import Source
from bptt.data.vocabulary import Vocabulary
from bptt.errors import InputError, InvalidFile, UnknownCharacters, option
from bptt.inference.sampling import SamplingOptions

Unknown = Literal["error", "skip"]  # what to do with characters that the vocabulary lacks

MAX_LENGTH = {"lines": 200, "records": 500, "stream": 500}  # new characters by mode, unless the text ends before
MAX_PROMPT = 1 << 24  # bytes of a file
PROBABILITY: rules.Rule = ("a number above 0, at most 1", float, lambda value: 0 < value <= 1)


class StopCriteria(NamedTuple):
    """Where a text ends: at the first new boundary or stop string, or after `length` new characters."""

    length: int
    boundary: int | None = None  # its id, of the newline or the end of a record; None where a text goes on
    stop: HostArray = np.empty(0, np.int64)  # (S,): the ids of the stop string; empty for none


class GenerationRequest(NamedTuple):
    """What to generate: the prompt, how characters are sampled, where texts end, and the seed of the random numbers."""

    prompt: HostArray  # (n,) ids, the start symbol first
    sampling: SamplingOptions
    criteria: StopCriteria
    seed: int


def make_request(
    vocabulary: Vocabulary,
    mode: Mode,
    sampling: SamplingOptions,
    *,
    seed: int,
    prompt: str | bytes = "",
    length: int | None = None,
    stop: str | None = None,
    unknown: Unknown = "error",
) -> GenerationRequest:
    """Check what a user asks for and encode it; by default texts of the mode's `MAX_LENGTH` from the start symbol on.

    Raises:
        InputError: a value out of its range, or a prompt or stop string that the vocabulary cannot encode.
    """
    temperature, top_k, top_p = sampling
    length = rules.check_number("length", rules.COUNT, MAX_LENGTH[mode] if length is None else length)
    sampling = SamplingOptions(
        rules.check_number("temperature", rules.NOT_BELOW_ZERO, temperature),
        None if top_k is None else rules.check_number("top_k", rules.COUNT, top_k),
        None if top_p is None else rules.check_number("top_p", PROBABILITY, top_p),
    )
    seed = rules.check_number("seed", rules.SEED, seed)
    criteria = StopCriteria(length, vocabulary.start if mode != "stream" else None)
    if stop is not None:
        if not isinstance(stop, str) or not stop:
            raise InputError(f"stop {stop!r}: expected at least one character, as str")
        _refuse_typed_newline(f"stop {stop!r}", vocabulary, mode, stop)
        try:
            criteria = criteria._replace(stop=vocabulary.encode(stop))
        except UnknownCharacters as error:
            raise UnknownCharacters(f"stop {stop!r}: {error}") from None
    return GenerationRequest(prompt_ids(vocabulary, mode, prompt, unknown), sampling, criteria, seed)


def prompt_ids(vocabulary: Vocabulary, mode: Mode, prompt: str | bytes, unknown: Unknown) -> HostArray:
    """The ids (n,) of the start symbol and a prompt, or an InputError where the model cannot read it."""
    if vocabulary.symbols is None and isinstance(prompt, str):
        prompt = prompt.encode("utf-8", "surrogatepass")
    if not isinstance(prompt, str if vocabulary.symbols else bytes):
        raise InputError(f"prompt {prompt!r:.100}: expected str, or bytes for a model of bytes")
    end: Any = vocabulary.boundary if isinstance(prompt, str) else vocabulary.boundary.encode()
    if mode != "stream" and end in prompt:
        unit = "line" if mode == "lines" else "record"
        raise InputError(f"prompt {prompt!r}: expected the beginning of one {unit}, for the model writes {unit}s")
    check_unknown(unknown)
    if isinstance(prompt, bytes):
        return np.concatenate([np.array([vocabulary.start], vocabulary.dtype), vocabulary.encode(prompt)])
    if unknown == "skip":
        unknown_characters = set(vocabulary.unknown(prompt))
        prompt = "".join(character for character in prompt if character not in unknown_characters)
    _refuse_typed_newline(f"prompt {prompt[:100]!r}", vocabulary, mode, prompt)
    try:
        ids = vocabulary.encode(prompt)
    except UnknownCharacters as error:
        raise UnknownCharacters(f"{error}, or leave them out with {option('unknown', 'skip')}") from None
    return np.concatenate([np.array([vocabulary.start], ids.dtype), ids])


def _refuse_typed_newline(shown: str, vocabulary: Vocabulary, mode: Mode, text: str) -> None:
    r"""Raise an InputError for \n as two characters, for a model of several lines that does not know the first of them."""
    if mode != "lines" and "\\n" in text and "\\" in vocabulary.unknown(text):
        remedy = r"for a newline write $'\n' (bash, zsh), or give a prompt with --prompt-file FILE"
        raise InputError(rf"{shown}: \n is a backslash and an n, and the model knows no backslash: {remedy}")


def read_prompt(file: Path, vocabulary: Vocabulary, mode: Mode, encoding: str) -> str | bytes:
    """The content of a file, or for - of standard input, as a prompt; in lines mode without the newline at its end.

    It is read as a training text is, without a byte order mark, and with the same newlines; for a model of bytes, any bytes.

    Raises:
        InputError: a file that cannot be read, is too large or not of the encoding.
    """
    shown = f"--prompt-file {file}"
    try:
        raw = sys.stdin.buffer.read(MAX_PROMPT + 1) if str(file) == "-" else files.read(file, MAX_PROMPT, named=True)
    except InvalidFile as problem:
        raise InputError(f"{shown}: {problem}: expected a file of text, or - for standard input") from None
    except (OSError, ValueError, AttributeError):  # sys.stdin is None where the caller closed it
        raise InputError(f"{shown}: standard input cannot be read: pipe a text into it, or name a file") from None
    if len(raw) > MAX_PROMPT:
        raise InputError(f"{shown}: expected at most {MAX_PROMPT:,} bytes: give the end of it alone")
    if compression.is_compressed(raw):
        raise InputError(f"{shown} is compressed: unpack it, and name the text in it")
    if vocabulary.symbols is None:
        return raw.removesuffix(b"\n") if mode == "lines" else raw
    source = Source("prompt", "", shown, raw, encoding=encoding)
    decoding.refuse_binary(source)
    prompt = "".join(decoding.characters(source))
    return prompt.removesuffix("\n") if mode == "lines" else prompt


def check_unknown(unknown: str) -> None:
    """Raise an InputError for anything but error and skip."""
    if unknown not in get_args(Unknown):
        raise InputError(f"unknown {unknown!r}: expected one of {', '.join(get_args(Unknown))}")
