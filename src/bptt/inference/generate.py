"""Text generation: one forward step per character, for many texts at once."""

import codecs
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from bptt import acceleration
from bptt.backend import Array, Backend, HostArray, namespace, widest_float
from bptt.data.batches import WINDOW
from bptt.data.vocabulary import Vocabulary
from bptt.inference import prediction
from bptt.inference.prediction import Configs
from bptt.inference.request import GenerationRequest, StopCriteria
from bptt.inference.sampling import SamplingOptions, inverse_cdf, unnormalized_probabilities
from bptt.nn import tree
from bptt.nn.ops import column_major

RNG_BLOCK = 64  # texts that share a random number generator
CHARACTERS_PER_READ = 16  # characters sampled on a GPU before the host reads them


class Sample(NamedTuple):
    """A text that a model has written."""

    text: str
    cut: bool  # whether it ends after the `length` of the request, and not in a newline or stop string that would end it


def generate_ids(
    config: Configs, params: Any, backend: Backend, request: GenerationRequest, places: range
) -> list[tuple[list[int], bool]]:
    """The new ids of texts number `places.start` to `places.stop - 1` of a request, and whether each was cut, in one batch."""
    numbers = uniform_numbers(request.seed, places.start, len(places))
    with acceleration.sampling_kernels(backend):
        steps = list(generate(config, params, backend, request, numbers))
    rows = [row[row >= 0].tolist() for row in np.stack(steps, axis=1)]
    return [(list(hold_back_stop(ids, request.criteria)), is_cut(ids, request.criteria)) for ids in rows]


def generate_texts(
    config: Configs,
    params: Any,
    backend: Backend,
    vocabulary: Vocabulary,
    request: GenerationRequest,
    places: range,
) -> list[Sample]:
    """Texts number `places.start` to `places.stop - 1` of a request, generated in one batch."""
    prompt, rows = vocabulary.decode(request.prompt[1:]), generate_ids(config, params, backend, request, places)
    return [Sample(prompt + "".join(decode_ids(ids, vocabulary)), cut) for ids, cut in rows]


def stream_text(
    config: Configs, params: Any, backend: Backend, vocabulary: Vocabulary, request: GenerationRequest
) -> Generator[str, None, bool]:
    """The first text of a request: its prompt, then each character as soon as it is sampled and known to belong to it.

    The generator returns whether the text was cut, see `Sample`.
    """
    if len(request.prompt) > 1:
        yield vocabulary.decode(request.prompt[1:])
    sampled: list[int] = []

    def sample_ids() -> Iterator[int]:
        for ids in generate(config, params, backend, request, uniform_numbers(request.seed, 0, 1)):
            sampled.append(int(ids[0]))
            yield sampled[-1]

    yield from decode_ids(hold_back_stop(sample_ids(), request.criteria), vocabulary)
    return is_cut(sampled, request.criteria)


def is_cut(ids: list[int], criteria: StopCriteria) -> bool:
    """Whether the ids of a text end after `length` and not in the newline or the stop string that ends a text."""
    stop = criteria.stop.tolist()
    ends = criteria.boundary is not None or bool(stop)  # otherwise a text has no other end
    return ends and len(ids) == criteria.length and ids[-1] != criteria.boundary and (not stop or ids[-len(stop) :] != stop)


def next_symbols(
    config: Configs, params: Any, backend: Backend, vocabulary: Vocabulary, prompt: HostArray, temperature: float
) -> list[tuple[str, float]]:
    """Every symbol with its probability of coming after the ids of a prompt (n,), the most likely first."""
    logits, _ = read_prompt(config, params, backend, prompt)
    w = unnormalized_probabilities(logits, SamplingOptions(temperature))[0]
    p = w / w.sum()
    names = symbol_names(vocabulary)
    return [(names[i], float(p[i])) for i in np.argsort(-p, kind="stable").tolist()]


