// The recurrences of vanilla, GRU and LSTM, forward and backward, each as one kernel for all T steps.
//
// The recurrent weights stay in registers. A group of G blocks does R columns of the batch, each block U of the H units of all
// its columns; the blocks of a group hand each other what they computed of a step. Groups need nothing of each other.
//
// No fence is in the loop, which would wait for all that is on its way to global memory. The blocks of a cluster send into each
// other's shared memory, and a barrier there counts the bytes that came. Where groups are no clusters, their blocks read each
// other's results from global memory, again and again until nothing of NOT_YET is left, which the caller has filled them with;
// all blocks must run at the same time (a cooperative launch sees to that).
//
// A step multiplies one row vector x (K) a column by a block's share of the weights, M outputs: forward x = a_{t-1} (K = H) and
// the outputs are all gates of its units, backward x = dq_t (K = gates * H) and the outputs are da_{t-1} of its units. L lanes
// of each of Q warps share a set of S outputs, each with every L * Q-th group of four of the K inputs. The sums of lanes meet
// by shuffles, those of warps in shared memory, in an order that is always the same.
//
// Macros: those of cells.cu and exchange.cu, U, R, L, Q, ROWS (columns in shared memory at a time), THREADS, ARRIVALS
// (bytes at the beginning of shared memory that count what comes).

constexpr int K = BACKWARD ? N : H;
constexpr int M = BACKWARD ? U : GATES * U;
constexpr int SETS = THREADS / (L * Q);  // of outputs
constexpr int S = (M + SETS - 1) / SETS;  // outputs of a set
constexpr int P = S > 16 ? 32 : S > 8 ? 16 : S > 4 ? 8 : S > 2 ? 4 : S;  // the same, up to a power of two
constexpr int I = (K + 4 * L * Q - 1) / (4 * L * Q);  // groups of four inputs of a lane
constexpr int WIDTH = 4 * L * Q * I;  // K with its padding
constexpr bool NEAR = G == 1 || CLUSTER;  // all that a block multiplies is made in its shared memory
constexpr bool SCOUTS = !NEAR && R * K * int(sizeof(real)) >= 24 * THREADS;  // too much for all to ask for it again and again
constexpr int E = (R * U + THREADS - 1) / THREADS;  // units of columns that a thread looks after

struct alignas(16) Four { real v[4]; };

// Copy rows of K numbers to rows of WIDTH, in pieces of one or several numbers; awaited: as soon as they have been written.
template <typename Piece> __device__ __forceinline__ void copy_pieces(const real* from, real* x, int rows, bool awaited) {
    constexpr int EACH = sizeof(Piece) / sizeof(real), PIECES = K / EACH, AHEAD = 4;
    const Piece* source = reinterpret_cast<const Piece*>(from);
    for (int first = threadIdx.x; first < rows * PIECES; first += AHEAD * THREADS) {
        Piece piece[AHEAD];
#pragma unroll
        for (int k = 0; k < AHEAD; ++k) {
            const int i = first + k * THREADS;
            if (i < rows * PIECES) piece[k] = look(source + i);
        }
#pragma unroll
        for (int k = 0; k < AHEAD; ++k) {
            const int i = first + k * THREADS;
            if (i < rows * PIECES) {
                while (awaited && missing(piece[k])) {
                    idle();
                    piece[k] = look(source + i);
                }
                reinterpret_cast<Piece*>(x + i / PIECES * WIDTH)[i % PIECES] = piece[k];
            }
        }
    }
}

__device__ __forceinline__ void copy(const real* from, real* x, int rows, bool awaited) {
    if (K % (16 / sizeof(real)) == 0) {
        copy_pieces<Wide>(from, x, rows, awaited);
    } else {
        copy_pieces<real>(from, x, rows, awaited);
    }
}

// Sum s[0..P) over the L lanes. Afterwards a lane holds the sums of outputs first .. first + left in s[0 .. left).
__device__ __forceinline__ void sum(real (&s)[P], int lane, int& first, int& left) {
    first = 0;
    left = P;
#pragma unroll
    for (int offset = L / 2; offset > 0; offset /= 2) {
        if (left > 1) {
            left /= 2;
            const bool upper = lane & offset;
#pragma unroll
            for (int i = 0; i < P / 2; ++i) {
                if (i < left) {
                    const real give = upper ? s[i] : s[i + left], keep = upper ? s[i + left] : s[i];
                    s[i] = keep + __shfl_xor_sync(0xffffffffu, give, offset, L);
                }
            }
            first += upper ? left : 0;
        } else {
            s[0] += __shfl_xor_sync(0xffffffffu, s[0], offset, L);
        }
    }
}

// A block's share of the weights, in the registers of its threads.
struct Weights {
    real w[S][I][4];

