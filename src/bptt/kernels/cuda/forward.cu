// z (T, B, N) and a0 (B, H) to a (T+1, B, H), which begins with a0, and what backward needs. GRU: extra is ban (H,); gates are
// ru (T, B, 2H), n and p (T, B, H). LSTM: extra is c0 (B, H); c (T+1, B, H), gates (T, B, 4H).
extern "C" __global__ void GROUPED __launch_bounds__(THREADS, 1) forward(
    const real* Waa, const real* z, const real* a0, const real* extra, real* a, real* c, real* gates, real* n, real* p, int T,
    int B) {
    BlockContext context(shared, B);
    Weights weights;
    weights.load(Waa, context.unit, context.set, context.part);
    int row, u;
    real carry[E], ban[E], own_z[E][GATES];
    const auto fetch = [&](int t) {
#pragma unroll
        for (int e = 0; e < E; ++e) {
            const bool mine = context.owns(e, row, u);
#pragma unroll
            for (int k = 0; k < GATES; ++k) {
                own_z[e][k] = mine ? z[(size_t(t) * B + context.column + row) * N + k * H + context.unit + u] : real(0);
            }
        }
    };
#pragma unroll
    for (int e = 0; e < E; ++e) {
        carry[e] = ban[e] = 0;
        if (context.owns(e, row, u)) {
            const int place = (context.column + row) * H + context.unit + u;
            a[place] = a0[place];
            carry[e] = CELL == 2 ? extra[place] : a0[place];
            if (CELL == 1) ban[e] = extra[context.unit + u];
            if (CELL == 2) c[place] = carry[e];
        }
    }
    fetch(0);
    if (ON_CHIP) copy(a0 + context.column * H, context.x, context.columns, false);
    context.wait_for_inputs();
    for (int t = 0; t < T; ++t) {
        const bool more = t + 1 < T;
        context.multiply(weights, t == 0 ? a0 + context.column * H : a + (size_t(t) * B + context.column) * H, t > 0);
#pragma unroll
        for (int e = 0; e < E; ++e) {
            if (context.owns(e, row, u)) {
                const size_t at = size_t(t) * B + context.column + row;
                const int unit = context.unit + u;
                real q[GATES];
#pragma unroll
                for (int k = 0; k < GATES; ++k) q[k] = context.product(row, k * UNITS_PER_BLOCK + u);
                CellCache cache;
                const real now = cache.forward(own_z[e], q, ban[e], carry[e]);
                context.publish(a + (at + B) * H + unit, row, unit, now, more);
                cache.keep(carry[e], c, gates, n, p, at, B, unit);
            }
        }
        if (more) {
            fetch(t + 1);  // asked for a product ahead, so that it is there after that
            context.wait_for_peers();
        }
    }
}
