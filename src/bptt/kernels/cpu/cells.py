"""Kernels of the cells: a whole layer forward and backward, without an array of pre-activations or of their gradients.

A layer reads tokens, `ids` (T, B), or vectors (T, B, I), which are empty where it reads tokens. A row of pre-activations is a
row of Waa a_{t-1}, plus one of Wax x_t for vectors, plus one of a table (V, G*H): the columns of Wax for tokens, with the bias
in each, or the bias alone for vectors, whose ids are all zero.
"""

from typing import Any

import numpy as np

from bptt.kernels.cpu.gemm import BLOCK, fill, multiply, outer_sum, pack, pack_transposed, padded, space, trimmed
from bptt.kernels.cpu.jit import compiled, inlined
from bptt.kernels.cpu.simd import load, sigmoid, store, tanh, width


@compiled
def table(Wax: Any, b: Any, layer_input: Any) -> Any:
    """What is added to each pre-activation (V, N), by token; or one row, (1, N), where the layer reads vectors."""
    N, V = Wax.shape
    if layer_input.size:
        return b.copy().reshape(1, N)
    rows = np.empty((V, N), Wax.dtype)
    for i in range(V):
        for j in range(N):
            rows[i, j] = Wax[j, i] + b[j]
    return rows


@inlined
def vanilla(Wax: Any, Waa: Any, b: Any, ids: Any, layer_input: Any, a0: Any) -> Any:
    """a (T+1, B, H)."""
    T, (B, H), I = ids.shape[0], a0.shape, layer_input.shape[2]
    panels, inputs, added = pack_transposed(Waa), pack_transposed(Wax[:, :I]), table(Wax, b, layer_input)
    a, z = np.empty((T + 1, B, H), Waa.dtype), np.empty((B, padded(H, Waa)), Waa.dtype)
    fill(a[0], a0)
    for t in range(T):
        multiply(a, t * B * H, B, H, panels, z, False)
        if I:
            multiply(layer_input, t * B * I, B, I, inputs, z, True)
        for k in range(B):
            offset, row, start = ((t + 1) * B + k) * H, k * z.shape[1], ids[t, k] * H
            for h in range(0, H, width(a)):
                m = H - h
                store(tanh(load(z, row + h, m) + load(added, start + h, m)), a, offset + h, m)
    return a


@inlined
def gru(Wax: Any, Waa: Any, b: Any, ban: Any, ids: Any, layer_input: Any, a0: Any) -> Any:
    """a (T+1, B, H), r and u (T, B, 2H), n and p (T, B, H)."""
    T, (B, H), I = ids.shape[0], a0.shape, layer_input.shape[2]
    panels, inputs, added = pack_transposed(Waa), pack_transposed(Wax[:, :I]), table(Wax, b, layer_input)
    a, ru = np.empty((T + 1, B, H), a0.dtype), np.empty((T, B, 2 * H), a0.dtype)
    n, p = np.empty((T, B, H), a0.dtype), np.empty((T, B, H), a0.dtype)
    q, z = np.empty((B, padded(3 * H, a0)), a0.dtype), np.zeros((B, padded(3 * H, a0)), a0.dtype)
    fill(a[0], a0)
    for t in range(T):
        multiply(a, t * B * H, B, H, panels, q, False)
        if I:
            multiply(layer_input, t * B * I, B, I, inputs, z, False)
        for k in range(B):
            offset, row, start, gates = (t * B + k) * H, k * q.shape[1], ids[t, k] * 3 * H, (t * B + k) * 2 * H
            for h in range(0, H, width(a)):
                m = H - h
                x = load(z, row + h, m) + load(added, start + h, m)
                r = sigmoid(x + load(q, row + h, m))
                x = load(z, row + H + h, m) + load(added, start + H + h, m)
                u = sigmoid(x + load(q, row + H + h, m))
                x = load(z, row + 2 * H + h, m) + load(added, start + 2 * H + h, m)
                reset = load(q, row + 2 * H + h, m) + load(ban, h, m)
                n_t = tanh(x + r * reset)
                store(r, ru, gates + h, m)
                store(u, ru, gates + H + h, m)
                store(n_t, n, offset + h, m)
                store(reset, p, offset + h, m)
                store(n_t + u * (load(a, offset + h, m) - n_t), a, offset + B * H + h, m)
    return a, ru, n, p


