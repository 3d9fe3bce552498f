// The recurrences of vanilla, GRU and LSTM, forward and backward, each as one kernel for all T steps.
//
// The recurrent weights stay in registers. A group of G blocks does R columns of the batch, each block U of the H units of all
// its columns; the blocks of a group hand each other what they computed of a step and wait for each other. Groups need nothing
// of each other. The blocks of a cluster write straight into each other's shared memory. Where groups are no clusters, they go
// through global memory, and all blocks must run at the same time (a cooperative launch sees to that).
//
// A step multiplies one row vector x (K) a column by a block's share of the weights, M outputs: forward x = a_{t-1} (K = H) and
// the outputs are all gates of its units, backward x = dq_t (K = gates * H) and the outputs are da_{t-1} of its units. L lanes
// of each of Q warps share a set of S outputs, each with every L * Q-th group of four of the K inputs. The sums of lanes meet by
// shuffles, those of warps in shared memory, in an order that is always the same.
//
// Macros: CELL (0 vanilla, 1 GRU, 2 LSTM), BACKWARD, real, H, U, G, R, L, Q, ROWS (columns in shared memory at a time), CLUSTER
// (1 where groups are clusters), THREADS, APART (words from one counter to the next).

constexpr int GATES = CELL == 0 ? 1 : CELL == 1 ? 3 : 4;
constexpr int N = GATES * H;
constexpr int K = BACKWARD ? N : H;
constexpr int M = BACKWARD ? U : GATES * U;
constexpr int SETS = THREADS / (L * Q);  // of outputs
constexpr int S = (M + SETS - 1) / SETS;  // outputs of a set
constexpr int P = S > 16 ? 32 : S > 8 ? 16 : S > 4 ? 8 : S > 2 ? 4 : S;  // the same, up to a power of two
constexpr int I = (K + 4 * L * Q - 1) / (4 * L * Q);  // groups of four inputs of a lane
constexpr int WIDTH = 4 * L * Q * I;  // K with its padding
constexpr bool NEAR = G == 1 || CLUSTER;  // all that a block multiplies is made in its shared memory
constexpr int E = (R * U + THREADS - 1) / THREADS;  // units of columns that a thread looks after

#ifdef __CUDACC__
extern __shared__ __align__(16) char shared[];
__device__ __forceinline__ void idle() {}

#if CLUSTER
#define GROUPED __cluster_dims__(G, 1, 1)

// The same place in the shared memory of another block of the cluster.
__device__ __forceinline__ real* in_block(real* place, int block) {
    unsigned long long there;
    asm volatile("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(place), "r"(block));
    return reinterpret_cast<real*>(there);
}

// Wait for all threads of the cluster, and see what they wrote.
__device__ __forceinline__ void meet_in_cluster() {
    asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}
#endif
#endif

#ifndef GROUPED
#define GROUPED
#endif

struct alignas(16) Four { real v[4]; };

template <int size> struct Pick { using Type = float4; };
template <> struct Pick<8> { using Type = double2; };

__device__ __forceinline__ real tanh_(real x) { return sizeof(real) == 4 ? tanhf(x) : tanh(x); }
__device__ __forceinline__ real sigmoid(real x) { return real(0.5) * tanh_(real(0.5) * x) + real(0.5); }

// Copy rows of K numbers to rows of WIDTH, past the first level of caches, which does not see what other blocks write.
__device__ __forceinline__ void copy(const real* from, real* x, int rows) {
    using Wide = typename Pick<sizeof(real)>::Type;  // 16 bytes
    constexpr int EACH = sizeof(Wide) / sizeof(real);
    if (K % EACH == 0) {
#pragma unroll 4
        for (int i = threadIdx.x; i < rows * (K / EACH); i += THREADS) {
            const int row = i / (K / EACH), column = i % (K / EACH);
            reinterpret_cast<Wide*>(x + row * WIDTH)[column] = __ldcg(reinterpret_cast<const Wide*>(from) + i);
        }
    } else {
#pragma unroll 4
        for (int i = threadIdx.x; i < rows * K; i += THREADS) x[i / K * WIDTH + i % K] = __ldcg(from + i);
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
    int tid, part, set, unit, column, columns, step;
    unsigned* counter;
    real *x, *next, *q;  // next: in a cluster, what x will be when its blocks have met

    __device__ __forceinline__ Place(char* memory, unsigned* counters, int B) {
        tid = threadIdx.x;
        const int warps = tid / L;
        set = warps % SETS;
        part = tid % L + warps / SETS * L;  // which of the inputs
        const int group = blockIdx.x / G;
        unit = blockIdx.x % G * U;
        column = group * R;
        columns = B - column < R ? B - column : R;
        counter = counters + group * APART;
        step = 0;
        x = reinterpret_cast<real*>(memory);
        next = x + CLUSTER * ROWS * WIDTH;
        q = next + ROWS * WIDTH;
        for (int i = tid; i < (1 + CLUSTER) * ROWS * WIDTH; i += THREADS) x[i] = 0;
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

    // Put what the next product needs into shared memory, where blocks have it from there.
    __device__ __forceinline__ void give(int row, int input, real value) {
#if CLUSTER
#pragma unroll
        for (int block = 0; block < G; ++block) in_block(next, block)[row * WIDTH + input] = value;
#else
        if (NEAR) x[row * WIDTH + input] = value;
#endif
    }

    // Wait until all blocks of the group have written what they have of a step.
    __device__ __forceinline__ void meet() {
#if CLUSTER
        meet_in_cluster();
        real* before = x;
        x = next;
        next = before;
#else
        __syncthreads();
        if (G > 1 && tid == 0) {
            ++step;
            __threadfence();
            atomicAdd(counter, 1u);
            while (*reinterpret_cast<volatile unsigned*>(counter) < unsigned(step * G)) idle();
            __threadfence();
        }
        if (G > 1) __syncthreads();
#endif
    }

    // q = the products of the columns' vectors, from x where they are made there, else from a row of global memory each.
    __device__ __forceinline__ void multiply(const Weights& weights, const real* from) {
        if (NEAR) {
            weights.multiply(x, q + part / L * R * M, columns, set, part);
        } else {
            for (int begin = 0; begin < columns; begin += ROWS) {
                const int rows = columns - begin < ROWS ? columns - begin : ROWS;
                if (begin) __syncthreads();
                copy(from + begin * K, x, rows);
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
