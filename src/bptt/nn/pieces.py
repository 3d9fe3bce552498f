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
from bptt.nn import gradient, loss, model, packing

Every = int | Literal["sqrt"]

OVER = 0.5  # share of its columns that may be over before a piece ends
WORTH = 3e6  # multiplications by a recurrent weight that the end of a piece must save: it costs a quarter of a millisecond


class Piece(NamedTuple):
    """Some steps of the first columns of a batch."""

    first: int
    end: int
    width: int  # columns


class Forward(NamedTuple):
    """What backward needs of a piece, and the states after it."""

    cache: model.Cache
    share: Array  # () of the mean
    loss_cache: loss.Cache
    after: tuple[Any, ...]


def length(every: Every, T: int) -> int:
    """The steps k of a piece of T: as many as are told, or the square root of T, rounded up."""
    return math.isqrt(T - 1) + 1 if every == "sqrt" else min(every, T)


def cut(config: model.Config, lengths: Sequence[int], most: int) -> list[Piece]:
    """The pieces, of at most so many steps, of a batch whose columns have so many steps each, the longest first.

    Columns in another order are right, too, but save less: all up to the last one that goes on are computed.
    """
    if 0 < min(lengths) == max(lengths) <= most:
        return [Piece(0, max(lengths), len(lengths))]
    worth = WORTH / (config.layers * model.CELLS[config.cell].GATES * config.hidden**2)  # steps of a column
    until = list(accumulate(reversed(lengths), max))  # upwards: where the last column ends, the last two, and so on
    pieces, first, over = [], 0, bisect_right(until, 0)  # columns that are over
    while over < len(until):
        end = until[over + int(OVER * (len(until) - over - 1))]
        saved = bisect_right(until, end) * (until[-1] - end)
        end = min(end if saved >= worth else until[-1], first + most)
        pieces.append(Piece(first, end, len(until) - over))
        first, over = end, bisect_right(until, end)
    return pieces


def loss_and_gradient(
    theta: Array,
    config: model.Config,
    x: Array,
    y: Array,
    mask: Array,
    states: Array | None = None,
    keep: tuple[Array, ...] = (),
    count: Array | None = None,
    lengths: Sequence[int] | None = None,
    every: Every | None = None,
) -> tuple[Array, Array, Array]:
    """What `gradient.whole` gives, but for the rounding of sums: no gradient is cut.

    `lengths` holds the steps of each column before its padding, by default all T; of a column that is over, the state after
    is one in its padding. With `every` the states between are recomputed.
    """
    T, B = x.shape
    pieces = cut(config, [T] * B if lengths is None else lengths, T if every is None else length(every, T))
    if pieces == [Piece(0, T, B)]:
        return gradient.whole(theta, config, x, y, mask, states, keep, count)
    count = namespace(mask).sum(mask) if count is None else count
    params = packing.unpack(theta, model.shapes(config))

    def forward(piece: Piece, start: Any) -> Forward:
        own = slice(piece.first, piece.end), slice(piece.width)
        logits, after, cache = model.forward(config, params, x[own], start, _columns(keep, 0, piece.width))
        return Forward(cache, *loss.forward(logits, y[own], mask[own], count), _copies(after))

    def backward(piece: Piece, start: Any, done: Forward | None, dafter: Any) -> tuple[Array, Array, Any]:
        # a function of its own, so that what a piece needs is gone when the next one begins
        done = done or forward(piece, start)
        d, dstart = model.backward(config, params, done.cache, loss.backward(done.loss_cache), dafter)
        return done.share, packing.pack(d), dstart

    now, ends = model.initial_states(config, params, B) if states is None else gradient.parted(config, states), []
    starts: list[Any] = []
    held: list[Any] = []  # of each piece what `forward` gave, or None
    for piece in pieces:
        ends.append(_columns(now, piece.width, None))
        now = _columns(now, 0, piece.width)
        starts.append(None if states is None and piece.first == 0 else now)
        if every is None or piece is pieces[-1]:
            held.append(forward(piece, starts[-1]))
            now = held[-1].after
        else:
            held.append(None)
            given = x[piece.first : piece.end, : piece.width], starts[-1], _columns(keep, 0, piece.width)
            now = _copies(model.run(config, params, *given)[1])
    mean, total, dstart = backward(pieces[-1], starts.pop(), held.pop(), None)
    for piece in pieces[-2::-1]:
        share, d, dstart = backward(piece, starts.pop(), held.pop(), _widened(dstart, piece.width))
        mean, total = mean + share, total + d
    after = packing.transform(lambda *rows: namespace(rows[0]).concat(rows), now, *reversed(ends))
    return mean, total, gradient.joined(after)


def _copies(states: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same states by themselves: as views they would keep those of all steps."""
    copies: tuple[Any, ...] = packing.transform(lambda a: namespace(a).asarray(a, copy=True), states)
    return copies


def _columns(tree: Any, first: int, end: int | None) -> Any:
    """Some rows of arrays (B, H): those of some columns."""
    return packing.transform(lambda a: a[first:end, ...], tree)


def _widened(tree: Any, width: int) -> Any:
    """Arrays (B, H) with zeros for the columns beyond theirs."""

    def widened(a: Array) -> Array:
        xp = namespace(a)
        zeros = xp.zeros((width - a.shape[0], a.shape[1]), dtype=a.dtype, device=device(a))
        return xp.concat([a, zeros])

    return packing.transform(widened, tree)
