"""BPTT over segments of time: skip finished columns, recompute states (gradient checkpointing).

A segment is some consecutive steps of a batch. The states go forward from segment to segment, the gradient with respect to them
goes back, and the gradients of the parameters add up. Truncated BPTT cuts the gradient between batches, never between segments.

Skipping: once half of the columns have ended (padding), the next segment computes only the others.

Gradient checkpointing: with `recompute_every` = k the forward pass keeps the states of every k-th step, and the backward pass
recomputes those between (Gruslys et al. 2016, arXiv 1606.03401; segments of one length as in Chen et al. 2016, arXiv
1604.06174). At any time T/k states are in memory and what the backward pass needs of k steps, which is about the least for
k = sqrt(T). The price is a second forward pass.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Literal, NamedTuple

from bptt.backend import Array, device, namespace
from bptt.nn import gradient, loss, model, tree

RecomputeEvery = int | Literal["sqrt"]

MAX_FINISHED = 0.5  # fraction of its columns that may have ended before a segment ends
MIN_SAVING = 3e6  # multiplications that starting a new segment must save, for each start costs about 0.25 ms


class Segment(NamedTuple):
    """Steps `first` to `end` of the first `width` columns of a batch."""

    first: int
    end: int
    width: int


class SegmentForward(NamedTuple):
    """The forward pass of a segment: what its backward pass needs, and the states after it."""

    cache: model.Cache
    mean: Array  # (): its part of the mean loss over all targets
    loss_cache: loss.Cache
    after: Array  # (L, S, B, H)


class SegmentInputs(NamedTuple):
    """The arrays of a segment."""

    x: Array  # (T, B), and below
    y: Array
    mask: Array
    keep: tuple[Array, ...]  # the dropout masks (B, H) of each layer


def segment_length(recompute_every: RecomputeEvery, T: int) -> int:
    """The steps k of a segment out of T: `recompute_every`, or the square root of T, rounded up."""
    return math.isqrt(T - 1) + 1 if recompute_every == "sqrt" else min(recompute_every, T)


def split(config: model.Config, lengths: Sequence[int], max_steps: int) -> list[Segment]:
    """The segments of a batch, of at most `max_steps` steps, given the steps of each column, the longest first.

    Columns in another order give the same results, but save less: all columns up to the last unfinished one are computed.
    """
    if 0 < min(lengths) == max(lengths) <= max_steps:
        return [Segment(0, max(lengths), len(lengths))]
    min_steps = MIN_SAVING / config.recurrent_weights  # of a column, to be saved
    until = list(accumulate(reversed(lengths), max))  # ascending: where the last column ends, the last two, and so on
    segments, first, finished = [], 0, bisect_right(until, 0)
    while finished < len(until):
        end = until[finished + int(MAX_FINISHED * (len(until) - finished - 1))]
        saved = bisect_right(until, end) * (until[-1] - end)
        end = min(end if saved >= min_steps else until[-1], first + max_steps)
        segments.append(Segment(first, end, len(until) - finished))
        first, finished = end, bisect_right(until, end)
    return segments


def loss_and_grad(
    params_vector: Array,
    config: model.Config,
    x: Array,
    y: Array,
    mask: Array,
    states: Array | None = None,
    keep: tuple[Array, ...] = (),
    *,
    count: Array | None = None,
    lengths: Sequence[int] | None = None,
    recompute_every: RecomputeEvery | None = None,
) -> tuple[Array, Array, Array]:
    """`gradient.loss_and_grad` up to rounding: segment by segment, with the exact gradient across their borders.

    `lengths` holds the steps of each column before its padding, by default all T; the state after a finished column is one in
    its padding. With `recompute_every`, states are recomputed in the backward pass (gradient checkpointing).
    """
    # 1. Split the batch; a single segment needs nothing of what follows
    T, B = x.shape
    max_steps = T if recompute_every is None else segment_length(recompute_every, T)
    segments = split(config, [T] * B if lengths is None else lengths, max_steps)
    if segments == [Segment(0, T, B)]:
        return gradient.loss_and_grad(params_vector, config, x, y, mask, states, keep, count)
    inputs = [_inputs(segment, x, y, mask, keep) for segment in segments]
    count = namespace(mask).sum(mask) if count is None else count
    params = tree.unravel(params_vector, model.shapes(config))

    # 2. Forward: keep the states before each segment and, unless they are recomputed, the arrays for its backward pass
    state = gradient.stack_states(model.initial_states(config, params, B)) if states is None else states
    starts: list[Array | None] = []
    finished: list[Array] = []  # the states of columns that have ended, in the order in which they end
    forwards: list[SegmentForward] = []  # the only reference to each
    for segment, segment_input in zip(segments, inputs):
        if segment.width < state.shape[2]:
            finished.append(state[:, :, segment.width :, :])
            state = state[:, :, : segment.width, :]
        starts.append(None if states is None and segment.first == 0 else state)
        if recompute_every is None:
            forwards.append(_forward(config, params, segment_input, starts[-1], count))
            state = forwards[-1].after
        elif segment is not segments[-1]:
            state = _advance(config, params, segment_input, starts[-1])

    # 3. Backward: from the last segment to the first, each hands the gradient with respect to its first states on
    def backward(segment_input: SegmentInputs, dafter: Array | None) -> tuple[Array, ...]:
        start = starts.pop()
        if recompute_every is None:
            return _grad(config, params, forwards.pop(), dafter)
        x, y, mask, keep = segment_input
        return gradient.segment_loss_and_grad(params_vector, config, x, y, mask, start, keep, count, dafter)

    mean, grad, after, dstart = backward(inputs[-1], None)
    for segment, segment_input in zip(segments[-2::-1], inputs[-2::-1]):
        segment_mean, segment_grad, _, dstart = backward(segment_input, _widened(dstart, segment.width))
        mean, grad = mean + segment_mean, grad + segment_grad

    # 4. The states after the batch: first the columns of the last segment, then those that ended before it
    return mean, grad, namespace(after).concat([after, *reversed(finished)], axis=2)


def _inputs(segment: Segment, x: Array, y: Array, mask: Array, keep: tuple[Array, ...]) -> SegmentInputs:
    block = slice(segment.first, segment.end), slice(segment.width)
    return SegmentInputs(x[block], y[block], mask[block], tuple(layer[: segment.width, ...] for layer in keep))


def _forward(
    config: model.Config, params: model.Params, inputs: SegmentInputs, start: Array | None, count: Array
) -> SegmentForward:
    logits, after, cache = model.forward(config, params, inputs.x, _unstacked(config, start), inputs.keep)
    return SegmentForward(cache, *loss.forward(logits, inputs.y, inputs.mask, count), gradient.stack_states(after))


def _advance(config: model.Config, params: model.Params, inputs: SegmentInputs, start: Array | None) -> Array:
    """The states (L, S, B, H) after a segment, without what its backward pass needs."""
    return gradient.stack_states(model.run_layers(config, params, inputs.x, _unstacked(config, start), inputs.keep)[1])


def _grad(config: model.Config, params: model.Params, forward: SegmentForward, dafter: Array | None) -> tuple[Array, ...]:
    """Part of the mean, gradient (P,), states after the segment, gradient with respect to the states before it."""
    mean, after = forward.mean, forward.after
    grad, dstart = model.backward(config, params, forward.cache, loss.backward(forward.loss_cache), _unstacked(config, dafter))
    del forward  # its memory serves the vector
    return mean, tree.ravel(grad), after, gradient.stack_states(dstart)


def _unstacked(config: model.Config, states: Array | None) -> tuple[Any, ...] | None:
    return None if states is None else gradient.unstack_states(config, states)


def _widened(states: Array, width: int) -> Array:
    """States (L, S, B, H) with zeros for the columns beyond theirs."""
    xp, (L, S, B, H) = namespace(states), states.shape
    zeros = xp.zeros((L, S, width - B, H), dtype=states.dtype, device=device(states))
    return xp.concat([states, zeros], axis=2)
