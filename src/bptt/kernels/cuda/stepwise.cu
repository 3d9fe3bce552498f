// A step of a recurrence where the weights are too many to stay on the chip: their product has been computed before.
//
// A thread does one unit of one column; arrays are those of forward.cu and backward.cu. Macros: those of cells.cu, THREADS.

// q (B, N) is Waa a_t.
extern "C" __global__ void forward(
    const real* z, const real* q, const real* ban, real* a, real* c, real* gates, real* n, real* p, int t, int B) {
    const int i = blockIdx.x * THREADS + threadIdx.x, row = i / H, unit = i % H;
    if (row >= B) return;
    const size_t at = size_t(t) * B + row;
    real own_z[GATES], own_q[GATES];
    for (int k = 0; k < GATES; ++k) {
        own_z[k] = z[at * N + k * H + unit];
        own_q[k] = q[size_t(row) * N + k * H + unit];
    }
    CellCache cache;
    real carry = CELL == 2 ? c[at * H + unit] : a[at * H + unit];
    a[(at + B) * H + unit] = cache.forward(own_z, own_q, CELL == 1 ? ban[unit] : real(0), carry);
    cache.keep(carry, c, gates, n, p, at, B, unit);
}

// The gradient from the step after is the sum of `direct` and `through` (B, H), what came through the weights. Given back in
// their place are `direct` and, in an LSTM, `cell` (B, H) for the step before.
extern "C" __global__ void backward(
    const real* da, const real* a, const real* gates, const real* n, const real* p, const real* through, real* direct,
    real* cell, real* dz, real* dq, int t, int B) {
    const int i = blockIdx.x * THREADS + threadIdx.x, row = i / H, unit = i % H;
    if (row >= B) return;
    const size_t at = size_t(t) * B + row;
    CellCache cache;
    cache.fetch(a, gates, n, p, at, B, unit);
    real to[GATES], dz_n, past = 0, carry = CELL == 2 ? cell[i] : real(0);
    cache.backward(da[at * H + unit] + (direct[i] + through[i]), carry, to, dz_n, past);
    for (int k = 0; k < GATES; ++k) dq[at * N + k * H + unit] = to[k];
    if (CELL == 1) CellCache::keep_dz(dz, to, dz_n, at, unit);
    direct[i] = past;
    if (CELL == 2) cell[i] = carry;
}
