"""Sampling one character from logits: temperature, top-k, top-p (nucleus sampling), on the device of the logits."""

from typing import NamedTuple

from bptt.backend import Array, device, namespace, widest_float

NOTHING = -750.0  # of which exp is 0


class SamplingOptions(NamedTuple):
    """How the next character is chosen."""

    temperature: float = 1.0  # divides the logits; 0: always the most likely character
    top_k: int | None = None  # keep the k most likely characters
    top_p: float | None = None  # keep the fewest most likely characters whose probability reaches p


def unnormalized_probabilities(logits: Array, options: SamplingOptions) -> Array:
    """The probability of each next character times a factor of its row (B, V), given logits (B, V).

    Computed in float64 where the device has it. The temperature divides the logits; then the `top_k` most likely characters
    stay, the first of equals; of those, the fewest whose share of the probability reaches `top_p` (nucleus sampling: Holtzman
    et al. 2020, arXiv 1904.09751).
    """
    xp, where = namespace(logits), device(logits)
    kind = widest_float(xp, where)
    if options.temperature == 0:
        ids = xp.arange(logits.shape[1], dtype=xp.int64, device=where)
        return xp.astype(ids == xp.reshape(xp.argmax(logits, axis=1), (-1, 1)), kind)
    u = xp.astype(logits, kind)
    u = u - xp.max(u, axis=1, keepdims=True)
    if options.temperature != 1.0:
        u = xp.maximum(u, NOTHING * options.temperature) / options.temperature  # a tiny one would overflow
    w = xp.exp(u)
    if options.top_k is None and options.top_p is None:
        return w
    order = xp.argsort(-w, axis=1, stable=True)
    heaviest = xp.take_along_axis(w, order, axis=1)
    if options.top_k is not None:
        heaviest = xp.where(xp.arange(w.shape[1], device=where) < options.top_k, heaviest, 0.0)
    if options.top_p is not None:
        before = xp.cumulative_sum(heaviest, axis=1) - heaviest  # the weight of all that are heavier
        heaviest = xp.where(before < options.top_p * xp.sum(heaviest, axis=1, keepdims=True), heaviest, 0.0)
    return xp.take_along_axis(heaviest, xp.argsort(order, axis=1), axis=1)


def inverse_cdf(w: Array, u: Array) -> Array:
    """One id (B,) for each row of weights (B, V), by the inverse of the distribution function at u (B,) from [0, 1)."""
    xp = namespace(w)
    c = xp.cumulative_sum(w, axis=1)
    u = xp.minimum(u, 1.0 - float(xp.finfo(u.dtype).eps))  # float32 rounds some of [0, 1) to 1, of which the id would be V
    return xp.count_nonzero(c <= u[:, None] * c[:, -1:], axis=1)  # the product is less than the last c, as u is below 1