@inlined
def lstm(Wax: Any, Waa: Any, b: Any, ids: Any, layer_input: Any, a0: Any, c0: Any) -> Any:
    """a and c (T+1, B, H), the gates i, f, g, o (T, B, 4H)."""
    T, (B, H), I = ids.shape[0], a0.shape, layer_input.shape[2]
    panels, inputs, added = pack_transposed(Waa), pack_transposed(Wax[:, :I]), table(Wax, b, layer_input)
    a, c = np.empty((T + 1, B, H), a0.dtype), np.empty((T + 1, B, H), a0.dtype)
    gates, z = np.empty((T, B, 4 * H), a0.dtype), np.empty((B, padded(4 * H, a0)), a0.dtype)
    fill(a[0], a0)
    fill(c[0], c0)
    for t in range(T):
        multiply(a, t * B * H, B, H, panels, z, False)
        if I:
            multiply(layer_input, t * B * I, B, I, inputs, z, True)
        for k in range(B):
            offset, row, start, gate = (t * B + k) * H, k * z.shape[1], ids[t, k] * 4 * H, (t * B + k) * 4 * H
            for h in range(0, H, width(a)):
                m = H - h
                i = sigmoid(load(z, row + h, m) + load(added, start + h, m))
                f = sigmoid(load(z, row + H + h, m) + load(added, start + H + h, m))
                g = tanh(load(z, row + 2 * H + h, m) + load(added, start + 2 * H + h, m))
                o = sigmoid(load(z, row + 3 * H + h, m) + load(added, start + 3 * H + h, m))
                c_t = f * load(c, offset + h, m) + i * g
                store(i, gates, gate + h, m)
                store(f, gates, gate + H + h, m)
                store(g, gates, gate + 2 * H + h, m)
                store(o, gates, gate + 3 * H + h, m)
                store(c_t, c, offset + B * H + h, m)
                store(o * tanh(c_t), a, offset + B * H + h, m)
    return a, c, gates


@compiled
def gather(
    dz: Any, dq: Any, row: int, t: int, steps: int, ids: Any, layer_input: Any, a: Any, Wax_panels: Any, dx: Any, sums: Any
) -> None:
    """Add the gradients of some steps from t on: dz and dq (T, B, M), of some rows of z = Wax x + b and of q = Waa a_{t-1}."""
    T, B = ids.shape
    I, H, M, K = layer_input.shape[2], a.shape[2], dz.shape[2], steps * B
    dWaa, dWax, by_token = sums
    add = t + steps < T
    outer_sum(dq.reshape(-1, M), a.reshape(-1, H), t * B, K, dWaa[row:], add)
    if I:
        outer_sum(dz.reshape(-1, M), layer_input.reshape(-1, I), t * B, K, dWax[row:], add)
        multiply(dz, t * B * M, K, M, Wax_panels, dx[t * B : (t + steps) * B], row > 0)
    for s in range(t, t + steps):
        for k in range(B):
            into, d = by_token[ids[s, k]], dz[s, k]
            for j in range(M):
                into[row + j] += d[j]


