"""New text from a model: one forward step per character, for many texts at once."""

import codecs
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from bptt.backend import Backend, HostArray, namespace
from bptt.errors import InputError
from bptt.nn import model, packing
from bptt.nn.arrays import by_columns
from bptt.run import settings
from bptt.run.evaluation import WINDOW
from bptt.text.corpus import Mode
from bptt.text.vocabulary import Vocabulary

Unknown = Literal["error", "skip"]  # what becomes of characters that the model does not know

LONGEST = {"lines": 200, "stream": 500}  # new characters by mode, where a text does not end by itself
LANES = 64  # texts that share a random number generator
PROBABILITY: settings.Rule = ("a number above 0, at most 1", float, lambda value: 0 < value <= 1)


class Choice(NamedTuple):
    """How the next character is chosen from what the model thinks of it."""

    temperature: float = 1.0  # 0: always the most likely
    top_k: int | None = None  # only so many of the most likely
    top_p: float | None = None  # only the smallest set of the most likely that is so probable


class Ending(NamedTuple):
    """Where a text ends: before the first newline or stop string that is newly written, or after so many characters."""

    length: int
    newline: int | None = None  # its id; None where the text goes on over lines
    stop: HostArray = np.empty(0, np.int64)  # (S,) its ids; none: no stop string


class Task(NamedTuple):
    """Texts to be written: how they begin, go on and end, and the seed of what is random in them."""

    prompt: HostArray  # (n,) ids, the start symbol first
    choice: Choice
    ending: Ending
    seed: int


def task(
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
) -> Task:
    """What to write, in plain types, or an InputError where something is out of its range."""
    length = settings.number("length", settings.COUNT, LONGEST[mode] if length is None else length)
    choice = Choice(
        settings.number("temperature", settings.NOT_BELOW_ZERO, temperature),
        None if top_k is None else settings.number("top_k", settings.COUNT, top_k),
        None if top_p is None else settings.number("top_p", PROBABILITY, top_p),
    )
    seed = settings.number("seed", settings.SEED, seed)
    ending = Ending(length, vocabulary.start if mode == "lines" else None)
    if stop is not None:
        if not isinstance(stop, str) or not stop:
            raise InputError(f"stop {stop!r}: expected at least one character, as str")
        try:
            ending = ending._replace(stop=vocabulary.encode(stop))
        except InputError as error:
            raise InputError(f"stop {stop!r}: {error}") from None
    return Task(beginning(vocabulary, mode, prompt, unknown), choice, ending, seed)


def beginning(vocabulary: Vocabulary, mode: Mode, prompt: str, unknown: Unknown) -> HostArray:
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


def texts(
    config: model.Config, params: model.Params, backend: Backend, vocabulary: Vocabulary, task: Task, first: int, count: int
) -> list[str]:
    """The texts number `first` and following of a task, `count` of them in one batch."""
    numbers = uniforms(task.seed, first, count)
    steps = generate(config, params, backend, task.prompt, task.choice, task.ending, numbers)
    prompt = vocabulary.decode(task.prompt[1:])
    written = np.stack(list(steps), axis=1)  # (count, steps)
    return [prompt + "".join(decode(certain(ids[ids >= 0].tolist(), task.ending), vocabulary)) for ids in written]


def characters(
    config: model.Config, params: model.Params, backend: Backend, vocabulary: Vocabulary, task: Task
) -> Iterator[str]:
    """Text number 0 of a task, its prompt first, then each character as soon as it is drawn and certain to belong to it."""
    if len(task.prompt) > 1:
        yield vocabulary.decode(task.prompt[1:])
    steps = generate(config, params, backend, task.prompt, task.choice, task.ending, uniforms(task.seed, 0, 1))
    yield from decode(certain((int(ids[0]) for ids in steps), task.ending), vocabulary)


def following(
    config: model.Config, params: model.Params, backend: Backend, vocabulary: Vocabulary, prompt: HostArray, temperature: float
) -> list[tuple[str, float]]:
    """Every symbol with its probability of coming after the ids of a prompt (n,), the most likely first."""
    w = weights(read(config, params, backend, prompt)[0], Choice(temperature))[0]
    p = w / w.sum()
    shown = names(vocabulary)
    return [(shown[i], float(p[i])) for i in np.argsort(-p, kind="stable").tolist()]


def names(vocabulary: Vocabulary) -> list[str]:
    r"""How to write each symbol: a character as it is, a byte beyond ASCII as \x and two digits."""
    return list(vocabulary.symbols or (bytes([i]).decode("utf-8", "backslashreplace") for i in range(256)))


