"""The kernel of a whole gradient: from the vector of the parameters to the one of their gradient in a single call.

In a vector there are, layer after layer, Wax, Waa, b and a GRU's ban; then the initial states, if they are learned; Wya; by.
`sizes` is L layers, S states and G gates of each, V symbols, H units, M = H where there is a ban, else 0. `gates` is a tuple of
G elements, whose length tells Numba the cell: what is written for another is not compiled.
"""

from typing import Any

import numpy as np

from bptt.kernels.cpu import cells, loss
from bptt.kernels.cpu.gemm import fill, room
from bptt.kernels.cpu.jit import compiled


def model_sizes(config: Any) -> tuple[int, ...]:
    """The sizes of a model."""
    cell = config.definition
    S, G, has_ban = len(cell.State._fields), len(cell.GATES), "ban" in cell.Params._fields
    return config.layers, S, G, config.vocabulary, config.hidden, has_ban * config.hidden


@compiled
def layer_offset(layer: int, sizes: Any) -> Any:
    """Where the parameters of a layer begin, or after the last one the initial states."""
    _, _, G, V, H, M = sizes
    return (G * H * (V + H + 1) + M) * min(layer, 1) + (G * H * (2 * H + 1) + M) * max(layer - 1, 0)


@compiled
def layer_weights(params_vector: Any, layer: int, sizes: Any) -> Any:
    """Wax, Waa, b and ban of a layer."""
    _, _, G, V, H, M = sizes
    Wax, N, I = layer_offset(layer, sizes), G * H, H if layer else V
    Waa, b, ban = Wax + N * I, Wax + N * (I + H), Wax + N * (I + H + 1)
    return (
        params_vector[Wax:Waa].reshape(N, I),
        params_vector[Waa:b].reshape(N, H),
        params_vector[b:ban],
        params_vector[ban : ban + M],
    )


@compiled
def write_flat(d: Any, begin: int, flat: Any) -> Any:
    """Copy the elements of an array into vector d from index `begin` on; return the index after them."""
    for i in range(flat.size):
        d[begin + i] = flat[i]
    return begin + flat.size


@compiled
def initial_states(params_vector: Any, states: Any, B: int, sizes: Any) -> Any:
    """The states (L, S, B, H) to begin with: those that are given, else the learned ones, or zeros."""
    L, S, _, V, H, _ = sizes
    begin, before = layer_offset(L, sizes), np.zeros((L, S, B, H), params_vector.dtype)
    if states.size == 0 and begin < params_vector.size - V * (H + 1):
        for layer in range(L):
            for field in range(S):
                for k in range(B):
                    for h in range(H):
                        before[layer, field, k, h] = params_vector[begin + h]
                begin += H
    return states if states.size else before


@compiled
def write_initial_states(d: Any, dbefore: Any, fresh: bool, sizes: Any) -> None:
    """Enter the gradient of the initial states, if they are learned: the sum over the sequences that began with them."""
    L, S, _, V, H, _ = sizes
    begin = layer_offset(L, sizes)
    if begin < d.size - V * (H + 1):
        for layer in range(L):
            for field in range(S):
                for h in range(H):
                    d[begin + h] = 0
                if fresh:
                    for row in dbefore[layer, field]:
                        for h in range(H):
                            d[begin + h] += row[h]
                begin += H


@compiled
def apply_dropout(a: Any, keep: Any, layer: int) -> Any:
    """What leaves a layer, a (T, B, H), under the dropout mask of the layer, if there are masks."""
    if not keep.size:
        return a
    out = np.empty_like(a)
    for t in range(a.shape[0]):
        for k in range(a.shape[1]):
            for h in range(a.shape[2]):
                out[t, k, h] = a[t, k, h] * keep[layer, k, h]
    return out


@compiled
def output_loss(params_vector: Any, d: Any, a: Any, y: Any, mask: Any, of: float, sizes: Any) -> Any:
    """The loss, and da (T, B, H); the gradients of the output layer are entered."""
    V, H = sizes[3], sizes[4]
    Wya, by = params_vector.size - V * (H + 1), params_vector.size - V
    W, b = params_vector[Wya:by].reshape(V, H), params_vector[by:]
    mean, p, weight = loss.cross_entropy(loss.affine(W, a, b), y, mask, of)
    da, dW, db = loss.affine_backward(W, a, loss.cross_entropy_backward(p, y, weight))
    write_flat(d, write_flat(d, Wya, dW.reshape(-1)), db)
    return mean, da


@compiled
def loss_and_grad(
    params_vector: Any, x: Any, y: Any, mask: Any, states: Any, keep: Any, of: float, dafter: Any, sizes: Any, gates: Any
) -> Any:
    """The loss, its gradient (P,), and the states after (L, S, B, H); then the gradient with respect to those before.

    `dafter` (L, S, B, H) is the gradient with respect to the states after; or it is empty.
    """
    (T, B), L, S = x.shape, sizes[0], sizes[1]
    before = initial_states(params_vector, states, B, sizes)
    after, dbefore, d = np.empty_like(before), np.empty_like(before), np.empty_like(params_vector)
    following = dafter if dafter.size else np.zeros_like(before)
    tokens, inputs, caches = np.zeros_like(x), [np.empty((T, B, 0), params_vector.dtype)], []
    for layer in range(L):
        Wax, Waa, b, ban = layer_weights(params_vector, layer, sizes)
        ids, layer_input, start = tokens if layer else x, inputs[layer], before[layer]
        if len(gates) == 4:
            cache = cells.lstm(Wax, Waa, b, ids, layer_input, start[0], start[1])
        elif len(gates) == 3:
            cache = cells.gru(Wax, Waa, b, ban, ids, layer_input, start[0])
        else:
            cache = (cells.vanilla(Wax, Waa, b, ids, layer_input, start[0]),)
        for field in range(S):
            fill(after[layer, field], cache[field][T])
        caches.append(cache)
        inputs.append(apply_dropout(cache[0][1:], keep, layer))
    mean, da = output_loss(params_vector, d, inputs[L], y, mask, of, sizes)
    for layer in range(L - 1, -1, -1):
        Wax, Waa, b, dban = layer_weights(params_vector, layer, sizes)
        ids, layer_input, cache = tokens if layer else x, inputs[layer], caches[layer]
        da, dfield = apply_dropout(da, keep, layer), following[layer]
        dWaa_out = layer_weights(d, layer, sizes)[1]
        into = room(dWaa_out)
        if len(gates) == 4:
            da0, dc0, grads = cells.lstm_backward(
                Wax, Waa, ids, layer_input, cache[0], cache[1], cache[2], da, dfield[0], dfield[1], into
            )
            fill(dbefore[layer, 1], dc0)
        elif len(gates) == 3:
            a, ru, n, p = cache
            da0, dban, grads = cells.gru_backward(Wax, Waa, ids, layer_input, a, ru, n, p, da, dfield[0], into)
        else:
            da0, grads = cells.vanilla_backward(Wax, Waa, ids, layer_input, cache[0], da, dfield[0], into)
        fill(dbefore[layer, 0], da0)
        da, dWax, dWaa, db = grads
        if len(into) > len(dWaa_out):
            fill(dWaa_out, dWaa)
        end = write_flat(d, layer_offset(layer, sizes), dWax.reshape(-1))
        write_flat(d, write_flat(d, end + dWaa_out.size, db), dban)
    write_initial_states(d, dbefore, states.size == 0, sizes)
    return mean, d, after, dbefore
