"""The logits of the next token, of one model or of an ensemble (the mean of the probabilities), and -log p of targets."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bptt.backend import Array, HostArray, namespace
from bptt.data.batches import Batch
from bptt.errors import InputError, option
from bptt.nn import loss, model, tree

Configs = model.Config | tuple[model.Config, ...]  # of one model, or of each model of an ensemble


def forward(config: Configs, params: Any, x: Array, states: Any = None) -> tuple[Array, Any]:
    """Logits (T, B, V) for tokens x (T, B), and the next states; `states` None begins a text.

    Of an ensemble, `config`, `params` and both states are tuples with an entry for each model.
    """
    if isinstance(config, model.Config):
        return model.forward(config, params, x, states)[:2]
    logits, after = [], []
    for k, member in enumerate(config):
        member_logits, state, _ = model.forward(member, params[k], x, None if states is None else states[k])
        logits.append(member_logits)
        after.append(state)
    return log_mean_probabilities(logits), tuple(after)


def target_nats(config: Configs, params: Any, batch: Batch, states: Any = None) -> tuple[Array, Any]:
    """-log p of every target (T, W) of the first W columns of a batch, and their next states.

    The columns behind them ended before the batch and are not computed; where the longest come first, that is all of these.
    """
    W = 1 + int(np.flatnonzero(batch.window.lengths).max(initial=0))
    if states is not None:
        states = tree.tree_map(lambda a: a[:W, ...], states)
    logits, after = forward(config, params, batch.x[:, :W], states)
    return loss.nats(logits, batch.y[:, :W]), after


def check_finite(results: HostArray) -> HostArray:
    """Return results of a model, or raise an InputError where one of them is infinite or no number."""
    if not np.isfinite(results).all():
        problem = "the predictions of the model are not finite numbers: its weights are too large"
        raise InputError(f"{problem}: compute in another type with {option('dtype', 'float64')}, or use another checkpoint")
    return results


def log_mean_probabilities(logits: Sequence[Array]) -> Array:
    """The logarithm of the mean of the softmax of each of several logits (T, B, V), in the widest of their types.

    It never leaves the logarithms, so that no probability becomes 0.
    """
    xp = namespace(logits[0])
    widest = xp.result_type(*logits)
    log_sum = functools.reduce(xp.logaddexp, [log_softmax(xp.astype(each, widest, copy=False)) for each in logits])
    return log_sum - math.log(len(logits))


def log_softmax(logits: Array) -> Array:
    """The logarithm of the softmax over the last axis; the maximum is taken off first, so that no exp overflows."""
    xp = namespace(logits)
    s = logits - xp.max(logits, axis=-1, keepdims=True)
    return s - xp.log(xp.sum(xp.exp(s), axis=-1, keepdims=True))
