"""The twins of the cells: a whole layer forward and backward, without an array of pre-activations or of their gradients.

A layer reads tokens, `ids` (T, B), or vectors (T, B, I), which are empty where it reads tokens. A row of pre-activations is a
row of Waa a_{t-1}, plus one of Wax x_t for vectors, plus one of a table (V, G*H): the columns of Wax for tokens, with the bias
in each, or the bias alone for vectors, whose ids are all zero.
"""

from typing import Any

import numpy as np

from bptt.fused.compiling import compiled, inlined
from bptt.fused.product import BLOCK, fill, multiply, outer, pack, pack_transposed, padded, space, trimmed
from bptt.fused.vectors import tanh


@compiled
def table(Wax: Any, b: Any, vectors: Any) -> Any:
    """What is added to each pre-activation (V, N), by token; or one row, (1, N), where the layer reads vectors."""
    N, V = Wax.shape
    if vectors.size:
        return b.copy().reshape(1, N)
    rows = np.empty((V, N), Wax.dtype)
    for i in range(V):
        for j in range(N):
            rows[i, j] = Wax[j, i] + b[j]
    return rows


@inlined
def vanilla(Wax: Any, Waa: Any, b: Any, ids: Any, vectors: Any, a0: Any) -> Any:
    """a (T+1, B, H)."""
    T, (B, H), I = ids.shape[0], a0.shape, vectors.shape[2]
    panels, inputs, added = pack_transposed(Waa), pack_transposed(Wax[:, :I]), table(Wax, b, vectors)
    a, z = np.empty((T + 1, B, H), Waa.dtype), np.empty((B, padded(H, Waa)), Waa.dtype)
    fill(a[0], a0)
    for t in range(T):
        multiply(a, t * B * H, B, H, panels, z, False)
        if I:
            multiply(vectors, t * B * I, B, I, inputs, z, True)
        for k in range(B):
            row, start = z[k], added[ids[t, k]]
            for h in range(H):
                row[h] += start[h]
            for h in range(row.size):  # whole vectors
                row[h] = tanh(row[h])
            for h in range(H):
                a[t + 1, k, h] = row[h]
    return a


@inlined
def gru(Wax: Any, Waa: Any, b: Any, ban: Any, ids: Any, vectors: Any, a0: Any) -> Any:
    """a (T+1, B, H), r and u (T, B, 2H), n and p (T, B, H)."""
    T, (B, H), I = ids.shape[0], a0.shape, vectors.shape[2]
    half = a0.dtype.type(0.5)
    panels, inputs, added = pack_transposed(Waa), pack_transposed(Wax[:, :I]), table(Wax, b, vectors)
    a, ru = np.empty((T + 1, B, H), a0.dtype), np.empty((T, B, 2 * H), a0.dtype)
    n, p = np.empty((T, B, H), a0.dtype), np.empty((T, B, H), a0.dtype)
    q, z = np.empty((B, padded(3 * H, a0)), a0.dtype), np.zeros((B, padded(3 * H, a0)), a0.dtype)
    new = np.zeros(padded(H, a0), a0.dtype)
    fill(a[0], a0)
    for t in range(T):
        multiply(a, t * B * H, B, H, panels, q, False)
        if I:
            multiply(vectors, t * B * I, B, I, inputs, z, False)
        for k in range(B):
            row, x, start, gates, reset = q[k], z[k], added[ids[t, k]], ru[t, k], p[t, k]
            if I:
                for h in range(3 * H):
                    x[h] += start[h]
            else:
                x = start
            for h in range(H):
                reset[h] = row[2 * H + h] + ban[h]
            for h in range(2 * H):
                row[h] = half * (row[h] + x[h])
            for h in range(padded(2 * H, a0)):  # whole vectors
                row[h] = tanh(row[h])
            for h in range(2 * H):
                gates[h] = half * row[h] + half
            for h in range(H):
                new[h] = x[2 * H + h] + gates[h] * reset[h]
            for h in range(new.size):
                new[h] = tanh(new[h])
            for h in range(H):
                n[t, k, h] = new[h]
            for h in range(H):
                a[t + 1, k, h] = new[h] + gates[H + h] * (a[t, k, h] - new[h])
    return a, ru, n, p