def symbol_names(vocabulary: Vocabulary) -> list[str]:
    r"""How to write each symbol: a character as it is, a byte beyond ASCII as \x and two digits."""
    return list(vocabulary.symbols or (bytes([i]).decode("utf-8", "backslashreplace") for i in range(256)))


class Sampler(NamedTuple):
    """What stays the same from one sampled character to the next."""

    config: Configs
    params: Any  # of the model, or a tuple of those of an ensemble
    sampling: SamplingOptions
    criteria: StopCriteria  # the stop string on the device


class GenerationState(NamedTuple):
    """Where n texts stand."""

    ids: Array  # (n,): the last character of each
    states: Any  # of each layer, (n, H)
    recent: Array  # (n, S): the last ids of each, to compare with the stop string
    ended: Array  # (n,) bool


def generate(
    config: Configs,
    params: Any,
    backend: Backend,
    request: GenerationRequest,
    numbers: Iterator[HostArray],
) -> Iterator[HostArray]:
    """The ids (count,) of one character of each text after the other, until all texts have ended.

    `numbers` gives (count,) numbers from [0, 1) for every step. The last id of a text is the boundary or the end of the stop
    string, if the text ends in one; -1 follows. On a GPU several characters are sampled before the host reads them.
    """
    xp, criteria = backend.xp, request.criteria
    stops_early = criteria.boundary is not None or len(criteria.stop) > 0
    per_read = 1 if backend.is_host else CHARACTERS_PER_READ
    sampler = Sampler(
        config, tree.tree_map(column_major, params), request.sampling, criteria._replace(stop=backend.put(criteria.stop))
    )
    sample_block = _block_sampler(sampler)
    kind = "float64" if widest_float(xp, backend.device) == xp.float64 else "float32"  # of the random numbers on a GPU

    # 1. Read the prompt, which all texts share
    logits, states = read_prompt(config, sampler.params, backend, request.prompt)

    # 2. Sample the first character of each text
    u = next(numbers)
    count = len(u)
    ids = inverse_cdf(unnormalized_probabilities(np.repeat(logits, count, axis=0), request.sampling), u)
    state = _first_state(sampler, ids, states, backend)
    yield ids

    # 3. Sample the other characters until all texts have ended
    remaining, ended = criteria.length - 1, backend.get(state.ended)
    active = np.arange(count)  # (n,): the texts that are still computed
    while remaining and not (stops_early and ended.all()):
        # 3.1. Drop the texts that have ended, once these are more than half
        if stops_early and 2 * np.count_nonzero(ended) > len(ended):
            rows = np.flatnonzero(~ended)
            active, state = active[rows], _take_rows(state, rows, backend)

        # 3.2. Sample one character of each text, or several before the host waits for them
        if per_read == 1:
            state, ids = sample_character(sampler, state, next(numbers)[active])
            block, ended = [ids], state.ended
        else:
            u = np.array([next(numbers)[active] for _ in range(min(per_read, remaining))], kind)
            state, rows = sample_block(state, xp.asarray(u, device=backend.device))
            *block, ended = backend.get(rows)
            ended = ended == 1
        remaining -= len(block)

        # 3.3. Hand out the characters, with -1 for the texts that have ended
        for ids in block:
            if per_read == 1 or (ids >= 0).any():
                everywhere = np.full(count, -1)
                everywhere[active] = ids
                yield everywhere


def sample_character(sampler: Sampler, state: GenerationState, u: Array) -> tuple[GenerationState, Array]:
    """One more character (n,) of each text, given numbers u (n,) from [0, 1); -1 for a text that has ended."""
    xp, criteria = namespace(u), sampler.criteria
    logits, states = prediction.forward(sampler.config, sampler.params, xp.reshape(state.ids, (1, -1)), state.states)
    ids = inverse_cdf(unnormalized_probabilities(logits[-1, ...], sampler.sampling), u)
    stops_early = criteria.boundary is not None or criteria.stop.shape[0] > 0
    return update_finished(criteria, state, ids, states), xp.where(state.ended, -1, ids) if stops_early else ids


