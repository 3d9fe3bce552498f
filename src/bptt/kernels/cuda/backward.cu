// da (T, B, H) and the gradients from after T, da_next and, in an LSTM, dc_next (B, H), to dq and, in a GRU, dz (T, B, N), and
// to da0 and, in an LSTM, dc0 (B, H). Given are a (T+1, B, H), GRU: ru, n, p; LSTM: c (T+1, B, H) in place of a, gates.
extern "C" __global__ void GROUPED __launch_bounds__(THREADS, 1) backward(
    const real* Waa, const real* da, const real* a, const real* gates, const real* n, const real* p, const real* da_next,
    const real* dc_next, real* dz, real* dq, real* da0, real* dc0, int T, int B) {
    BlockContext context(shared, B);
    Weights weights;
    weights.load(Waa, context.unit, context.set, context.part);
    int row, u;
    real carry[E], cell[E], from_above[E];
    CellCache cache[E];
#pragma unroll
    for (int e = 0; e < E; ++e) {
        carry[e] = cell[e] = 0;
        if (context.owns(e, row, u)) {
            const int place = (context.column + row) * H + context.unit + u;
            const size_t at = size_t(T - 1) * B + context.column + row;
            carry[e] = da_next[place];
            if (CELL == 2) cell[e] = dc_next[place];
            from_above[e] = da[at * H + context.unit + u];
            cache[e].fetch(a, gates, n, p, at, B, context.unit + u);
        }
    }
    context.wait_for_inputs();
    for (int t = T - 1; t >= 0; --t) {
        real direct[E];
#pragma unroll
        for (int e = 0; e < E; ++e) {
            direct[e] = 0;
            if (context.owns(e, row, u)) {
                const size_t at = size_t(t) * B + context.column + row;
                const int unit = context.unit + u;
                real to[GATES], dz_n;
                cache[e].backward(from_above[e] + carry[e], cell[e], to, dz_n, direct[e]);
#pragma unroll
                for (int k = 0; k < GATES; ++k) context.publish(dq + at * N + k * H + unit, row, k * H + unit, to[k], true);
                if (CELL == 1) CellCache::keep_dz(dz, to, dz_n, at, unit);
                if (t > 0) {  // asked for a product ahead, so that it is there after that
                    from_above[e] = da[(at - B) * H + unit];
                    cache[e].fetch(a, gates, n, p, at - B, B, unit);
                }
            }
        }
        context.wait_for_peers();
        context.multiply(weights, dq + (size_t(t) * B + context.column) * N, true);
#pragma unroll
        for (int e = 0; e < E; ++e) {
            if (context.owns(e, row, u)) carry[e] = direct[e] + context.product(row, u);
        }
    }
#pragma unroll
    for (int e = 0; e < E; ++e) {
        if (context.owns(e, row, u)) {
            const int place = (context.column + row) * H + context.unit + u;
            da0[place] = carry[e];
            if (CELL == 2) dc0[place] = cell[e];
        }
    }
}