@inlined
def lstm(Wax: Any, Waa: Any, b: Any, ids: Any, vectors: Any, a0: Any, c0: Any) -> Any:
    """a and c (T+1, B, H), the gates i, f, g, o (T, B, 4H)."""
    T, (B, H), I = ids.shape[0], a0.shape, vectors.shape[2]
    half = a0.dtype.type(0.5)
    panels, inputs, added = pack_transposed(Waa), pack_transposed(Wax[:, :I]), table(Wax, b, vectors)
    a, c = np.empty((T + 1, B, H), a0.dtype), np.empty((T + 1, B, H), a0.dtype)
    gates = np.empty((T, B, 4 * H), a0.dtype)
    z, out = np.empty((B, padded(4 * H, a0)), a0.dtype), np.zeros(padded(H, a0), a0.dtype)
    fill(a[0], a0)
    fill(c[0], c0)
    for t in range(T):
        multiply(a, t * B * H, B, H, panels, z, False)
        if I:
            multiply(vectors, t * B * I, B, I, inputs, z, True)
        for k in range(B):
            row, start, gate = z[k], added[ids[t, k]], gates[t, k]
            for h in range(4 * H):
                row[h] += start[h]
            for h in range(2 * H):
                row[h] *= half
            for h in range(3 * H, 4 * H):
                row[h] *= half
            for h in range(row.size):  # whole vectors; sigmoid(z) = tanh(z / 2) / 2 + 1 / 2
                row[h] = tanh(row[h])
            for h in range(2 * H):
                gate[h] = half * row[h] + half
            for h in range(2 * H, 3 * H):
                gate[h] = row[h]
            for h in range(3 * H, 4 * H):
                gate[h] = half * row[h] + half
            old, following = c[t, k], c[t + 1, k]
            for h in range(H):
                out[h] = gate[H + h] * old[h] + gate[h] * gate[2 * H + h]
            for h in range(H):
                following[h] = out[h]
            for h in range(out.size):
                out[h] = tanh(out[h])
            for h in range(H):
                a[t + 1, k, h] = gate[3 * H + h] * out[h]
    return a, c, gates


@compiled
def gather(dz: Any, dq: Any, t: int, steps: int, ids: Any, vectors: Any, a: Any, Wax_panels: Any, dx: Any, sums: Any) -> None:
    """Add the gradients of some steps from t on: dz and dq (S, B, N) of z = Wax x + b and of q = Waa a_{t-1}."""
    T, B = ids.shape
    I, H, N, K = vectors.shape[2], a.shape[2], dz.shape[2], steps * B
    dWaa, dWax, by_token = sums
    first = t + steps == T
    outer(dq.reshape(-1, N), a.reshape(-1, H), t * B, K, dWaa, not first)
    if I:
        outer(dz.reshape(-1, N), vectors.reshape(-1, I), t * B, K, dWax, not first)
        multiply(dz, 0, K, N, Wax_panels, dx[t * B : (t + steps) * B], False)
    for s in range(steps):
        for k in range(B):
            row, d = by_token[ids[t + s, k]], dz[s, k]
            for j in range(N):
                row[j] += d[j]


