"""Kernels of the cells: a whole layer forward and backward, without an array of pre-activations or of their gradients."""

from bptt.kernels.cpu.gemm import clear, fill, multiply, pack, padded
from bptt.kernels.cpu.layer import Layer, block_of, finish, gather, packed, sums_of, token
from bptt.kernels.cpu.llvm import allocate, compiled, free, select, steps, when
from bptt.kernels.cpu.simd import load, sigmoid, store, tanh, width
from bptt.kernels.cpu.values import Numbers


@compiled
def vanilla(layer: Layer, a0: Numbers, a: Numbers) -> None:
    """Compute a (T+1, B, H)."""
    T, B, I, H = layer.T, layer.B, layer.I, layer.H
    x, ldz = layer.x, padded(H)
    panels, inputs, added = packed(layer, H)
    z = allocate(B * ldz)
    fill(a, H, a0, H, B, H)
    for t in steps(0, T):
        back = (t % 2).is_(1)
        multiply(a + t * B * H, H, B, H, panels, H, z, ldz, False, back)
        with when(I > 0):
            multiply(x + t * B * I, I, B, I, inputs, H, z, ldz, True, back)
        for k in steps(0, B):
            offset, row, start = ((t + 1) * B + k) * H, k * ldz, token(layer, t * B + k, H)
            for h in steps(0, H, width(a)):
                m = H - h
                store(tanh(load(z, row + h, m) + load(added, start + h, m)), a, offset + h, m)
    free(panels, inputs, added, z)


@compiled
def gru(layer: Layer, ban: Numbers, a0: Numbers, a: Numbers, ru: Numbers, n: Numbers, p: Numbers) -> None:
    """Compute a (T+1, B, H), r and u (T, B, 2H), n and p (T, B, H)."""
    T, B, I, H = layer.T, layer.B, layer.I, layer.H
    x, N, ldz = layer.x, H * 3, padded(H * 3)
    panels, inputs, added = packed(layer, N)
    q, z = allocate(B * ldz), allocate(B * ldz)  # of Waa a, of Wax x
    clear(z, B * ldz)
    fill(a, H, a0, H, B, H)
    for t in steps(0, T):
        back = (t % 2).is_(1)
        multiply(a + t * B * H, H, B, H, panels, N, q, ldz, False, back)
        with when(I > 0):
            multiply(x + t * B * I, I, B, I, inputs, N, z, ldz, False, back)
        for k in steps(0, B):
            offset, row, start = (t * B + k) * H, k * ldz, token(layer, t * B + k, N)
            gates = offset * 2
            for h in steps(0, H, width(a)):
                m = H - h
                r = sigmoid(load(z, row + h, m) + load(added, start + h, m) + load(q, row + h, m))
                at_u, at_n = H + h, H * 2 + h
                u = sigmoid(load(z, row + at_u, m) + load(added, start + at_u, m) + load(q, row + at_u, m))
                reset = load(q, row + at_n, m) + load(ban, h, m)
                n_t = tanh(load(z, row + at_n, m) + load(added, start + at_n, m) + r * reset)
                store(r, ru, gates + h, m)
                store(u, ru, gates + H + h, m)
                store(n_t, n, offset + h, m)
                store(reset, p, offset + h, m)
                store(n_t + u * (load(a, offset + h, m) - n_t), a, offset + B * H + h, m)
    free(panels, inputs, added, q, z)


@compiled
def lstm(layer: Layer, a0: Numbers, c0: Numbers, a: Numbers, c: Numbers, gates: Numbers) -> None:
    """Compute a and c (T+1, B, H), the gates i, f, g, o (T, B, 4H)."""
    T, B, I, H = layer.T, layer.B, layer.I, layer.H
    x, N, ldz = layer.x, H * 4, padded(H * 4)
    panels, inputs, added = packed(layer, N)
    z = allocate(B * ldz)
    fill(a, H, a0, H, B, H)
    fill(c, H, c0, H, B, H)
    for t in steps(0, T):
        back = (t % 2).is_(1)
        multiply(a + t * B * H, H, B, H, panels, N, z, ldz, False, back)
        with when(I > 0):
            multiply(x + t * B * I, I, B, I, inputs, N, z, ldz, True, back)
        for k in steps(0, B):
            offset, row, start = (t * B + k) * H, k * ldz, token(layer, t * B + k, N)
            gate = offset * 4
            for h in steps(0, H, width(a)):
                m = H - h
                i, f, g, o = (
                    function(load(z, row + H * j + h, m) + load(added, start + H * j + h, m))
                    for j, function in enumerate((sigmoid, sigmoid, tanh, sigmoid))
                )
                c_t = f * load(c, offset + h, m) + i * g
                store(i, gates, gate + h, m)
                store(f, gates, gate + H + h, m)
                store(g, gates, gate + H * 2 + h, m)
                store(o, gates, gate + H * 3 + h, m)
                store(c_t, c, offset + B * H + h, m)
                store(o * tanh(c_t), a, offset + B * H + h, m)
    free(panels, inputs, added, z)


