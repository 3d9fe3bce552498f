// z (T, B, N) to a (T+1, B, H), of which a[0] is given, and what backward needs. GRU: extra is ban (H,), out are ru (T, B, 2H),
// n and p (T, B, H). LSTM: extra is c (T+1, B, H), of which c[0] is given, out is gates (T, B, 4H).
extern "C" __global__ void GROUPED __launch_bounds__(THREADS, 1) forward(
    const real* Waa, const real* z, real* a, real* extra, real* out, real* n_out, real* p_out, unsigned* counters, int T, int B) {
    Place here(shared, counters, B);
    Weights weights;
    weights.load(Waa, here.unit, here.set, here.part);
    int row, u;
    real carry[E], bias[E];  // the state before that a unit needs of itself; ban
#pragma unroll
    for (int e = 0; e < E; ++e) {
        carry[e] = bias[e] = 0;
        if (here.own(e, row, u)) {
            const int place = (here.column + row) * H + here.unit + u;
            carry[e] = CELL == 2 ? extra[place] : a[place];
            if (CELL == 1) bias[e] = extra[here.unit + u];
        }
    }
    if (NEAR) copy(a + here.column * H, here.x, here.columns);
    here.begun();
    for (int t = 0; t < T; ++t) {
        real own_z[E][GATES];  // asked for before the product, so that it is there after it
#pragma unroll
        for (int e = 0; e < E; ++e) {
            const bool mine = here.own(e, row, u);
#pragma unroll
            for (int k = 0; k < GATES; ++k) {
                own_z[e][k] = mine ? z[(size_t(t) * B + here.column + row) * N + k * H + here.unit + u] : real(0);
            }
        }
        here.multiply(weights, a + (size_t(t) * B + here.column) * H);
#pragma unroll
        for (int e = 0; e < E; ++e) {
            if (here.own(e, row, u)) {
                const size_t at = size_t(t) * B + here.column + row;  // row of arrays (T, B, ...)
                const int unit = here.unit + u;
                real now;
                if (CELL == 0) {
                    now = tanh_(own_z[e][0] + here.product(row, u));
                } else if (CELL == 1) {
                    const real r = sigmoid(own_z[e][0] + here.product(row, u)), update = sigmoid(own_z[e][GATES > 1 ? 1 : 0] + here.product(row, U + u));
                    const real p = here.product(row, 2 * U + u) + bias[e], n = tanh_(own_z[e][GATES > 2 ? 2 : 0] + r * p);
                    now = n + update * (carry[e] - n);
                    out[at * 2 * H + unit] = r;
                    out[at * 2 * H + H + unit] = update;
                    n_out[at * H + unit] = n;
                    p_out[at * H + unit] = p;
                    carry[e] = now;
                } else {
                    const real i = sigmoid(own_z[e][0] + here.product(row, u)), f = sigmoid(own_z[e][GATES > 1 ? 1 : 0] + here.product(row, U + u));
                    const real g = tanh_(own_z[e][GATES > 2 ? 2 : 0] + here.product(row, 2 * U + u));
                    const real o = sigmoid(own_z[e][GATES > 3 ? 3 : 0] + here.product(row, 3 * U + u));
                    carry[e] = f * carry[e] + i * g;
                    now = o * tanh_(carry[e]);
                    out[at * 4 * H + unit] = i;
                    out[at * 4 * H + H + unit] = f;
                    out[at * 4 * H + 2 * H + unit] = g;
                    out[at * 4 * H + 3 * H + unit] = o;
                    extra[(at + B) * H + unit] = carry[e];
                }
                a[(at + B) * H + unit] = now;
                here.give(row, unit, now);
            }
        }
        here.meet();
    }
}