@compiled
def prepare(Wax: Any, Waa: Any, ids: Any, vectors: Any) -> Any:
    """The steps in a block of rows, room for dx, and for the sums dWaa, dWax and, by token, db."""
    (T, B), I, N = ids.shape, vectors.shape[2], Wax.shape[0]
    dx = np.empty((T * B, padded(I, Wax)), Wax.dtype)
    by_token = np.zeros((1 if I else Wax.shape[1], N), Wax.dtype)
    return min(T, max(1, BLOCK // B)), dx, (space(N, Waa.shape[1], Wax), space(N, I, Wax), by_token)


@compiled
def finish(dx: Any, sums: Any, Wax: Any, Waa: Any, ids: Any, vectors: Any) -> Any:
    """dx (T, B, I), dWax, dWaa, db."""
    (T, B), I, (N, H) = ids.shape, vectors.shape[2], Waa.shape
    dWaa, dWax, by_token = sums
    db = np.zeros(N, Wax.dtype)
    for row in by_token:
        db += row
    if I == 0:
        return dx.reshape(T, B, 0), by_token.T.copy(), trimmed(dWaa, N, H), db
    return trimmed(dx, T * B, I).reshape(T, B, I), trimmed(dWax, N, I), trimmed(dWaa, N, H), db


@inlined
def vanilla_backward(Wax: Any, Waa: Any, ids: Any, vectors: Any, a: Any, da: Any, da_after: Any) -> Any:
    """da0 (B, H), dx, dWax, dWaa, db."""
    T, B, H = da.shape
    one = da.dtype.type(1)
    panels, Wax_panels = pack(Waa), pack(Wax[:, : vectors.shape[2]])
    S, dx, sums = prepare(Wax, Waa, ids, vectors)
    dz, da_next = np.empty((S, B, H), da.dtype), np.zeros((B, padded(H, da)), da.dtype)
    fill(da_next, da_after)
    end = T
    while end > 0:
        begin = max(0, end - S)
        for t in range(end - 1, begin - 1, -1):
            for k in range(B):
                d, above, after, new = dz[t - begin, k], da[t, k], da_next[k], a[t + 1, k]
                for h in range(H):
                    d[h] = (above[h] + after[h]) * (one - new[h] * new[h])
            multiply(dz, (t - begin) * B * H, B, H, panels, da_next, False)
        gather(dz, dz, begin, end - begin, ids, vectors, a, Wax_panels, dx, sums)
        end = begin
    return da_next[:, :H].copy(), finish(dx, sums, Wax, Waa, ids, vectors)


@inlined
def gru_backward(Wax: Any, Waa: Any, ids: Any, vectors: Any, a: Any, ru: Any, n: Any, p: Any, da: Any, da_after: Any) -> Any:
    """da0 (B, H), dban, and dx, dWax, dWaa, db."""
    T, B, H = da.shape
    one = da.dtype.type(1)
    panels, Wax_panels = pack(Waa), pack(Wax[:, : vectors.shape[2]])
    S, dx, sums = prepare(Wax, Waa, ids, vectors)
    dz, dq = np.empty((S, B, 3 * H), da.dtype), np.empty((S, B, 3 * H), da.dtype)
    direct, through, dban = np.zeros((B, H), da.dtype), np.zeros((B, padded(H, da)), da.dtype), np.zeros(H, da.dtype)
    fill(through, da_after)
    end = T
    while end > 0:
        begin = max(0, end - S)
        for t in range(end - 1, begin - 1, -1):
            for k in range(B):
                z, q, above, after, straight = dz[t - begin, k], dq[t - begin, k], da[t, k], through[k], direct[k]
                gates, new, old, reset = ru[t, k], n[t, k], a[t, k], p[t, k]
                for h in range(H):
                    straight[h] += above[h] + after[h]
                for h in range(H):
                    z[2 * H + h] = straight[h] * (one - gates[H + h]) * (one - new[h] * new[h])
                for h in range(H):
                    z[h] = z[2 * H + h] * reset[h] * gates[h] * (one - gates[h])
                for h in range(H):
                    z[H + h] = straight[h] * (old[h] - new[h]) * gates[H + h] * (one - gates[H + h])
                for h in range(2 * H):
                    q[h] = z[h]
                for h in range(H):
                    q[2 * H + h] = z[2 * H + h] * gates[h]
                for h in range(H):
                    dban[h] += q[2 * H + h]
                for h in range(H):
                    straight[h] *= gates[H + h]
            multiply(dq, (t - begin) * B * 3 * H, B, 3 * H, panels, through, False)
        gather(dz, dq, begin, end - begin, ids, vectors, a, Wax_panels, dx, sums)
        end = begin
    return direct + through[:, :H], dban, finish(dx, sums, Wax, Waa, ids, vectors)


@inlined
def lstm_backward(
    Wax: Any, Waa: Any, ids: Any, vectors: Any, a: Any, c: Any, gates: Any, da: Any, da_after: Any, dc_after: Any
) -> Any:
    """da0 and dc0 (B, H), and dx, dWax, dWaa, db."""
    T, B, H = da.shape
    one = da.dtype.type(1)
    panels, Wax_panels = pack(Waa), pack(Wax[:, : vectors.shape[2]])
    S, dx, sums = prepare(Wax, Waa, ids, vectors)
    dz, tanh_c = np.empty((S, B, 4 * H), da.dtype), np.zeros(padded(H, da), da.dtype)
    da_next, dc = np.zeros((B, padded(H, da)), da.dtype), dc_after.copy()
    fill(da_next, da_after)
    end = T
    while end > 0:
        begin = max(0, end - S)
        for t in range(end - 1, begin - 1, -1):
            for k in range(B):
                z, gate, d, whole = dz[t - begin, k], gates[t, k], da_next[k], dc[k]
                old, above = c[t, k], da[t, k]
                for h in range(H):
                    tanh_c[h] = c[t + 1, k, h]
                for h in range(tanh_c.size):
                    tanh_c[h] = tanh(tanh_c[h])
                for h in range(H):
                    d[h] += above[h]
                for h in range(H):
                    whole[h] += d[h] * gate[3 * H + h] * (one - tanh_c[h] * tanh_c[h])
                for h in range(H):
                    z[h] = whole[h] * gate[2 * H + h] * gate[h] * (one - gate[h])
                for h in range(H):
                    z[H + h] = whole[h] * old[h] * gate[H + h] * (one - gate[H + h])
                for h in range(H):
                    z[2 * H + h] = whole[h] * gate[h] * (one - gate[2 * H + h] * gate[2 * H + h])
                for h in range(H):
                    z[3 * H + h] = d[h] * tanh_c[h] * gate[3 * H + h] * (one - gate[3 * H + h])
                for h in range(H):
                    whole[h] *= gate[H + h]
            multiply(dz, (t - begin) * B * 4 * H, B, 4 * H, panels, da_next, False)
        gather(dz, dz, begin, end - begin, ids, vectors, a, Wax_panels, dx, sums)
        end = begin
    return da_next[:, :H].copy(), dc, finish(dx, sums, Wax, Waa, ids, vectors)
