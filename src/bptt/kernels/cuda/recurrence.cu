// The recurrences of vanilla, GRU and LSTM, forward and backward, each as one kernel for all T steps.
//
// The recurrent weights stay in registers. A group of BLOCKS_PER_GROUP blocks computes COLUMNS_PER_GROUP columns of the batch,
// and each of its blocks UNITS_PER_BLOCK of the H units of all these columns. After each step the blocks of a group publish
// their results to each other. Groups are independent.
//
// There is no fence in the loop: it would wait for everything that is on its way to global memory. The blocks of a cluster send
// into each other's shared memory, and a barrier there counts the bytes that have arrived. Without clusters, blocks poll each
// other's results in global memory until none of them is EMPTY, the value that the caller has filled them with. So all blocks
// must run at the same time, which a cooperative launch ensures.
//
// A step multiplies one row vector x (K) per column by a block's part of the weights, with M outputs. Forward: x = a_{t-1}
// (K = H), and the outputs are all gates of the block's units. Backward: x = dq_t (K = gates * H), and the outputs are da_{t-1}
// of its units. LANES lanes of each of WARPS warps share a set of S outputs; each takes every LANES * WARPS-th group of four of
// the K inputs. Sums over lanes are made by shuffles, sums over warps in shared memory, in an order that is always the same.
//
// Macros: those of cells.cu and sync.cu, and of Tiling in tiling.py: UNITS_PER_BLOCK, COLUMNS_PER_GROUP, LANES, WARPS,
// ROWS_IN_SHARED (columns in shared memory at a time); THREADS; ARRIVALS (bytes at the start of shared memory for barriers).

constexpr int K = BACKWARD ? N : H;
constexpr int M = BACKWARD ? UNITS_PER_BLOCK : GATES * UNITS_PER_BLOCK;
constexpr int SETS = THREADS / (LANES * WARPS);  // of outputs
constexpr int S = (M + SETS - 1) / SETS;  // outputs of a set
constexpr int P = S > 16 ? 32 : S > 8 ? 16 : S > 4 ? 8 : S > 2 ? 4 : S;  // the same, up to a power of two
constexpr int I = (K + 4 * LANES * WARPS - 1) / (4 * LANES * WARPS);  // groups of four inputs of a lane
constexpr int WIDTH = 4 * LANES * WARPS * I;  // K with its padding
constexpr bool ON_CHIP = BLOCKS_PER_GROUP == 1 || CLUSTER;  // all that a block multiplies is made in its shared memory
// too much for all threads to ask for it again and again
constexpr bool POLL_FIRST = !ON_CHIP && COLUMNS_PER_GROUP * K * int(sizeof(real)) >= 24 * THREADS;
constexpr int E = (COLUMNS_PER_GROUP * UNITS_PER_BLOCK + THREADS - 1) / THREADS;  // units of columns that a thread looks after

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
            if (i < rows * PIECES) piece[k] = load_relaxed(source + i);
        }
