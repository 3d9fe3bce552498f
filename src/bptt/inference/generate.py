"""New text from a model: one forward step per character, for many texts at once."""

import codecs
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from bptt import acceleration
from bptt.backend import Array, Backend, HostArray, namespace, widest_float
from bptt.config import settings
from bptt.data.batches import WINDOW
from bptt.data.corpus import Mode
from bptt.data.vocabulary import Vocabulary
from bptt.errors import InputError
from bptt.inference.sampling import SamplingOptions, inverse_cdf, unnormalized_probabilities
from bptt.nn import model, tree
from bptt.nn.ops import column_major

Unknown = Literal["error", "skip"]  # what becomes of characters that the model does not know

MAX_LENGTH = {"lines": 200, "stream": 500}  # new characters by mode, where a text does not end by itself
RNG_BLOCK = 64  # texts that share a random number generator
SYNC_EVERY = 16  # characters from one look at a device to the next
PROBABILITY: settings.Rule = ("a number above 0, at most 1", float, lambda value: 0 < value <= 1)


class StopCriteria(NamedTuple):
    """Where a text ends: before the first newline or stop string that is newly written, or after so many characters."""

    length: int
    newline: int | None = None  # its id; None where the text goes on over lines
    stop: HostArray = np.empty(0, np.int64)  # (S,) its ids; none: no stop string


class GenerationRequest(NamedTuple):
    """Texts to be written: how they begin, go on and end, and the seed of what is random in them."""

    prompt: HostArray  # (n,) ids, the start symbol first
    choice: SamplingOptions
    ending: StopCriteria
    seed: int


def make_request(
    vocabulary: Vocabulary,
    mode: Mode,
    *,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int,
    prompt: str,
    length: int | None,
    stop: str | None,
    unknown: Unknown,
) -> GenerationRequest:
    """What to write, in plain types, or an InputError where something is out of its range."""
    length = settings.check_number("length", settings.COUNT, MAX_LENGTH[mode] if length is None else length)
    choice = SamplingOptions(
        settings.check_number("temperature", settings.NOT_BELOW_ZERO, temperature),
        None if top_k is None else settings.check_number("top_k", settings.COUNT, top_k),
        None if top_p is None else settings.check_number("top_p", PROBABILITY, top_p),
    )
    seed = settings.check_number("seed", settings.SEED, seed)
    ending = StopCriteria(length, vocabulary.start if mode == "lines" else None)
    if stop is not None:
        if not isinstance(stop, str) or not stop:
            raise InputError(f"stop {stop!r}: expected at least one character, as str")
        try:
            ending = ending._replace(stop=vocabulary.encode(stop))
        except InputError as error:
            raise InputError(f"stop {stop!r}: {error}") from None
    return GenerationRequest(prompt_ids(vocabulary, mode, prompt, unknown), choice, ending, seed)


def prompt_ids(vocabulary: Vocabulary, mode: Mode, prompt: str, unknown: Unknown) -> HostArray:
    """The ids (n,) of the start symbol and a prompt, or an InputError where the model cannot read it."""
    if not isinstance(prompt, str):
        raise InputError(f"prompt {prompt!r}: expected str")
    if mode == "lines" and "\n" in prompt:
        raise InputError(f"prompt {prompt!r}: expected the beginning of one line, for the model writes lines")
    check_unknown(unknown)
    if unknown == "skip":
        strange = set(vocabulary.unknown(prompt))
        prompt = "".join(character for character in prompt if character not in strange)
    try:
        ids = vocabulary.encode(prompt)
    except InputError as error:
        raise InputError(f"{error}, or leave them out with --unknown skip") from None
    return np.concatenate([np.array([vocabulary.start], ids.dtype), ids])


def check_unknown(unknown: str) -> None:
    """Raise an InputError for anything but error and skip."""
    if unknown not in get_args(Unknown):
        raise InputError(f"unknown {unknown!r}: expected one of {', '.join(get_args(Unknown))}")