def weights(logits: HostArray, choice: Choice) -> HostArray:
    """What each next character weighs (B, V), in float64, its probability times a factor of its row, given logits (B, V).

    The temperature divides the logits; of what that gives the `top_k` heaviest stay, the first of equals; and of those the
    fewest that weigh `top_p` of all together (Holtzman et al. 2020, arXiv 1904.09751).
    """
    if choice.temperature == 0:
        return np.asarray(np.arange(logits.shape[1]) == np.argmax(logits, axis=1)[:, None], np.float64)
    u = logits.astype(np.float64)
    with np.errstate(over="ignore"):  # -inf for all but the most likely where the temperature is tiny
        w = np.exp((u - u.max(axis=1, keepdims=True)) / choice.temperature)
    if choice.top_k is None and choice.top_p is None:
        return np.asarray(w)
    order = np.argsort(-w, axis=1, kind="stable")
    heaviest = np.take_along_axis(w, order, axis=1)
    if choice.top_k is not None:
        heaviest[:, choice.top_k :] = 0.0
    if choice.top_p is not None:
        before = np.cumsum(heaviest, axis=1) - heaviest  # the weight of all that are heavier
        heaviest[before >= choice.top_p * heaviest.sum(axis=1, keepdims=True)] = 0.0
    np.put_along_axis(w, order, heaviest, axis=1)
    return np.asarray(w)


def draw(w: HostArray, u: HostArray) -> HostArray:
    """One id (B,) for each row of weights (B, V), by the inverse of the distribution function at u (B,) from [0, 1)."""
    c = np.cumsum(w, axis=1)
    return np.asarray((c > u[:, None] * c[:, -1:]).argmax(axis=1))  # the product is below the last sum, as u is below 1


def uniforms(seed: int, first: int, count: int) -> Iterator[HostArray]:
    """For ever: one number from [0, 1) for each of `count` texts, the first of which is text number `first` of the seed.

    The numbers of a text depend on the seed and on its own number alone, not on how many are written beside it.
    """
    lanes = [np.random.default_rng([seed, lane]) for lane in range(first // LANES, (first + count - 1) // LANES + 1)]
    while True:
        yield np.concatenate([rng.random(LANES) for rng in lanes])[first % LANES :][:count]


def read(config: model.Config, params: model.Params, backend: Backend, ids: HostArray) -> tuple[HostArray, tuple[Any, ...]]:
    """The logits (1, V) of what comes after the ids (n,) of a text, and the states (1, H) there."""
    logits, states = None, None
    for t in range(0, len(ids), WINDOW):
        x = np.asarray(ids[t : t + WINDOW], np.int64)[:, None]
        logits, states, _ = model.forward(config, params, backend.put(x), states)
    if logits is None or states is None:
        raise ValueError("a text begins with the start symbol")
    return backend.get(logits[-1, ...]), states


def generate(
    config: model.Config,
    params: model.Params,
    backend: Backend,
    prompt: HostArray,
    choice: Choice,
    ending: Ending,
    numbers: Iterator[HostArray],
) -> Iterator[HostArray]:
    """Ids (count,) of one character after the other for texts that go on from the ids of a prompt (n,), until all have ended.

    `numbers` gives (count,) numbers from [0, 1) for every step. The last id of a text is the newline, or the last of the
    stop string, where it ends in one; after its end comes -1.
    """
    params = packing.transform(by_columns, params)
    logits, states = read(config, params, backend, prompt)
    u = next(numbers)
    count = len(u)
    logits, states = np.repeat(logits, count, axis=0), _rows(states, np.zeros(count, np.int64), backend)
    going = np.arange(count)  # (B,): the texts that the rows of logits and states belong to
    last = np.full((count, len(ending.stop)), -1)  # (B, S): the last ids of each, to be compared with the stop string
    ended = np.zeros(count, bool)  # (B,)
    for _ in range(ending.length):
        ids = draw(weights(logits, choice), u[going])
        drawn = np.full(count, -1)
        drawn[going] = np.where(ended, -1, ids)
        yield drawn
        if ending.newline is not None:
            ended |= ids == ending.newline
        if len(ending.stop):
            last = np.concatenate([last[:, 1:], ids[:, None]], axis=1)
            ended |= (last == ending.stop).all(axis=1)
        if ended.all():
            return
        if 2 * np.count_nonzero(ended) > len(ended):  # go on with the others only
            rest = np.flatnonzero(~ended)
            going, last, ids, ended = going[rest], last[rest], ids[rest], ended[rest]
            states = _rows(states, rest, backend)
        after, states, _ = model.forward(config, params, backend.put(ids[None, :]), states)
        logits, u = backend.get(after[-1, ...]), next(numbers)


def _rows(states: tuple[Any, ...], rows: HostArray, backend: Backend) -> tuple[Any, ...]:
    """Some rows of all states."""
    places = backend.put(rows)
    taken: tuple[Any, ...] = packing.transform(lambda a: namespace(a).take(a, places, axis=0), states)
    return taken


def certain(ids: Iterable[int], ending: Ending) -> Iterator[int]:
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


def decode(ids: Iterable[int], vocabulary: Vocabulary) -> Iterator[str]:
    """The characters of ids one by one; where these are bytes, each character as soon as it is complete."""
    if vocabulary.symbols is not None:
        yield from (vocabulary.symbols[i] for i in ids)
        return
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    yield from filter(None, (decoder.decode(bytes([i])) for i in ids))
    if rest := decoder.decode(b"", final=True):
        yield rest
