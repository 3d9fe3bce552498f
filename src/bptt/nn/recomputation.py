"""Gradients through more steps than fit in memory: keep the states of every k-th step, and recompute those between.

Gruslys et al. 2016 (arXiv 1606.03401), with pieces of one length as in Chen et al. 2016 (arXiv 1604.06174). Alive at a time are
T/k states and what backward needs of k steps, about the least where k = sqrt(T); the price is to run the layers once more.
"""

import math
import operator
from typing import Any, Literal

from bptt.backend import Array, namespace
from bptt.nn import loss, model, packing

Every = int | Literal["sqrt"]


def length(every: Every, T: int) -> int:
    """The steps k of a piece of T: as many as are told, or the square root of T, rounded up."""
    return math.isqrt(T - 1) + 1 if every == "sqrt" else min(every, T)


def loss_and_gradient(
    config: model.Config,
    params: model.Params,
    x: Array,
    y: Array,
    mask: Array,
    states: tuple[Any, ...] | None = None,
    keep: tuple[Array, ...] = (),
    count: Array | None = None,
    every: Every = "sqrt",
) -> tuple[Array, model.Params, tuple[Any, ...]]:
    """What `model.loss_and_gradient` gives, but for the rounding of sums: nothing is cut, one piece at a time is in memory."""
    T, count = x.shape[0], namespace(mask).sum(mask) if count is None else count
    k = length(every, T)
    pieces = [slice(t, min(t + k, T)) for t in range(0, T, k)]

    def backward(piece: slice, start: Any, dafter: Any) -> tuple[Array, model.Params, Any, Any]:
        # a function of its own, so that what a piece needs is gone when the next one begins
        logits, after, cache = model.forward(config, params, x[piece, ...], start, keep)
        share, loss_cache = loss.forward(logits, y[piece, ...], mask[piece, ...], count)
        d, dstart = model.backward(config, params, cache, loss.backward(loss_cache), dafter)
        return share, d, dstart, _copies(after)

    starts = [states]
    for piece in pieces[:-1]:
        starts.append(_copies(model.run(config, params, x[piece, ...], starts[-1], keep)[1]))
    mean, gradient, dstart, after = backward(pieces[-1], starts[-1], None)
    for piece, start in zip(pieces[-2::-1], starts[-2::-1]):
        share, d, dstart, _ = backward(piece, start, dstart)
        mean, gradient = mean + share, packing.transform(operator.add, gradient, d)
    return mean, gradient, after


def _copies(states: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same states by themselves: as views they would keep those of all steps."""
    copies: tuple[Any, ...] = packing.transform(lambda a: namespace(a).asarray(a, copy=True), states)
    return copies
