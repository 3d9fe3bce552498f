"""Kernels of a whole gradient: from the vector of the parameters to the one of their gradient in a single call.

In a vector there are, layer after layer, Wax, Waa, b and a GRU's ban; then the initial states, if they are learned; Wya; by.
"""

from typing import Any, NamedTuple

from bptt.kernels.cpu import cells
from bptt.kernels.cpu.gemm import clear, fill
from bptt.kernels.cpu.layer import Layer
from bptt.kernels.cpu.llvm import Function, allocate, free, select, steps, when
from bptt.kernels.cpu.loss import affine, affine_backward, cross_entropy, cross_entropy_backward
from bptt.kernels.cpu.simd import load, store, width
from bptt.kernels.cpu.values import Double, Flag, Int, Ints, Numbers


class Sizes(NamedTuple):
    """Layers, symbols, units, steps, sequences, elements of the vector."""

    L: Int
    V: Int
    H: Int
    T: Int
    B: Int
    P: Int


class Batch(NamedTuple):
    """What beside the parameters a gradient is computed of; what is not given is no array, and its flag says so."""

    x: Ints  # (T, B)
    y: Ints  # (T, B)
    mask: Numbers  # (T, B)
    targets: Double  # the number of all, or -1: those here
    states: Numbers  # (L, S, B, H)
    fresh: Flag  # no states
    keep: Numbers  # (L, B, H)
    dropout: Flag
    dafter: Numbers  # (L, S, B, H)
    last: Flag  # no gradients with respect to the states after


class Results(NamedTuple):
    """What is computed."""

    mean: Numbers  # ()
    d: Numbers  # (P,)
    after: Numbers  # (L, S, B, H)
    dbefore: Numbers  # (L, S, B, H)


def scale(rows: Numbers, keep: Numbers, into: Numbers, T: Int, size: Int) -> None:
    """Multiply each of T rows of numbers by those of a dropout mask."""
    for t in steps(0, T):
        for i in steps(0, size, width(keep)):
            store(load(rows, t * size + i, size - i) * load(keep, i, size - i), into, t * size + i, size - i)


def initial_states(
    vector: Numbers, learned: Numbers, batch: Batch, rows: Int, sizes: Sizes, before: Numbers, begin: Flag
) -> None:
    """Enter the states (rows, B, H) to begin with: those of the batch, else the learned ones, or zeros."""
    B, H = sizes.B, sizes.H
    clear(before, rows * B * H)
    fill(before, H, batch.states, H, select(batch.fresh, 0, rows * B), H)
    for row in steps(0, select(batch.fresh, select(begin, rows, 0), 0)):
        for k in steps(0, B):
            fill(before + (row * B + k) * H, H, learned + row * H, H, 1, H)


def write_initial_states(dlearned: Numbers, results: Results, batch: Batch, rows: Int, sizes: Sizes, begin: Flag) -> None:
    """Enter the gradient of the initial states, if they are learned: the sum over the sequences that began with them."""
    B, H = sizes.B, sizes.H
    with when(begin):
        clear(dlearned, rows * H)
        for row in steps(0, select(batch.fresh, rows, 0)):
            for k in steps(0, B):
                for h in steps(0, H, width(dlearned)):
                    m = H - h
                    total = load(dlearned, row * H + h, m) + load(results.dbefore, (row * B + k) * H + h, m)
                    store(total, dlearned, row * H + h, m)


def output_loss(Wya: Numbers, a: Numbers, batch: Batch, sizes: Sizes, mean: Numbers, da: Numbers, dWya: Numbers) -> None:
    """Compute the loss, da (T, B, H), and the gradients of the output layer: of Wya (V, H) and of by, which follows it."""
    _, V, H, T, B, _ = sizes
    rows = T * B
    logits, p, weight = allocate(rows * V), allocate(rows * V), allocate(rows)
    affine(Wya, a, Wya + V * H, rows, H, V, logits)
    cross_entropy(logits, batch.y, batch.mask, rows, V, batch.targets, mean, p, weight)
    cross_entropy_backward(p, batch.y, weight, rows, V, logits)
    affine_backward(Wya, a, logits, rows, H, V, da, dWya, dWya + V * H)
    free(logits, p, weight)


