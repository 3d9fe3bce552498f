"""The twin of a whole gradient: from the vector of the parameters to the one of their gradient in a single call.

In a vector there are, layer after layer, Wax, Waa, b and a GRU's ban; then the initial states, if they are learned; Wya; by.
`sizes` is L layers, S states and G gates of each, V symbols, H units, M = H where there is a ban, else 0. `gates` is a tuple of
G elements, whose length tells Numba the cell: what is written for another is not compiled.
"""

from typing import Any

import numpy as np

from bptt.fused import cells, readout
from bptt.fused.compiling import compiled
from bptt.fused.product import fill


@compiled
def place(layer: int, sizes: Any) -> Any:
    """Where the parameters of a layer begin, or after the last one the initial states."""
    _, _, G, V, H, M = sizes
    return (G * H * (V + H + 1) + M) * min(layer, 1) + (G * H * (2 * H + 1) + M) * max(layer - 1, 0)


@compiled
def weights(theta: Any, layer: int, sizes: Any) -> Any:
    """Wax, Waa, b and ban of a layer."""
    _, _, G, V, H, M = sizes
    Wax, N, I = place(layer, sizes), G * H, H if layer else V
    Waa, b, ban = Wax + N * I, Wax + N * (I + H), Wax + N * (I + H + 1)
    return theta[Wax:Waa].reshape(N, I), theta[Waa:b].reshape(N, H), theta[b:ban], theta[ban : ban + M]


@compiled
def enter(d: Any, begin: int, arrays: Any) -> None:
    """Enter arrays of one type into a vector, one after the other."""
    for array in arrays:
        for one in array.reshape(-1):
            d[begin] = one
            begin += 1


@compiled
def starts(theta: Any, states: Any, B: int, sizes: Any) -> Any:
    """The states (L, S, B, H) to begin with: those that are given, else the learned ones, or zeros."""
    L, S, _, V, H, _ = sizes
    begin, found = place(L, sizes), np.zeros((L, S, B, H), theta.dtype)
    if states.size:
        return states
    if begin < theta.size - V * (H + 1):
        learned = theta[begin : begin + L * S * H].reshape(L, S, H)
        for layer in range(L):
            for field in range(S):
                for k in range(B):
                    fill(found[layer, field, k : k + 1], learned[layer, field].reshape(1, H))
    return found


@compiled
def enter_starts(d: Any, dbefore: Any, fresh: bool, sizes: Any) -> None:
    """Enter the gradient of the initial states, if they are learned: the sum over the sequences that began with them."""
    L, S, _, V, H, _ = sizes
    begin = place(L, sizes)
    if begin < d.size - V * (H + 1):
        learned = d[begin : begin + L * S * H].reshape(L, S, H)
        learned[:] = 0
        if fresh:
            for layer in range(L):
                for field in range(S):
                    for row in dbefore[layer, field]:
                        learned[layer, field] += row


@compiled
def dropped(a: Any, keep: Any, layer: int) -> Any:
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
def loss(theta: Any, d: Any, a: Any, y: Any, mask: Any, of: float, sizes: Any) -> Any:
    """The loss, and da (T, B, H); the gradients of the read-out are entered."""
    V, H = sizes[3], sizes[4]
    Wya, by = theta.size - V * (H + 1), theta.size - V
    W, b = theta[Wya:by].reshape(V, H), theta[by:]
    mean, p, weight = readout.cross_entropy(readout.affine(W, a, b), y, mask, of)
    da, dW, db = readout.affine_backward(W, a, readout.cross_entropy_backward(p, y, weight))
    enter(d, Wya, (dW,))
    enter(d, by, (db,))
    return mean, da


@compiled
def forward(theta: Any, layer: int, x: Any, vectors: Any, before: Any, sizes: Any, gates: Any) -> Any:
    """What backward needs of a layer, whose states (T+1, B, H) are the first arrays of it."""
    Wax, Waa, b, ban = weights(theta, layer, sizes)
    if len(gates) == 4:
        return cells.lstm(Wax, Waa, b, x, vectors, before[0], before[1])
    if len(gates) == 3:
        return cells.gru(Wax, Waa, b, ban, x, vectors, before[0])
    return (cells.vanilla(Wax, Waa, b, x, vectors, before[0]),)


@compiled
def backward(theta: Any, layer: int, x: Any, vectors: Any, cache: Any, da: Any, dbefore: Any, sizes: Any, gates: Any) -> Any:
    """dban, and dx, dWax, dWaa, db of a layer, given da (T, B, H); the gradients of its states before go into dbefore."""
    Wax, Waa, _, none = weights(theta, layer, sizes)
    zero = np.zeros_like(dbefore[0])
    if len(gates) == 4:
        a, c, ifgo = cache
        da0, dc0, found = cells.lstm_backward(Wax, Waa, x, vectors, a, c, ifgo, da, zero, zero)
        fill(dbefore[0], da0)
        fill(dbefore[1], dc0)
        return none, found
    if len(gates) == 3:
        a, ru, n, p = cache
        da0, dban, found = cells.gru_backward(Wax, Waa, x, vectors, a, ru, n, p, da, zero)
        fill(dbefore[0], da0)
        return dban, found
    da0, found = cells.vanilla_backward(Wax, Waa, x, vectors, cache[0], da, zero)
    fill(dbefore[0], da0)
    return none, found


@compiled
def gradient(theta: Any, x: Any, y: Any, mask: Any, states: Any, keep: Any, of: float, sizes: Any, gates: Any) -> Any:
    """The loss, its gradient (P,), and the states after (L, S, B, H)."""
    (T, B), L, S = x.shape, sizes[0], sizes[1]
    before = starts(theta, states, B, sizes)
    after, dbefore, d = np.empty_like(before), np.empty_like(before), np.empty_like(theta)
    ids, inputs, caches = np.zeros_like(x), [np.empty((T, B, 0), theta.dtype)], []
    for layer in range(L):
        cache = forward(theta, layer, ids if layer else x, inputs[layer], before[layer], sizes, gates)
        for field in range(S):
            fill(after[layer, field], cache[field][T])
        caches.append(cache)
        inputs.append(dropped(cache[0][1:], keep, layer))
    mean, da = loss(theta, d, inputs[L], y, mask, of, sizes)
    for layer in range(L - 1, -1, -1):
        given = ids if layer else x, inputs[layer], caches[layer], dropped(da, keep, layer)
        ban, (da, dWax, dWaa, db) = backward(theta, layer, *given, dbefore[layer], sizes, gates)
        enter(d, place(layer, sizes), (dWax, dWaa))
        enter(d, place(layer + 1, sizes) - ban.size - db.size, (db, ban))
    enter_starts(d, dbefore, states.size == 0, sizes)
    return mean, d, after
