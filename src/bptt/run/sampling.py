"""New text from a model: one forward step per character, for many texts at once."""

from collections.abc import Iterator

import numpy as np

from bptt.backend import Backend, HostArray
from bptt.nn import model


def draw(logits: HostArray, temperature: float, rng: np.random.Generator) -> HostArray:
    """One id (B,) for each row of logits (B, V), from softmax(logits / temperature); temperature 0 takes the most likely.

    One uniform number a row and the inverse of the distribution function, in float64: equal logits give equal text.
    """
    if temperature == 0:
        return np.asarray(np.argmax(logits, axis=1))
    u = logits.astype(np.float64)
    with np.errstate(over="ignore"):  # -inf for all but the most likely where the temperature is tiny
        u = (u - u.max(axis=1, keepdims=True)) / temperature
    p = np.cumsum(np.exp(u), axis=1)
    below = p <= rng.random((len(p), 1)) * p[:, -1:]  # the product is below the last sum: 1 - 2**-53 is its largest factor
    return np.asarray(below.sum(axis=1))


def generate(
    config: model.Config,
    params: model.Params,
    backend: Backend,
    prompt: HostArray,
    count: int,
    temperature: float,
    rng: np.random.Generator,
) -> Iterator[HostArray]:
    """Ids (count,) of one character after the other for `count` texts that go on from the ids of a prompt (n,), for ever."""
    x = np.repeat(np.asarray(prompt, np.int64)[:, None], count, axis=1)  # (n, count), then (1, count)
    states = None
    while True:
        logits, states, _ = model.forward(config, params, backend.put(x), states)
        x = draw(backend.get(logits[-1, ...]), temperature, rng)[None, :]
        yield x[0]
