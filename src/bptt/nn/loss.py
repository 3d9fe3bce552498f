"""Softmax cross-entropy: the mean over all targets, in nats (multiply by 1/ln 2 for bits)."""

from typing import NamedTuple

from bptt.backend import Array, device, namespace
from bptt.dispatch import accelerated
from bptt.nn.ops import flatten_time, one_hot


class Cache(NamedTuple):
    """What backward needs from forward."""

    p: Array  # (T, B, V): softmax of the logits
    y: Array  # (T, B)
    weight: Array  # (T, B): 1 / number of targets, 0 in the padding


def nats(logits: Array, y: Array) -> Array:
    """-log p(y) for every target, (T, B), given logits (T, B, V) and y (T, B)."""
    return _softmax(logits, y)[0]


def forward(logits: Array, y: Array, mask: Array, count: Array | None = None) -> tuple[Array, Cache]:
    """The mean of -log p(y) over the targets that count: logits (T, B, V), ids y (T, B), mask (T, B) of ones and zeros.

    `count` () is the number of all targets, where these are some of them: the result is then their share of the mean.
    Without a target that counts, or with a count of 0 and a mask of zeros, loss and gradient are 0.
    """
    mean, p, weight = cross_entropy(logits, y, mask, count)
    return mean, Cache(p, y, weight)


def backward(cache: Cache) -> Array:
    """The gradient with respect to the logits, (T, B, V): (p - one_hot(y)) / number of targets."""
    return cross_entropy_backward(*cache)


@accelerated
def cross_entropy(logits: Array, y: Array, mask: Array, count: Array | None) -> tuple[Array, Array, Array]:
    """The result of `forward` (), the softmax p (T, B, V), and the weight of each target (T, B)."""
    xp = namespace(logits)
    each, p = _softmax(logits, y)
    weight = mask / xp.maximum(xp.sum(mask) if count is None else count, 1.0)  # no targets: 0 / 1
    return xp.sum(each * weight), p, weight


@accelerated
def cross_entropy_backward(p: Array, y: Array, weight: Array) -> Array:
    """(p - one_hot(y)) times the weight of each target, (T, B, V), given p (T, B, V), ids y (T, B) and weight (T, B)."""
    xp = namespace(p)
    d = (flatten_time(p) - one_hot(y, p.shape[2], p)) * xp.reshape(weight, (-1, 1))
    return xp.reshape(d, p.shape)


def _softmax(logits: Array, y: Array) -> tuple[Array, Array]:
    """-log p(y) for every target (T, B), and p (T, B, V).

    The maximum of each row is taken off first, so that no exp overflows.
    """
    xp = namespace(logits)
    s = logits - xp.max(logits, axis=2, keepdims=True)
    e = xp.exp(s)
    normalizer = xp.sum(e, axis=2, keepdims=True)
    targets = xp.reshape(y, (-1,)) + s.shape[2] * xp.arange(y.shape[0] * y.shape[1], dtype=y.dtype, device=device(y))
    s_y = xp.reshape(xp.take(xp.reshape(s, (-1,)), targets), y.shape)
    return xp.log(normalizer[:, :, 0]) - s_y, e / normalizer  # -log(exp(s_y) / normalizer)