def generate_texts(
    config: model.Config,
    params: model.Params,
    backend: Backend,
    vocabulary: Vocabulary,
    task: GenerationRequest,
    first: int,
    count: int,
) -> list[str]:
    """The texts number `first` and following of a task, `count` of them in one batch."""
    numbers = uniform_numbers(task.seed, first, count)
    with acceleration.sampling_kernels(backend):
        steps = list(generate(config, params, backend, task.prompt, task.choice, task.ending, numbers))
    prompt, written = vocabulary.decode(task.prompt[1:]), np.stack(steps, axis=1)  # (count, steps)
    return [prompt + "".join(decode_ids(hold_back_stop(ids[ids >= 0].tolist(), task.ending), vocabulary)) for ids in written]


def stream_text(
    config: model.Config, params: model.Params, backend: Backend, vocabulary: Vocabulary, task: GenerationRequest
) -> Iterator[str]:
    """Text number 0 of a task, its prompt first, then each character as soon as it is read and certain to belong to it."""
    if len(task.prompt) > 1:
        yield vocabulary.decode(task.prompt[1:])
    steps = generate(config, params, backend, task.prompt, task.choice, task.ending, uniform_numbers(task.seed, 0, 1))
    yield from decode_ids(hold_back_stop((int(ids[0]) for ids in steps), task.ending), vocabulary)


def next_symbols(
    config: model.Config, params: model.Params, backend: Backend, vocabulary: Vocabulary, prompt: HostArray, temperature: float
) -> list[tuple[str, float]]:
    """Every symbol with its probability of coming after the ids of a prompt (n,), the most likely first."""
    w = unnormalized_probabilities(read_prompt(config, params, backend, prompt)[0], SamplingOptions(temperature))[0]
    p = w / w.sum()
    shown = symbol_names(vocabulary)
    return [(shown[i], float(p[i])) for i in np.argsort(-p, kind="stable").tolist()]


def symbol_names(vocabulary: Vocabulary) -> list[str]:
    r"""How to write each symbol: a character as it is, a byte beyond ASCII as \x and two digits."""
    return list(vocabulary.symbols or (bytes([i]).decode("utf-8", "backslashreplace") for i in range(256)))


