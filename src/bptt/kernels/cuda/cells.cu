// One unit of one column at one step, in all kernels alike: the equations of vanilla.py, gru.py and lstm.py.
//
// Macros: CELL (0 vanilla, 1 GRU, 2 LSTM), BACKWARD, real, H.

constexpr int GATES = CELL == 0 ? 1 : CELL == 1 ? 3 : 4;
constexpr int N = GATES * H;
// the gates of cells that have them
constexpr int SECOND = GATES > 1 ? 1 : 0, THIRD = GATES > 2 ? 2 : 0, FOURTH = GATES > 3 ? 3 : 0;

__device__ __forceinline__ real tanh_(real x) { return sizeof(real) == 4 ? tanhf(x) : tanh(x); }
__device__ __forceinline__ real sigmoid(real x) { return real(0.5) * tanh_(real(0.5) * x) + real(0.5); }

// What forward leaves behind for backward. Where arrays are (T, B, ...), `at` is the row of the step and column.
struct CellCache {
    real r, update, n, p, i, f, g, o, before, after;  // before and after: of the state, or of the LSTM's cell

    // The state after the step, from z and q = Waa a_{t-1}; `carry` goes from step to step: GRU: the state, LSTM: the cell.
    __device__ __forceinline__ real forward(const real (&z)[GATES], const real (&q)[GATES], real ban, real& carry) {
        if (CELL == 0) return tanh_(z[0] + q[0]);
        if (CELL == 1) {
            r = sigmoid(z[0] + q[0]);
            update = sigmoid(z[SECOND] + q[SECOND]);
            p = q[THIRD] + ban;
            n = tanh_(z[THIRD] + r * p);
            carry = n + update * (carry - n);
            return carry;
        }
        i = sigmoid(z[0] + q[0]);
        f = sigmoid(z[SECOND] + q[SECOND]);
        g = tanh_(z[THIRD] + q[THIRD]);
        o = sigmoid(z[FOURTH] + q[FOURTH]);
        carry = f * carry + i * g;
        return o * tanh_(carry);
    }

    __device__ __forceinline__ void keep(
        real carry, real* c, real* gates, real* n_out, real* p_out, size_t at, int B, int unit) const {
        if (CELL == 1) {
            gates[at * 2 * H + unit] = r;
            gates[at * 2 * H + H + unit] = update;
            n_out[at * H + unit] = n;
            p_out[at * H + unit] = p;
        } else if (CELL == 2) {
            gates[at * N + unit] = i;
            gates[at * N + H + unit] = f;
            gates[at * N + 2 * H + unit] = g;
            gates[at * N + 3 * H + unit] = o;
            c[(at + B) * H + unit] = carry;
        }
    }

    // The same back again; LSTM: a is c.
    __device__ __forceinline__ void fetch(
        const real* a, const real* gates, const real* n_in, const real* p_in, size_t at, int B, int unit) {
        if (CELL != 0) before = a[at * H + unit];
        if (CELL != 1) after = a[(at + B) * H + unit];
        if (CELL == 1) {
            r = gates[at * 2 * H + unit];
            update = gates[at * 2 * H + H + unit];
            n = n_in[at * H + unit];
            p = p_in[at * H + unit];
        } else if (CELL == 2) {
            i = gates[at * N + unit];
            f = gates[at * N + H + unit];
            g = gates[at * N + 2 * H + unit];
            o = gates[at * N + 3 * H + unit];
        }
    }

    // From d, the whole gradient of the state after the step, and that of the cell, which becomes that of the cell before:
    // what is multiplied by the weights; GRU: dz of n, which is not; what reaches the state before without the weights.
    __device__ __forceinline__ void backward(real d, real& cell, real (&dq)[GATES], real& dz_n, real& direct) const {
        if (CELL == 0) {
            dq[0] = d * (real(1) - after * after);
        } else if (CELL == 1) {
            const real slope = (real(1) - update) * (real(1) - n * n);
            dq[0] = d * (slope * p * r * (real(1) - r));
            dq[SECOND] = d * ((before - n) * update * (real(1) - update));
            dq[THIRD] = d * (slope * r);
            dz_n = d * slope;
            direct = d * update;
        } else {
            const real tanh_c = tanh_(after);
            const real dc = cell + d * (o * (real(1) - tanh_c * tanh_c));
            dq[0] = dc * (g * i * (real(1) - i));
            dq[SECOND] = dc * (before * f * (real(1) - f));
            dq[THIRD] = dc * (i * (real(1) - g * g));
            dq[FOURTH] = d * (tanh_c * o * (real(1) - o));
            cell = dc * f;
        }
    }

    // dz of a GRU, which differs from dq in one gate.
    __device__ __forceinline__ static void keep_dz(real* dz, const real (&dq)[GATES], real dz_n, size_t at, int unit) {
        dz[at * N + unit] = dq[0];
        dz[at * N + H + unit] = dq[SECOND];
        dz[at * N + 2 * H + unit] = dz_n;
    }
};