@compiled
def prepare(Wax: Any, dWaa: Any, ids: Any, layer_input: Any) -> Any:
    """The steps in a block of rows, room for dx, and for the sums dWaa (which is given), dWax and, by token, db."""
    (T, B), I, N = ids.shape, layer_input.shape[2], Wax.shape[0]
    dx = np.empty((T * B, padded(I, Wax)), Wax.dtype)
    by_token = np.zeros((1 if I else Wax.shape[1], N), Wax.dtype)
    return min(T, max(1, BLOCK // B)), dx, (dWaa, space(N, I, Wax), by_token)


@compiled
def finish(dx: Any, sums: Any, Wax: Any, Waa: Any, ids: Any, layer_input: Any) -> Any:
    """dx (T, B, I), dWax, dWaa, db."""
    (T, B), I, (N, H) = ids.shape, layer_input.shape[2], Waa.shape
    dWaa, dWax, by_token = sums
    db = np.zeros(N, Wax.dtype)
    for row in by_token:
        db += row
    if I == 0:
        return dx.reshape(T, B, 0), by_token.T.copy(), trimmed(dWaa, N, H), db
    return trimmed(dx, T * B, I).reshape(T, B, I), trimmed(dWax, N, I), trimmed(dWaa, N, H), db


@inlined
def vanilla_backward(Wax: Any, Waa: Any, ids: Any, layer_input: Any, a: Any, da: Any, da_after: Any, dWaa: Any) -> Any:
    """da0 (B, H), dx, dWax, dWaa, db; da comes to hold dz; dWaa is summed in the `room` that is given."""
    T, B, H = da.shape
    one = da.dtype.type(1)
    panels, Wax_panels = pack(Waa), pack(Wax[:, : layer_input.shape[2]])
    S, dx, sums = prepare(Wax, dWaa, ids, layer_input)
    da_next = np.zeros((B, padded(H, da)), da.dtype)
    fill(da_next, da_after)
    end = T
    while end > 0:
        begin = max(0, end - S)
        for t in range(end - 1, begin - 1, -1):
            for k in range(B):
                offset, row = (t * B + k) * H, k * da_next.shape[1]
                for h in range(0, H, width(a)):
                    m = H - h
                    a_t = load(a, offset + B * H + h, m)
                    da_t = load(da, offset + h, m) + load(da_next, row + h, m)
                    store(da_t * (one - a_t * a_t), da, offset + h, m)
            multiply(da, t * B * H, B, H, panels, da_next, False)
        gather(da, da, 0, begin, end - begin, ids, layer_input, a, Wax_panels, dx, sums)
        end = begin
    return da_next[:, :H].copy(), finish(dx, sums, Wax, Waa, ids, layer_input)


@inlined
def gru_backward(
    Wax: Any, Waa: Any, ids: Any, layer_input: Any, a: Any, ru: Any, n: Any, p: Any, da: Any, da_after: Any, dWaa: Any
) -> Any:
    """da0 (B, H), dban, and dx, dWax, dWaa, db; ru and n come to hold dz, ru and p what is dz for the product with Waa.

    dWaa is summed in the `room` that is given.
    """
    T, B, H = da.shape
    one, I = da.dtype.type(1), layer_input.shape[2]
    panels, inputs = pack(Waa[: 2 * H]), pack(Wax[: 2 * H, :I])
    panels_n, inputs_n = pack(Waa[2 * H :]), pack(Wax[2 * H :, :I])
    S, dx, sums = prepare(Wax, dWaa, ids, layer_input)
    direct, through, dban = np.zeros((B, H), da.dtype), np.zeros((B, padded(H, da)), da.dtype), np.zeros(H, da.dtype)
    fill(through, da_after)
    end = T
    while end > 0:
        begin = max(0, end - S)
        for t in range(end - 1, begin - 1, -1):
            for k in range(B):
                offset, row = (t * B + k) * H, k * through.shape[1]
                for h in range(0, H, width(a)):
                    m = H - h
                    r, u, n_t = load(ru, 2 * offset + h, m), load(ru, 2 * offset + H + h, m), load(n, offset + h, m)
                    da_t = load(direct, k * H + h, m) + load(da, offset + h, m) + load(through, row + h, m)
                    dn = da_t * (one - u) * (one - n_t * n_t)
                    store(dn * load(p, offset + h, m) * r * (one - r), ru, 2 * offset + h, m)
                    store(da_t * (load(a, offset + h, m) - n_t) * u * (one - u), ru, 2 * offset + H + h, m)
                    store(dn, n, offset + h, m)
                    store(dn * r, p, offset + h, m)
                    store(load(dban, h, m) + dn * r, dban, h, m)
                    store(da_t * u, direct, k * H + h, m)
            multiply(ru, t * B * 2 * H, B, 2 * H, panels, through, False)
            multiply(p, t * B * H, B, H, panels_n, through, True)
        gather(ru, ru, 0, begin, end - begin, ids, layer_input, a, inputs, dx, sums)
        gather(n, p, 2 * H, begin, end - begin, ids, layer_input, a, inputs_n, dx, sums)
        end = begin
    return direct + through[:, :H], dban, finish(dx, sums, Wax, Waa, ids, layer_input)


@inlined
def lstm_backward(
    Wax: Any, Waa: Any, ids: Any, layer_input: Any, a: Any, c: Any, gates: Any, da: Any, da_after: Any, dc_after: Any, dWaa: Any
) -> Any:
    """da0 and dc0 (B, H), and dx, dWax, dWaa, db; the gates come to hold dz; dWaa is summed in the `room` that is given."""
    T, B, H = da.shape
    one = da.dtype.type(1)
    panels, Wax_panels = pack(Waa), pack(Wax[:, : layer_input.shape[2]])
    S, dx, sums = prepare(Wax, dWaa, ids, layer_input)
    da_next, dc = np.zeros((B, padded(H, da)), da.dtype), dc_after.copy()
    fill(da_next, da_after)
    end = T
    while end > 0:
        begin = max(0, end - S)
        for t in range(end - 1, begin - 1, -1):
            for k in range(B):
                offset, gate, row = (t * B + k) * H, (t * B + k) * 4 * H, k * da_next.shape[1]
                for h in range(0, H, width(a)):
                    m = H - h
                    i, f = load(gates, gate + h, m), load(gates, gate + H + h, m)
                    g, o = load(gates, gate + 2 * H + h, m), load(gates, gate + 3 * H + h, m)
                    tanh_c = tanh(load(c, offset + B * H + h, m))
                    da_t = load(da, offset + h, m) + load(da_next, row + h, m)
                    inside = load(dc, k * H + h, m) + da_t * o * (one - tanh_c * tanh_c)
                    store(inside * g * i * (one - i), gates, gate + h, m)
                    store(inside * load(c, offset + h, m) * f * (one - f), gates, gate + H + h, m)
                    store(inside * i * (one - g * g), gates, gate + 2 * H + h, m)
                    store(da_t * tanh_c * o * (one - o), gates, gate + 3 * H + h, m)
                    store(inside * f, dc, k * H + h, m)
            multiply(gates, t * B * 4 * H, B, 4 * H, panels, da_next, False)
        gather(gates, gates, 0, begin, end - begin, ids, layer_input, a, Wax_panels, dx, sums)
        end = begin
    return da_next[:, :H].copy(), dc, finish(dx, sums, Wax, Waa, ids, layer_input)
