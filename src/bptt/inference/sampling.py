"""How the next character is chosen from what a model thinks of it, on the device that thought of it."""

from typing import NamedTuple

from bptt.backend import Array, device, namespace, widest_float

NOTHING = -750.0  # of which exp is 0


class SamplingOptions(NamedTuple):
    """How the next character is chosen."""

    temperature: float = 1.0  # 0: always the most likely
    top_k: int | None = None  # only so many of the most likely
    top_p: float | None = None  # only the smallest set of the most likely that is so probable


def unnormalized_probabilities(logits: Array, choice: SamplingOptions) -> Array:
    """What each next character weighs (B, V): its probability times a factor of its row, given logits (B, V).

    All is computed in float64, where the device has it.
    The temperature divides the logits; of what that gives the `top_k` heaviest stay, the first of equals; and of those the
    fewest that weigh `top_p` of all together (Holtzman et al. 2020, arXiv 1904.09751).
    """
    xp, where = namespace(logits), device(logits)
    kind = widest_float(xp, where)
    if choice.temperature == 0:
        ids = xp.arange(logits.shape[1], dtype=xp.int64, device=where)
        return xp.astype(ids == xp.reshape(xp.argmax(logits, axis=1), (-1, 1)), kind)
    u = xp.astype(logits, kind)
    u = u - xp.max(u, axis=1, keepdims=True)
    if choice.temperature != 1.0:
        u = xp.maximum(u, NOTHING * choice.temperature) / choice.temperature  # a tiny one would overflow
    w = xp.exp(u)
    if choice.top_k is None and choice.top_p is None:
        return w
    order = xp.argsort(-w, axis=1, stable=True)
    heaviest = xp.take_along_axis(w, order, axis=1)
    if choice.top_k is not None:
        heaviest = xp.where(xp.arange(w.shape[1], device=where) < choice.top_k, heaviest, 0.0)
    if choice.top_p is not None:
        before = xp.cumulative_sum(heaviest, axis=1) - heaviest  # the weight of all that are heavier
        heaviest = xp.where(before < choice.top_p * xp.sum(heaviest, axis=1, keepdims=True), heaviest, 0.0)
    return xp.take_along_axis(heaviest, xp.argsort(order, axis=1), axis=1)


def inverse_cdf(w: Array, u: Array) -> Array:
    """One id (B,) for each row of weights (B, V), by the inverse of the distribution function at u (B,) from [0, 1)."""
    xp = namespace(w)
    c = xp.cumulative_sum(w, axis=1)  # the product below is less than the last of these, as u is below 1
    return xp.count_nonzero(c <= u[:, None] * c[:, -1:], axis=1)