def _gradient(name: str, gates: int, widths: tuple[int, ...], states: int, forward: Any, backward: Any) -> Function:
    """Return the function for a cell whose layers keep arrays of so many rows of H, the first `states` of which are states.

    `forward(layer, ban, starts, arrays)` and `backward(layer, arrays, da, dafter, dstarts, dban, into)` call the cell.
    """

    def loss_and_grad(vector: Numbers, batch: Batch, sizes: Sizes, results: Results) -> None:
        """Compute the loss, its gradient (P,), the states after, and the gradient with respect to those before."""
        L, V, H, T, B, P = sizes
        N, M, size, state = H * gates, H * int(gates == 3), T * B * H, B * H
        first, rest = N * (V + H + 1) + M, N * (H * 2 + 1) + M  # elements of a layer
        Wya, rows = P - V * (H + 1), L * states
        at_states = first + rest * (L - 1)
        learned = at_states < Wya
        before = allocate(rows * state)
        initial_states(vector, vector + at_states, batch, rows, sizes, before, learned)
        caches = [allocate(L * (size * columns + (state if i < states else 0))) for i, columns in enumerate(widths)]
        dropped = allocate(select(batch.dropout, L * size, 0))

        def layer_at(index: Int) -> tuple[Int, Layer, list[Numbers]]:
            """Where the parameters of a layer begin, what it reads, and its arrays."""
            begin, deep = select(index > 0, first + rest * (index - 1), 0), index > 0
            arrays = [
                array + index * (size * columns + (state if i < states else 0))
                for (i, columns), array in zip(enumerate(widths), caches)
            ]
            below = arrays[0] - size  # of the layer below, without its first state
            x = select(deep, select(batch.dropout, dropped + (index - 1) * size, below), vector)
            inputs = select(deep, H, V)
            Waa = begin + N * inputs
            weights = vector + begin, vector + Waa, vector + (Waa + N * H)
            return begin, Layer(*weights, batch.x, x, inputs, select(deep, H, 0), T, B, H), arrays

        for index in steps(0, L):
            begin, layer, arrays = layer_at(index)
            starts = [before + (index * states + j) * state for j in range(states)]
            forward(layer, layer.b + N, starts, arrays)
            for j in range(states):
                fill(results.after + (index * states + j) * state, H, arrays[j] + size, H, B, H)
            with when(batch.dropout):
                scale(arrays[0] + state, batch.keep + index * state, dropped + index * size, T, state)

        top = caches[0] + ((L - 1) * (size + state) + state)
        outputs = select(batch.dropout, dropped + (L - 1) * size, top)
        da, other = allocate(size), allocate(size)
        output_loss(vector + Wya, outputs, batch, sizes, results.mean, da, results.d + Wya)

        zero = allocate(select(batch.last, rows * state, 0))
        clear(zero, select(batch.last, rows * state, 0))
        following = select(batch.last, zero, batch.dafter)
        for down in steps(0, L):
            index = L - 1 - down
            begin, layer, arrays = layer_at(index)
            even = (down % 2).is_(0)
            above, below = select(even, da, other), select(even, other, da)
            with when(batch.dropout):
                scale(above, batch.keep + index * state, above, T, state)
            d = results.d + begin
            inputs = N * layer.V
            into = [below, d, d + inputs, d + (inputs + N * H)]  # dx, dWax, dWaa, db
            dafter, dstarts = ([a + (index * states + j) * state for j in range(states)] for a in (following, results.dbefore))
            backward(layer, arrays, above, dafter, dstarts, d + (inputs + N * (H + 1)), into)
        write_initial_states(results.d + at_states, results, batch, rows, sizes, learned)
        free(before, *caches, dropped, da, other, zero)

    return Function(loss_and_grad, name)


vanilla_gradient = _gradient(
    "vanilla_gradient",
    1,
    (1,),
    1,
    lambda layer, ban, starts, arrays: cells.vanilla(layer, *starts, *arrays),
    lambda layer, arrays, da, dafter, dstarts, dban, into: cells.vanilla_backward(layer, *arrays, da, *dafter, *dstarts, *into),
)
gru_gradient = _gradient(
    "gru_gradient",
    3,
    (1, 2, 1, 1),
    1,
    lambda layer, ban, starts, arrays: cells.gru(layer, ban, *starts, *arrays),
    lambda layer, arrays, da, dafter, dstarts, dban, into: cells.gru_backward(
        layer, *arrays, da, *dafter, *dstarts, dban, *into
    ),
)
lstm_gradient = _gradient(
    "lstm_gradient",
    4,
    (1, 1, 4),
    2,
    lambda layer, ban, starts, arrays: cells.lstm(layer, *starts, *arrays),
    lambda layer, arrays, da, dafter, dstarts, dban, into: cells.lstm_backward(layer, *arrays, da, *dafter, *dstarts, *into),
)