@compiled
def vanilla_backward(
    layer: Layer,
    a: Numbers,
    da: Numbers,
    da_after: Numbers,
    da0: Numbers,
    dx: Numbers,
    dWax: Numbers,
    dWaa: Numbers,
    db: Numbers,
) -> None:
    """Compute da0 (B, H), dx, dWax, dWaa, db; da comes to hold dz."""
    T, B, I, H, Wax, Waa = layer.T, layer.B, layer.I, layer.H, layer.Wax, layer.Waa
    ld = padded(H)
    panels, Wax_panels, da_next = allocate(ld * H), allocate(padded(I) * H), allocate(B * ld)
    pack(Waa, H, H, H, panels)
    pack(Wax, I, H, I, Wax_panels)
    sums, S = sums_of(layer, H, dWaa), block_of(layer)
    clear(da_next, B * ld)
    fill(da_next, ld, da_after, H, B, H)
    for done in steps(0, T, S):
        end = T - done
        begin = select(end > S, end - S, 0)
        for back in steps(0, end - begin):
            t = end - back - 1
            for k in steps(0, B):
                offset, row = (t * B + k) * H, k * ld
                for h in steps(0, H, width(a)):
                    m = H - h
                    a_t = load(a, offset + B * H + h, m)
                    da_t = load(da, offset + h, m) + load(da_next, row + h, m)
                    store(da_t * (1.0 - a_t * a_t), da, offset + h, m)
            multiply(da + t * B * H, H, B, H, panels, H, da_next, ld, False, (t % 2).is_(1))
        gather(layer, sums, da, da, H, 0, begin, end - begin, Wax_panels, H, a)
    fill(da0, H, da_next, ld, B, H)
    finish(layer, H, sums, dx, dWax, dWaa, db)
    free(panels, Wax_panels, da_next)


@compiled
def gru_backward(
    layer: Layer,
    a: Numbers,
    ru: Numbers,
    n: Numbers,
    p: Numbers,
    da: Numbers,
    da_after: Numbers,
    da0: Numbers,
    dban: Numbers,
    dx: Numbers,
    dWax: Numbers,
    dWaa: Numbers,
    db: Numbers,
) -> None:
    """Compute da0, dban, dx, dWax, dWaa, db; ru and n come to hold dz, ru and p what is dz for the product with Waa."""
    T, B, I, H, Wax, Waa = layer.T, layer.B, layer.I, layer.H, layer.Wax, layer.Waa
    N, ld = H * 3, padded(H)
    panels, inputs, panels_n, inputs_n = (allocate(columns * H * gates) for gates in (2, 1) for columns in (ld, padded(I)))
    pack(Waa, H, H * 2, H, panels)
    pack(Wax, I, H * 2, I, inputs)
    pack(Waa + H * 2 * H, H, H, H, panels_n)
    pack(Wax + H * 2 * I, I, H, I, inputs_n)
    sums, S = sums_of(layer, N, dWaa), block_of(layer)
    direct, through = allocate(B * H), allocate(B * ld)
    clear(direct, B * H)
    clear(through, B * ld)
    clear(dban, H)
    fill(through, ld, da_after, H, B, H)
    for done in steps(0, T, S):
        end = T - done
        begin = select(end > S, end - S, 0)
        for back in steps(0, end - begin):
            t = end - back - 1
            for k in steps(0, B):
                offset, row = (t * B + k) * H, k * ld
                gates = offset * 2
                for h in steps(0, H, width(a)):
                    m = H - h
                    r, u, n_t = load(ru, gates + h, m), load(ru, gates + H + h, m), load(n, offset + h, m)
                    da_t = load(direct, k * H + h, m) + load(da, offset + h, m) + load(through, row + h, m)
                    dn = da_t * (1.0 - u) * (1.0 - n_t * n_t)
                    store(dn * load(p, offset + h, m) * r * (1.0 - r), ru, gates + h, m)
                    store(da_t * (load(a, offset + h, m) - n_t) * u * (1.0 - u), ru, gates + H + h, m)
                    store(dn, n, offset + h, m)
                    store(dn * r, p, offset + h, m)
                    store(load(dban, h, m) + dn * r, dban, h, m)
                    store(da_t * u, direct, k * H + h, m)
            reverse = (t % 2).is_(1)
            multiply(ru + t * B * H * 2, H * 2, B, H * 2, panels, H, through, ld, False, reverse)
            multiply(p + t * B * H, H, B, H, panels_n, H, through, ld, True, reverse)
        for dz, dq, rows, row, panels_x in ((ru, ru, H * 2, H * 0, inputs), (n, p, H, H * 2, inputs_n)):
            gather(layer, sums, dz, dq, rows, row, begin, end - begin, panels_x, N, a)
    for k in steps(0, B):
        for h in steps(0, H, width(a)):
            store(load(direct, k * H + h, H - h) + load(through, k * ld + h, H - h), da0, k * H + h, H - h)
    finish(layer, N, sums, dx, dWax, dWaa, db)
    free(panels, inputs, panels_n, inputs_n, direct, through)