def _block_sampler(sampler: Sampler) -> Callable[[GenerationState, Array], tuple[GenerationState, Array]]:
    """A function that samples k characters (k + 1, n), given numbers u (k, n); captured in CUDA graphs where kernels allow it.

    The last row holds 1 for a text that has ended, so that the host reads one array.
    """

    def sample_block(state: GenerationState, u: Array) -> tuple[GenerationState, Array]:
        rows = []
        for k in range(u.shape[0]):
            state, ids = sample_character(sampler, state, u[k, ...])
            rows.append(ids)
        xp = namespace(u)
        block = tree.concatenate(*rows, xp.astype(state.ended, xp.int64))
        return state, xp.reshape(block, (len(rows) + 1, -1))

    record = acceleration.graph_recorder()
    return sample_block if record is None else acceleration.graphed(sample_block, record)


def _first_state(sampler: Sampler, ids: HostArray, states: Any, backend: Backend) -> GenerationState:
    """The state after the first character (count,) of each text, given the states (1, H) after the prompt."""
    count, stop_length = len(ids), sampler.criteria.stop.shape[0]
    states = _take_rows(states, np.zeros(count, np.int64), backend)
    recent, zero = backend.put(np.full((count, stop_length), -1)), backend.put(np.zeros(count, np.int64))
    return update_finished(sampler.criteria, GenerationState(zero, states, recent, zero != 0), backend.put(ids), states)


def update_finished(criteria: StopCriteria, before: GenerationState, ids: Array, states: Any) -> GenerationState:
    """The state after one more character (n,) of each text: those that have just written their end have ended."""
    xp, ended, recent = namespace(ids), before.ended, before.recent
    if criteria.boundary is not None:
        ended = ended | (ids == criteria.boundary)
    if criteria.stop.shape[0]:
        recent = xp.concat([recent[:, 1:], xp.reshape(ids, (-1, 1))], axis=1)
        ended = ended | xp.all(recent == criteria.stop, axis=1)
    return GenerationState(ids, states, recent, ended)


def read_prompt(config: Configs, params: Any, backend: Backend, ids: HostArray) -> tuple[HostArray, tuple[Any, ...]]:
    """The logits (1, V) of what comes after the ids (n,) of a text, and the states (1, H) there."""
    logits, states = None, None
    for t in range(0, len(ids), WINDOW):
        x = np.asarray(ids[t : t + WINDOW], np.int64)[:, None]
        logits, states = prediction.forward(config, params, backend.put(x), states)
    if logits is None or states is None:
        raise ValueError("a text begins with the start symbol")
    return prediction.check_finite(backend.get(logits[-1, ...])), states


def uniform_numbers(seed: int, first: int, count: int) -> Iterator[HostArray]:
    """Yield arrays of `count` random numbers in [0, 1) without end, one for each text from text number `first` on.

    The numbers of a text depend only on the seed and on the number of the text, not on the texts generated beside it. The text
    that is made of them may: products of another width round in another way.
    """
    blocks = range(first // RNG_BLOCK, (first + count - 1) // RNG_BLOCK + 1)
    # a spawn key keeps apart what a list of numbers does not: [2**32 + 5, 0] is [5, 1] there, word by word
    generators = [np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(block,))) for block in blocks]
    while True:
        yield np.concatenate([rng.random(RNG_BLOCK) for rng in generators])[first % RNG_BLOCK :][:count]


def _take_rows(nested: Any, rows: HostArray, backend: Backend) -> Any:
    """Some rows of all arrays."""
    places = backend.put(rows)
    return tree.tree_map(lambda a: namespace(a).take(a, places, axis=0), nested)


def hold_back_stop(ids: Iterable[int], criteria: StopCriteria) -> Iterator[int]:
    """The ids of one text, each as soon as it is certain not to belong to the boundary or stop string at the end."""
    stop = criteria.stop.tolist()
    held: list[int] = []  # what could be the beginning of the stop string
    for i in ids:
        if i == criteria.boundary:
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
