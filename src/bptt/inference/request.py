"""What a user asks a model to write: checked, and encoded for `generate`."""

from typing import Literal, NamedTuple, get_args

import numpy as np

from bptt.backend import HostArray
from bptt.config import rules
from bptt.config.settings import Mode
from bptt.data.vocabulary import Vocabulary
from bptt.errors import InputError
from bptt.inference.sampling import SamplingOptions

Unknown = Literal["error", "skip"]  # what to do with characters that the vocabulary lacks

MAX_LENGTH = {"lines": 200, "records": 500, "stream": 500}  # new characters by mode, unless the text ends before
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
    prompt: str = "",
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
        try:
            criteria = criteria._replace(stop=vocabulary.encode(stop))
        except InputError as error:
            raise InputError(f"stop {stop!r}: {error}") from None
    return GenerationRequest(prompt_ids(vocabulary, mode, prompt, unknown), sampling, criteria, seed)


def prompt_ids(vocabulary: Vocabulary, mode: Mode, prompt: str, unknown: Unknown) -> HostArray:
    """The ids (n,) of the start symbol and a prompt, or an InputError where the model cannot read it."""
    if not isinstance(prompt, str):
        raise InputError(f"prompt {prompt!r}: expected str")
    if mode != "stream" and vocabulary.boundary in prompt:
        unit = "line" if mode == "lines" else "record"
        raise InputError(f"prompt {prompt!r}: expected the beginning of one {unit}, for the model writes {unit}s")
    check_unknown(unknown)
    if unknown == "skip":
        unknown_characters = set(vocabulary.unknown(prompt))
        prompt = "".join(character for character in prompt if character not in unknown_characters)
    try:
        ids = vocabulary.encode(prompt)
    except InputError as error:
        raise InputError(f"{error}, or leave them out with --unknown skip") from None
    return np.concatenate([np.array([vocabulary.start], ids.dtype), ids])


def check_unknown(unknown: str) -> None:
    """Raise an InputError for anything but error and skip."""
    if unknown not in get_args(Unknown):
        raise InputError(f"unknown {unknown!r}: expected one of {', '.join(get_args(Unknown))}")