    // Waa is (N, H). Outputs are numbered gate by gate.
    __device__ __forceinline__ void load(const real* Waa, int first_unit, int set, int part) {
#pragma unroll
        for (int s = 0; s < S; ++s) {
            const int output = set * S + s, unit = first_unit + output % U, gate = output / U;
#pragma unroll
            for (int i = 0; i < I; ++i) {
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    const int k = 4 * (i * L * Q + part) + j;
                    const bool there = output < M && unit < H && k < K;
                    w[s][i][j] = !there ? real(0) : BACKWARD ? Waa[k * H + unit] : Waa[(gate * H + unit) * H + k];
                }
            }
        }
    }

    // q[row][output] of the rows of x (rows, WIDTH), as far as one of the Q warps has the inputs.
    __device__ __forceinline__ void multiply(const real* x, real* q, int rows, int set, int part) const {
        const int lane = part % L;
#pragma unroll 2
        for (int row = 0; row < rows; ++row) {
            const Four* own = reinterpret_cast<const Four*>(x + row * WIDTH) + part;
            real s[P];
#pragma unroll
            for (int o = 0; o < P; ++o) s[o] = 0;
#pragma unroll
            for (int i = 0; i < I; ++i) {
                const Four four = own[i * L * Q];
#pragma unroll
                for (int j = 0; j < 4; ++j) {
#pragma unroll
                    for (int o = 0; o < S; ++o) s[o] += w[o][i][j] * four.v[j];
                }
            }
            int first, left;
            sum(s, lane, first, left);
            const bool last = lane % (L > P ? L / P : 1) == 0;  // of the lanes that hold the same sums, one writes
#pragma unroll
            for (int o = 0; o < P; ++o) {
                const int output = first + o;
                if (last && o < left && output < S && set * S + output < M) q[row * M + set * S + output] = s[o];
            }
        }
    }
};

// Where a thread is, and what all kernels do alike.
struct Place {
    int tid, part, set, unit, column, columns, round;
    real *x, *next, *q;  // next: in a cluster, what x will be when all of it has come
#if CLUSTER
    Arrivals* arrivals;  // of the two
#endif

    __device__ __forceinline__ Place(char* memory, int B) {
        tid = threadIdx.x;
        const int warps = tid / L;
        set = warps % SETS;
        part = tid % L + warps / SETS * L;  // which of the inputs
        unit = blockIdx.x % G * U;
        column = blockIdx.x / G * R;
        columns = B - column < R ? B - column : R;
        round = 0;
        x = reinterpret_cast<real*>(memory + ARRIVALS);
        next = x + CLUSTER * ROWS * WIDTH;
        q = next + ROWS * WIDTH;
        for (int i = tid; i < (1 + CLUSTER) * ROWS * WIDTH; i += THREADS) x[i] = 0;
#if CLUSTER
        arrivals = reinterpret_cast<Arrivals*>(memory);
        if (tid < 2) init(arrivals + tid);
#endif
        __syncthreads();
    }

    // Wait until all that the first product needs is there, and until all blocks of a cluster are.
    __device__ __forceinline__ void begun() {
#if CLUSTER
        meet_in_cluster();
#else
        __syncthreads();
#endif
    }

    // Hand a result to the next product of all blocks of the group, if there is one: blocks that have ended cannot be sent to.
    // `kept` is where it belongs in global memory.
    __device__ __forceinline__ void give(real* kept, int row, int input, real value, bool more) {
#if CLUSTER
#pragma unroll
        for (int block = 0; more && block < G; ++block) {
            send(next + row * WIDTH + input, value, arrivals + (round + 1) % 2, block);
        }
        *kept = value;
#else
        if (NEAR) {
            x[row * WIDTH + input] = value;
            *kept = value;
        } else {
            show(kept, value == value ? value : real(NOT_A_NUMBER));  // never NOT_YET
        }
#endif
    }

    // Wait until the next product has what it needs, as far as it does not look for that itself.
    __device__ __forceinline__ void meet() {
#if CLUSTER
        ++round;
        Arrivals* own = arrivals + round % 2;
        if (tid == 0) expect(own, columns * K * int(sizeof(real)));
        await(own, (round - 1) / 2 % 2);
        real* before = x;
        x = next;
        next = before;
#else
        if (NEAR) __syncthreads();
#endif
    }

    // q = the products of the columns' vectors, from x where they are made there, else from a row of global memory each, which
    // has been there from the beginning or is awaited from the blocks of the group.
    __device__ __forceinline__ void multiply(const Weights& weights, const real* from, bool awaited) {
        if (NEAR) {
            weights.multiply(x, q + part / L * R * M, columns, set, part);
        } else {
            if (SCOUTS && awaited) {  // a thread for each block looks for one of the last numbers that it gives
                const real* last = from + columns * K - H + (tid * U + U < H ? tid * U + U : H) - 1;
                while (tid < G && missing(look(last))) idle();
                __syncthreads();
            }
            for (int begin = 0; begin < columns; begin += ROWS) {
                const int rows = columns - begin < ROWS ? columns - begin : ROWS;
                if (begin) __syncthreads();
                copy(from + begin * K, x, rows, awaited);
                __syncthreads();
                weights.multiply(x, q + (part / L * R + begin) * M, rows, set, part);
            }
        }
        __syncthreads();
    }

    // An output of a column: the sum of what the Q warps have.
    __device__ __forceinline__ real product(int row, int output) const {
        real total = q[row * M + output];
#pragma unroll
        for (int i = 1; i < Q; ++i) total += q[(i * R + row) * M + output];
        return total;
    }

    // The e-th unit of a column that the thread looks after: whether there is one, its row, and its places.
    __device__ __forceinline__ bool own(int e, int& row, int& offset) const {
        const int i = tid + e * THREADS;
        row = i / U;
        offset = i % U;
        return row < columns && offset < U && unit + offset < H;
    }
};