#pragma unroll
        for (int k = 0; k < AHEAD; ++k) {
            const int i = first + k * THREADS;
            if (i < rows * PIECES) {
                while (awaited && not_ready(piece[k])) {
                    backoff();
                    piece[k] = load_relaxed(source + i);
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

// Sum s[0..P) over the LANES lanes. Afterwards a lane holds the sums of outputs first .. first + left in s[0 .. left).
__device__ __forceinline__ void sum(real (&s)[P], int lane, int& first, int& left) {
    first = 0;
    left = P;
#pragma unroll
    for (int offset = LANES / 2; offset > 0; offset /= 2) {
        if (left > 1) {
            left /= 2;
            const bool upper = lane & offset;
#pragma unroll
            for (int i = 0; i < P / 2; ++i) {
                if (i < left) {
                    const real sent = upper ? s[i] : s[i + left], keep = upper ? s[i + left] : s[i];
                    s[i] = keep + __shfl_xor_sync(0xffffffffu, sent, offset, LANES);
                }
            }
            first += upper ? left : 0;
        } else {
            s[0] += __shfl_xor_sync(0xffffffffu, s[0], offset, LANES);
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
            const int output = set * S + s, unit = first_unit + output % UNITS_PER_BLOCK, gate = output / UNITS_PER_BLOCK;
#pragma unroll
            for (int i = 0; i < I; ++i) {
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    const int k = 4 * (i * LANES * WARPS + part) + j;
                    const bool there = output < M && unit < H && k < K;
                    w[s][i][j] = !there ? real(0) : BACKWARD ? Waa[k * H + unit] : Waa[(gate * H + unit) * H + k];
                }
            }
        }
    }

    // q[row][output] of the rows of x (rows, WIDTH), as far as one of the WARPS warps has the inputs.
    __device__ __forceinline__ void multiply(const real* x, real* q, int rows, int set, int part) const {
        const int lane = part % LANES;
#pragma unroll 2
        for (int row = 0; row < rows; ++row) {
            const Four* own = reinterpret_cast<const Four*>(x + row * WIDTH) + part;
            real s[P];
#pragma unroll
            for (int o = 0; o < P; ++o) s[o] = 0;
#pragma unroll
            for (int i = 0; i < I; ++i) {
                const Four four = own[i * LANES * WARPS];
#pragma unroll
                for (int j = 0; j < 4; ++j) {
#pragma unroll
                    for (int o = 0; o < S; ++o) s[o] += w[o][i][j] * four.v[j];
                }
            }
            int first, left;
            sum(s, lane, first, left);
            const bool last = lane % (LANES > P ? LANES / P : 1) == 0;  // of the lanes that hold the same sums, one writes
#pragma unroll
            for (int o = 0; o < P; ++o) {
                const int output = first + o;
                if (last && o < left && output < S && set * S + output < M) q[row * M + set * S + output] = s[o];
            }
        }
    }
};

// Where a thread is, and what all kernels do alike.
struct BlockContext {
    int tid, part, set, unit, column, columns, round;
    real *x, *next, *q;  // next: in a cluster, what x will be when all of it has come
#if CLUSTER
    Arrivals* arrivals;  // of the two
#endif

    __device__ __forceinline__ BlockContext(char* memory, int B) {
        tid = threadIdx.x;
        const int warps = tid / LANES;
        set = warps % SETS;
        part = tid % LANES + warps / SETS * LANES;  // which of the inputs
        unit = blockIdx.x % BLOCKS_PER_GROUP * UNITS_PER_BLOCK;
        column = blockIdx.x / BLOCKS_PER_GROUP * COLUMNS_PER_GROUP;
        columns = B - column < COLUMNS_PER_GROUP ? B - column : COLUMNS_PER_GROUP;
        round = 0;
        x = reinterpret_cast<real*>(memory + ARRIVALS);
        next = x + CLUSTER * ROWS_IN_SHARED * WIDTH;
        q = next + ROWS_IN_SHARED * WIDTH;
        for (int i = tid; i < (1 + CLUSTER) * ROWS_IN_SHARED * WIDTH; i += THREADS) x[i] = 0;
#if CLUSTER
        arrivals = reinterpret_cast<Arrivals*>(memory);
        if (tid < 2) init(arrivals + tid);
#endif
        __syncthreads();
    }

    // Wait until all that the first product needs is there, and until all blocks of a cluster are.
    __device__ __forceinline__ void wait_for_inputs() {
#if CLUSTER
        cluster_barrier();
#else
        __syncthreads();
#endif
    }

    // Hand a result to the next product of all blocks of the group, if there is one: blocks that have ended cannot be sent to.
    // `kept` is where it belongs in global memory.
    __device__ __forceinline__ void publish(real* kept, int row, int input, real value, bool more) {
#if CLUSTER
#pragma unroll
        for (int block = 0; more && block < BLOCKS_PER_GROUP; ++block) {
            send(next + row * WIDTH + input, value, arrivals + (round + 1) % 2, block);
        }
        *kept = value;
#else
        if (ON_CHIP) {
            x[row * WIDTH + input] = value;
            *kept = value;
        } else {
            store_relaxed(kept, value == value ? value : real(NOT_A_NUMBER));  // never EMPTY
        }
#endif
    }

    // Wait until the next product has what it needs, as far as it does not look for that itself.
    __device__ __forceinline__ void wait_for_peers() {
#if CLUSTER
        ++round;
        Arrivals* own = arrivals + round % 2;
        if (tid == 0) expect(own, columns * K * int(sizeof(real)));
        await(own, (round - 1) / 2 % 2);
        real* before = x;
        x = next;
        next = before;
#else
        if (ON_CHIP) __syncthreads();
#endif
    }

    // q = the products of the columns' vectors, from x where they are made there, else from a row of global memory each, which
    // has been there from the beginning or is awaited from the blocks of the group.
    __device__ __forceinline__ void multiply(const Weights& weights, const real* from, bool awaited) {
        if (ON_CHIP) {
            weights.multiply(x, q + part / LANES * COLUMNS_PER_GROUP * M, columns, set, part);
        } else {
            if (POLL_FIRST && awaited) {  // a thread for each block looks for one of the last numbers that it gives
                const int end = (tid + 1) * UNITS_PER_BLOCK;
                const real* last = from + columns * K - H + (end < H ? end : H) - 1;
                while (tid < BLOCKS_PER_GROUP && not_ready(load_relaxed(last))) backoff();
                __syncthreads();
            }
            for (int begin = 0; begin < columns; begin += ROWS_IN_SHARED) {
                const int rows = columns - begin < ROWS_IN_SHARED ? columns - begin : ROWS_IN_SHARED;
                if (begin) __syncthreads();
                copy(from + begin * K, x, rows, awaited);
                __syncthreads();
                weights.multiply(x, q + (part / LANES * COLUMNS_PER_GROUP + begin) * M, rows, set, part);
            }
        }
        __syncthreads();
    }

    // An output of a column: the sum of what the WARPS warps have.
    __device__ __forceinline__ real product(int row, int output) const {
        real total = q[row * M + output];
#pragma unroll
        for (int i = 1; i < WARPS; ++i) total += q[(i * COLUMNS_PER_GROUP + row) * M + output];
        return total;
    }

    // The e-th unit of a column that the thread looks after: whether there is one, its row, and its places.
    __device__ __forceinline__ bool owns(int e, int& row, int& offset) const {
        const int i = tid + e * THREADS;
        row = i / UNITS_PER_BLOCK;
        offset = i % UNITS_PER_BLOCK;
        return row < columns && offset < UNITS_PER_BLOCK && unit + offset < H;
    }
};
