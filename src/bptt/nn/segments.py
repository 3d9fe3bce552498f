"""A gradient piece by piece in time: nothing is computed of columns that are over, and not all states need be in memory.

To go through more steps than fit in memory, keep the states of every k-th step, and recompute those between: Gruslys et al.
2016 (arXiv 1606.03401), with pieces of one length as in Chen et al. 2016 (arXiv 1604.06174). Alive at a time are T/k states
and what backward needs of k steps, about the least where k = sqrt(T); the price is to run the layers once more.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Literal, NamedTuple

from bptt.backend import Array, device, namespace
from bptt.nn import gradient, loss, model, tree

RecomputeEvery = int | Literal["sqrt"]

MAX_FINISHED = 0.5  # share of its columns that may be over before a piece ends
MIN_SAVING = 3e6  # multiplications by a recurrent weight that the end of a piece must save: it costs a quarter of a millisecond


class Segment(NamedTuple):
    """Some steps of the first columns of a batch."""

    first: int
    end: int
    width: int  # columns


class SegmentForward(NamedTuple):
    """What backward needs of a piece, and the states after it."""

    cache: model.Cache
    share: Array  # () of the mean
    loss_cache: loss.Cache
    after: Array  # (L, S, B, H)


def segment_length(every: RecomputeEvery, T: int) -> int:
    """The steps k of a piece of T: as many as are told, or the square root of T, rounded up."""
    return math.isqrt(T - 1) + 1 if every == "sqrt" else min(every, T)


def split(config: model.Config, lengths: Sequence[int], most: int) -> list[Segment]:
    """The pieces, of at most so many steps, of a batch whose columns have so many steps each, the longest first.

    Columns in another order are right, too, but save less: all up to the last one that goes on are computed.
    """
    if 0 < min(lengths) == max(lengths) <= most:
        return [Segment(0, max(lengths), len(lengths))]
    worth = MIN_SAVING / (config.layers * model.CELLS[config.cell].GATES * config.hidden**2)  # steps of a column
    until = list(accumulate(reversed(lengths), max))  # upwards: where the last column ends, the last two, and so on
    pieces, first, over = [], 0, bisect_right(until, 0)  # columns that are over
    while over < len(until):
        end = until[over + int(MAX_FINISHED * (len(until) - over - 1))]
        saved = bisect_right(until, end) * (until[-1] - end)
        end = min(end if saved >= worth else until[-1], first + most)
        pieces.append(Segment(first, end, len(until) - over))
        first, over = end, bisect_right(until, end)
    return pieces


def loss_and_grad(
    theta: Array,
    config: model.Config,
    x: Array,
    y: Array,
    mask: Array,
    states: Array | None = None,
    keep: tuple[Array, ...] = (),
    count: Array | None = None,
    lengths: Sequence[int] | None = None,
    every: RecomputeEvery | None = None,
) -> tuple[Array, Array, Array]:
    """What `gradient.loss_and_grad` gives, but for the rounding of sums: no gradient is cut.

    `lengths` holds the steps of each column before its padding, by default all T; of a column that is over, the state after
    is one in its padding. With `every` the states between are recomputed.
    """
    T, B = x.shape
    pieces = split(config, [T] * B if lengths is None else lengths, T if every is None else segment_length(every, T))
    if pieces == [Segment(0, T, B)]:
        return gradient.loss_and_grad(theta, config, x, y, mask, states, keep, count)
    count = namespace(mask).sum(mask) if count is None else count
    params = tree.unravel(theta, model.shapes(config))

    def part(piece: Segment) -> tuple[Array, Array, Array, tuple[Array, ...]]:
        own = slice(piece.first, piece.end), slice(piece.width)
        return x[own], y[own], mask[own], tuple(one[: piece.width, ...] for one in keep)

    def nested(states: Array | None) -> tuple[Any, ...] | None:
        return None if states is None else gradient.unstack_states(config, states)

    def forward(piece: Segment, start: Array | None) -> SegmentForward:
        own_x, own_y, own_mask, own_keep = part(piece)
        logits, after, cache = model.forward(config, params, own_x, nested(start), own_keep)
        return SegmentForward(cache, *loss.forward(logits, own_y, own_mask, count), gradient.stack_states(after))

    def run(piece: Segment, start: Array | None) -> Array:
        own_x, _, _, own_keep = part(piece)
        return gradient.stack_states(model.run_layers(config, params, own_x, nested(start), own_keep)[1])

    def backward(piece: Segment, start: Array | None, done: SegmentForward | None, dafter: Array | None) -> tuple[Array, ...]:
        # a function of its own, so that what a piece needs is gone when the next one begins
        if done is None:
            own_x, own_y, own_mask, own_keep = part(piece)
            return gradient.segment_loss_and_grad(theta, config, own_x, own_y, own_mask, start, own_keep, count, dafter)
        share, after = done.share, done.after
        d, dstart = model.backward(config, params, done.cache, loss.backward(done.loss_cache), nested(dafter))
        del done
        return share, tree.ravel(d), after, gradient.stack_states(dstart)

    now, ends = gradient.stack_states(model.initial_states(config, params, B)) if states is None else states, []
    starts: list[Array | None] = []
    held: list[Any] = []  # the Forward of each piece, which nothing else may keep; None where the steps are recomputed
    for piece in pieces:
        if piece.width < now.shape[2]:
            ends.append(now[:, :, piece.width :, :])
            now = now[:, :, : piece.width, :]
        starts.append(None if states is None and piece.first == 0 else now)
        if every is None:
            held.append(forward(piece, starts[-1]))
            now = held[-1].after
        else:
            held.append(None)
            now = run(piece, starts[-1]) if piece is not pieces[-1] else now
    mean, total, after, dstart = backward(pieces[-1], starts.pop(), held.pop(), None)
    for piece in pieces[-2::-1]:
        share, d, _, dstart = backward(piece, starts.pop(), held.pop(), _widened(dstart, piece.width))
        mean, total = mean + share, total + d
    return mean, total, namespace(after).concat([after, *reversed(ends)], axis=2)


def _widened(states: Array, width: int) -> Array:
    """States (L, S, B, H) with zeros for the columns beyond theirs."""
    xp, (L, S, B, H) = namespace(states), states.shape
    zeros = xp.zeros((L, S, width - B, H), dtype=states.dtype, device=device(states))
    return xp.concat([states, zeros], axis=2)
