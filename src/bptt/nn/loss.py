"""Softmax cross-entropy: the mean over all targets, in nats (multiply by 1/ln 2 for bits)."""

from typing import NamedTuple

from bptt.backend import Array, namespace
from bptt.nn.arrays import one_hot, rows


class Cache(NamedTuple):
    """What backward needs from forward."""

    p: Array  # (T*B, V): softmax of the logits
    target: Array  # (T*B, V): one-hot
    weight: Array  # (T*B, 1): 1 / number of targets, 0 in the padding


def nats(logits: Array, y: Array) -> Array:
    """-log p(y) for every target, (T, B), given logits (T, B, V) and y (T, B)."""
    return namespace(logits).reshape(_terms(logits, y)[0], y.shape)


def forward(logits: Array, y: Array, mask: Array) -> tuple[Array, Cache]:
    """The mean of -log p(y) over the targets that count: logits (T, B, V), ids y (T, B), mask (T, B) of ones and zeros."""
    xp = namespace(logits)
    each, e, total, target = _terms(logits, y)
    weight = xp.reshape(mask, (-1, 1)) / xp.sum(mask)
    return xp.sum(each * weight), Cache(e / total, target, weight)


def backward(cache: Cache, shape: tuple[int, int, int]) -> Array:
    """The gradient with respect to the logits, (T, B, V): (p - one_hot(y)) / number of targets."""
    p, target, weight = cache
    return namespace(p).reshape((p - target) * weight, shape)


def _terms(logits: Array, y: Array) -> tuple[Array, Array, Array, Array]:
    """-log p(y) (T*B, 1), the terms of the softmax (T*B, V) and their sum (T*B, 1), and y one-hot (T*B, V).

    The maximum of each row is taken off first, so that no exp overflows.
    """
    xp = namespace(logits)
    u = rows(logits)
    u = u - xp.max(u, axis=1, keepdims=True)
    e = xp.exp(u)
    total = xp.sum(e, axis=1, keepdims=True)
    target = one_hot(y, u.shape[1], u)
    each = xp.log(total) - xp.sum(u * target, axis=1, keepdims=True)  # -log(exp(u_y) / total)
    return each, e, total, target