def uniform_numbers(seed: int, first: int, count: int) -> Iterator[HostArray]:
    """For ever: one number from [0, 1) for each of `count` texts, the first of which is text number `first` of the seed.

    The numbers of a text depend on the seed and on its own number alone, not on how many are written beside it.
    """
    lanes = [np.random.default_rng([seed, lane]) for lane in range(first // RNG_BLOCK, (first + count - 1) // RNG_BLOCK + 1)]
    while True:
        yield np.concatenate([rng.random(RNG_BLOCK) for rng in lanes])[first % RNG_BLOCK :][:count]


def read_prompt(
    config: model.Config, params: model.Params, backend: Backend, ids: HostArray
) -> tuple[HostArray, tuple[Any, ...]]:
    """The logits (1, V) of what comes after the ids (n,) of a text, and the states (1, H) there."""
    logits, states = None, None
    for t in range(0, len(ids), WINDOW):
        x = np.asarray(ids[t : t + WINDOW], np.int64)[:, None]
        logits, states, _ = model.forward(config, params, backend.put(x), states)
    if logits is None or states is None:
        raise ValueError("a text begins with the start symbol")
    return backend.get(logits[-1, ...]), states


class GenerationState(NamedTuple):
    """Where some texts stand."""

    ids: Array  # (n,): the last character of each
    states: Any  # of each layer, (n, H)
    last: Array  # (n, S): the last ids of each, to be compared with the stop string
    ended: Array  # (n,) bool


def generate(
    config: model.Config,
    params: model.Params,
    backend: Backend,
    prompt: HostArray,
    choice: SamplingOptions,
    ending: StopCriteria,
    numbers: Iterator[HostArray],
) -> Iterator[HostArray]:
    """Ids (count,) of one character after the other for texts that go on from the ids of a prompt (n,), until all have ended.

    `numbers` gives (count,) numbers from [0, 1) for every step. The last id of a text is the newline, or the last of the
    stop string, where it ends in one; after its end comes -1. A device other than the host's writes several characters
    before it is looked at.
    """
    xp, together = backend.xp, 1 if backend.name == "numpy" else SYNC_EVERY
    params, stop = tree.tree_map(column_major, params), backend.put(ending.stop)
    endings = ending.newline is not None or len(ending.stop) > 0  # whether texts end before they are as long as they may be

    def note(ids: Array, states: Any, before: GenerationState) -> GenerationState:
        ended, last = before.ended, before.last
        if ending.newline is not None:
            ended = ended | (ids == ending.newline)
        if len(ending.stop):
            last = xp.concat([last[:, 1:], xp.reshape(ids, (-1, 1))], axis=1)
            ended = ended | xp.all(last == stop, axis=1)
        return GenerationState(ids, states, last, ended)

    def write(now: GenerationState, u: Array) -> tuple[GenerationState, Array]:
        """One more character (n,) of each text, given numbers u (n,)."""
        logits, states, _ = model.forward(config, params, xp.reshape(now.ids, (1, -1)), now.states)
        ids = inverse_cdf(unnormalized_probabilities(logits[-1, ...], choice), u)
        return note(ids, states, now), xp.where(now.ended, -1, ids) if endings else ids

    def write_some(now: GenerationState, u: Array) -> tuple[GenerationState, Array]:
        """Some more (k+1, n), in the last row 1 for a text that has ended, given numbers u (k, n)."""
        rows = []
        for k in range(u.shape[0]):
            now, ids = write(now, u[k, ...])
            rows.append(ids)
        some = tree.concatenate(*rows, xp.astype(now.ended, xp.int64))
        return now, xp.reshape(some, (len(rows) + 1, -1))

    record = acceleration.graph_recorder()
    if record is not None:
        write_some = acceleration.graphed(write_some, record)
    logits, states = read_prompt(config, params, backend, prompt)
    first = next(numbers)
    count = len(first)
    going = np.arange(count)  # (n,): the texts that are not left out yet
    ids = inverse_cdf(unnormalized_probabilities(np.repeat(logits, count, axis=0), choice), first)
    states = _take_rows(states, np.zeros(count, np.int64), backend)
    blank = np.full((count, len(ending.stop)), -1), np.zeros(count, np.int64)
    last, none = map(backend.put, blank)
    now = note(backend.put(ids), states, GenerationState(none, states, last, none != 0))
    kind = "float64" if widest_float(xp, backend.device) == xp.float64 else "float32"
    yield ids
    left, ended = ending.length - 1, backend.get(now.ended)
    while left and not (endings and ended.all()):
        if endings and 2 * np.count_nonzero(ended) > len(ended):  # go on with the others only
            rest = np.flatnonzero(~ended)
            going = going[rest]
            now = _take_rows(now, rest, backend)
        if together == 1:
            now, row = write(now, next(numbers)[going])
            written, ended = [row], now.ended
        else:
            u = np.array([next(numbers)[going] for _ in range(min(together, left))], kind)
            now, rows = write_some(now, xp.asarray(u, device=backend.device))
            *written, over = backend.get(rows)
            ended = over == 1
        left -= len(written)
        for row in written:
            if together == 1 or (row >= 0).any():
                everywhere = np.full(count, -1)
                everywhere[going] = row
                yield everywhere


def _take_rows(nested: Any, rows: HostArray, backend: Backend) -> Any:
    """Some rows of all arrays."""
    places = backend.put(rows)
    return tree.tree_map(lambda a: namespace(a).take(a, places, axis=0), nested)


def hold_back_stop(ids: Iterable[int], ending: StopCriteria) -> Iterator[int]:
    """The ids of one text, each as soon as it is certain not to belong to the newline or stop string at the end."""
    stop = ending.stop.tolist()
    held: list[int] = []  # what could be the beginning of the stop string
    for i in ids:
        if i == ending.newline:
            break
        held.append(i)
        if held == stop:
            return
        while held and held != stop[: len(held)]:
            yield held.pop(0)
    yield from held


def decode_ids(ids: Iterable[int], vocabulary: Vocabulary) -> Iterator[str]:
    """The characters of ids one by one; where these are bytes, each character as soon as it is complete."""
    if vocabulary.symbols is not None:
        yield from (vocabulary.symbols[i] for i in ids)
        return
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    yield from filter(None, (decoder.decode(bytes([i])) for i in ids))
    if rest := decoder.decode(b"", final=True):
        yield rest