@compiled
def lstm_backward(
    layer: Layer,
    a: Numbers,
    c: Numbers,
    gates: Numbers,
    da: Numbers,
    da_after: Numbers,
    dc_after: Numbers,
    da0: Numbers,
    dc0: Numbers,
    dx: Numbers,
    dWax: Numbers,
    dWaa: Numbers,
    db: Numbers,
) -> None:
    """Compute da0 and dc0 (B, H), dx, dWax, dWaa, db; the gates come to hold dz."""
    T, B, I, H, Wax, Waa = layer.T, layer.B, layer.I, layer.H, layer.Wax, layer.Waa
    N, ld = H * 4, padded(H)
    panels, Wax_panels, da_next = allocate(ld * N), allocate(padded(I) * N), allocate(B * ld)
    pack(Waa, H, N, H, panels)
    pack(Wax, I, N, I, Wax_panels)
    sums, S = sums_of(layer, N, dWaa), block_of(layer)
    clear(da_next, B * ld)
    fill(da_next, ld, da_after, H, B, H)
    fill(dc0, H, dc_after, H, B, H)  # dc, which ends as that of c0
    for done in steps(0, T, S):
        end = T - done
        begin = select(end > S, end - S, 0)
        for back in steps(0, end - begin):
            t = end - back - 1
            for k in steps(0, B):
                offset, row = (t * B + k) * H, k * ld
                gate = offset * 4
                for h in steps(0, H, width(a)):
                    m = H - h
                    i, f, g, o = (load(gates, gate + H * j + h, m) for j in range(4))
                    tanh_c = tanh(load(c, offset + B * H + h, m))
                    da_t = load(da, offset + h, m) + load(da_next, row + h, m)
                    inside = load(dc0, k * H + h, m) + da_t * o * (1.0 - tanh_c * tanh_c)
                    store(inside * g * i * (1.0 - i), gates, gate + h, m)
                    store(inside * load(c, offset + h, m) * f * (1.0 - f), gates, gate + H + h, m)
                    store(inside * i * (1.0 - g * g), gates, gate + H * 2 + h, m)
                    store(da_t * tanh_c * o * (1.0 - o), gates, gate + H * 3 + h, m)
                    store(inside * f, dc0, k * H + h, m)
            multiply(gates + t * B * N, N, B, N, panels, H, da_next, ld, False, (t % 2).is_(1))
        gather(layer, sums, gates, gates, N, 0, begin, end - begin, Wax_panels, N, a)
    fill(da0, H, da_next, ld, B, H)
    finish(layer, N, sums, dx, dWax, dWaa, db)
    free(panels, Wax_panels, da_next)
