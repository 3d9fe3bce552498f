// What forward left behind of a unit at a step, and da.
struct Left {
    real da, r, update, n, p, i, f, g, o, before, after;  // before and after: of the state, or of the LSTM's cell

    __device__ __forceinline__ void fetch(
        const real* da_, const real* a, const real* gates, const real* n_, const real* p_, size_t at, int B, int unit) {
        da = da_[at * H + unit];
        if (CELL != 0) before = a[at * H + unit];
        if (CELL != 1) after = a[(at + B) * H + unit];
        if (CELL == 1) {
            r = gates[at * 2 * H + unit];
            update = gates[at * 2 * H + H + unit];
            n = n_[at * H + unit];
            p = p_[at * H + unit];
        } else if (CELL == 2) {
            i = gates[at * 4 * H + unit];
            f = gates[at * 4 * H + H + unit];
            g = gates[at * 4 * H + 2 * H + unit];
            o = gates[at * 4 * H + 3 * H + unit];
        }
    }
};

// da (T, B, H) and the gradients from after T, da_next and, in an LSTM, dc_next (B, H), to dz and, in a GRU, dq (T, B, N), where
// others have dq alone, and to da0 and, in an LSTM, dc0 (B, H). Given are a (T+1, B, H), GRU: ru, n, p; LSTM: c (T+1, B, H) in place of a, gates.
extern "C" __global__ void GROUPED __launch_bounds__(THREADS, 1) backward(
    const real* Waa, const real* da, const real* a, const real* gates, const real* n_in, const real* p_in, const real* da_next,
    const real* dc_next, real* dz, real* dq, real* da0, real* dc0, int T, int B) {
    Place here(shared, B);
    Weights weights;
    weights.load(Waa, here.unit, here.set, here.part);
    int row, u;
    real carry[E], cell[E];
    Left left[E];
#pragma unroll
    for (int e = 0; e < E; ++e) {
        carry[e] = cell[e] = 0;
        if (here.own(e, row, u)) {
            const int place = (here.column + row) * H + here.unit + u;
            carry[e] = da_next[place];
            if (CELL == 2) cell[e] = dc_next[place];
            left[e].fetch(da, a, gates, n_in, p_in, size_t(T - 1) * B + here.column + row, B, here.unit + u);
        }
    }
    here.begun();
    for (int t = T - 1; t >= 0; --t) {
        real direct[E];  // what reaches the state before without the weights
#pragma unroll
        for (int e = 0; e < E; ++e) {
            direct[e] = 0;
            if (here.own(e, row, u)) {
                const size_t at = size_t(t) * B + here.column + row;
                const int unit = here.unit + u;
                const Left& was = left[e];
                const real d = was.da + carry[e];
                real to[GATES], last = 0;  // what is multiplied by the weights; GRU: what is not
                if (CELL == 0) {
                    to[0] = d * (real(1) - was.after * was.after);
                } else if (CELL == 1) {
                    const real slope = (real(1) - was.update) * (real(1) - was.n * was.n);
                    to[0] = d * (slope * was.p * was.r * (real(1) - was.r));
                    to[GATES > 1 ? 1 : 0] = d * ((was.before - was.n) * was.update * (real(1) - was.update));
                    to[GATES > 2 ? 2 : 0] = d * (slope * was.r);
                    last = d * slope;
                    direct[e] = d * was.update;
                } else {
                    const real tanh_c = tanh_(was.after);
                    const real dc = cell[e] + d * (was.o * (real(1) - tanh_c * tanh_c));
                    to[0] = dc * (was.g * was.i * (real(1) - was.i));
                    to[GATES > 1 ? 1 : 0] = dc * (was.before * was.f * (real(1) - was.f));
                    to[GATES > 2 ? 2 : 0] = dc * (was.i * (real(1) - was.g * was.g));
                    to[GATES > 3 ? 3 : 0] = d * (tanh_c * was.o * (real(1) - was.o));
                    cell[e] = dc * was.f;
                }
#pragma unroll
                for (int k = 0; k < GATES; ++k) {
                    here.give(dq + at * N + k * H + unit, row, k * H + unit, to[k], true);
                }
                if (CELL == 1) {
                    dz[at * N + unit] = to[0];
                    dz[at * N + H + unit] = to[GATES > 1 ? 1 : 0];
                    dz[at * N + 2 * H + unit] = last;
                }
                // asked for a product ahead, so that it is there after that
                if (t > 0) left[e].fetch(da, a, gates, n_in, p_in, at - B, B, unit);
            }
        }
        here.meet();
        here.multiply(weights, dq + (size_t(t) * B + here.column) * K, true);
#pragma unroll
        for (int e = 0; e < E; ++e) {
            if (here.own(e, row, u)) carry[e] = direct[e] + here.product(row, u);
        }
    }
#pragma unroll
    for (int e = 0; e < E; ++e) {
        if (here.own(e, row, u)) {
            const int place = (here.column + row) * H + here.unit + u;
            da0[place] = carry[e];
            if (CELL == 2) dc0[place] = cell[e];
        }
    }
}
