// z (T, B, N) and a0 (B, H) to a (T+1, B, H), which begins with a0, and what backward needs. GRU: extra is ban (H,); gates are
// ru (T, B, 2H), n and p (T, B, H). LSTM: extra is c0 (B, H); c (T+1, B, H), gates (T, B, 4H).
extern "C" __global__ void GROUPED __launch_bounds__(THREADS, 1) forward(
    const real* Waa, const real* z, const real* a0, const real* extra, real* a, real* c, real* gates, real* n_out, real* p_out, int T, int B) {
    Place here(shared, B);
    Weights weights;
    weights.load(Waa, here.unit, here.set, here.part);
    int row, u;
    real carry[E], bias[E];  // the state before that a unit needs of itself; ban
    real own_z[E][GATES];
    const auto fetch = [&](int t) {
#pragma unroll
        for (int e = 0; e < E; ++e) {
            const bool mine = here.own(e, row, u);
#pragma unroll
            for (int k = 0; k < GATES; ++k) {
                own_z[e][k] = mine ? z[(size_t(t) * B + here.column + row) * N + k * H + here.unit + u] : real(0);
            }
        }
    };
#pragma unroll
    for (int e = 0; e < E; ++e) {
        carry[e] = bias[e] = 0;
        if (here.own(e, row, u)) {
            const int place = (here.column + row) * H + here.unit + u;
            a[place] = a0[place];
            carry[e] = CELL == 2 ? extra[place] : a0[place];
            if (CELL == 1) bias[e] = extra[here.unit + u];
            if (CELL == 2) c[place] = carry[e];
        }
    }
    fetch(0);
    if (NEAR) copy(a0 + here.column * H, here.x, here.columns, false);
    here.begun();
    for (int t = 0; t < T; ++t) {
        const bool more = t + 1 < T;
        here.multiply(weights, t == 0 ? a0 + here.column * H : a + (size_t(t) * B + here.column) * H, t > 0);
#pragma unroll
        for (int e = 0; e < E; ++e) {
            if (here.own(e, row, u)) {
                const size_t at = size_t(t) * B + here.column + row;  // row of arrays (T, B, ...)
                const int unit = here.unit + u;
                real* kept = a + (at + B) * H + unit;
                if (CELL == 0) {
                    here.give(kept, row, unit, tanh_(own_z[e][0] + here.product(row, u)), more);
                } else if (CELL == 1) {
                    const real r = sigmoid(own_z[e][0] + here.product(row, u)), update = sigmoid(own_z[e][GATES > 1 ? 1 : 0] + here.product(row, U + u));
                    const real p = here.product(row, 2 * U + u) + bias[e], n = tanh_(own_z[e][GATES > 2 ? 2 : 0] + r * p);
                    carry[e] = n + update * (carry[e] - n);
                    here.give(kept, row, unit, carry[e], more);
                    gates[at * 2 * H + unit] = r;
                    gates[at * 2 * H + H + unit] = update;
                    n_out[at * H + unit] = n;
                    p_out[at * H + unit] = p;
                } else {
                    const real i = sigmoid(own_z[e][0] + here.product(row, u)), f = sigmoid(own_z[e][GATES > 1 ? 1 : 0] + here.product(row, U + u));
                    const real g = tanh_(own_z[e][GATES > 2 ? 2 : 0] + here.product(row, 2 * U + u));
                    const real o = sigmoid(own_z[e][GATES > 3 ? 3 : 0] + here.product(row, 3 * U + u));
                    carry[e] = f * carry[e] + i * g;
                    here.give(kept, row, unit, o * tanh_(carry[e]), more);
                    gates[at * 4 * H + unit] = i;
                    gates[at * 4 * H + H + unit] = f;
                    gates[at * 4 * H + 2 * H + unit] = g;
                    gates[at * 4 * H + 3 * H + unit] = o;
                    c[(at + B) * H + unit] = carry[e];
                }
            }
        }
        if (more) {
            fetch(t + 1);  // asked for a product ahead, so that it is there after that
            here.meet();
        }
    }
}
