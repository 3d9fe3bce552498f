// What the kernels need of CUDA, on a CPU: threads take turns, and give way only where they wait for each other.
//
// Every thread of every block has a stack of its own (ucontext; between stacks it is _longjmp, which asks the system nothing),
// and gives way at a barrier, a shuffle and in a waiting loop. Who is next is drawn, and after a barrier one warp of the block,
// drawn too, sleeps: a program with a barrier too few computes something else. One whose threads wait for ever is given up.

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(threads, blocks)
#define NOT_A_NUMBER NAN

struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };

struct Index { int x; };

struct Barrier {
    int size, arrived, round;
};

struct Arrivals {  // of one mbarrier
    int bytes;  // that are still to come
    bool expected, odd;  // whether it has been said how many; the round
};

struct Parcel {  // what was sent and has not come yet
    real *place, value;
    Arrivals* arrivals;
};

struct Block {
    int number;
    Barrier barrier, warps[THREADS / 32], cluster;
    double slots[THREADS];  // what each thread gives in a shuffle
    long asleep[THREADS / 32];  // the turn until which a warp does nothing
    char* memory;
    Parcel* parcels;
    int sent;
};

struct Fiber {
    ucontext_t start;
    jmp_buf point;  // where it gave way
    bool begun;
    Block* block;
    int number;
    bool done;
};

constexpr int STACK = 1 << 16, PARCELS = 1 << 14;

static jmp_buf scheduler;
static Fiber* now;
static void (*kernel)();
static unsigned drawn;
static long turn;

inline unsigned draw() { return (drawn = drawn * 1664525u + 1013904223u) >> 16; }

#define threadIdx (Index{now->number})
#define blockIdx (Index{now->block->number})
#define shared (now->block->memory)

inline void give_way() {
    if (!_setjmp(now->point)) _longjmp(scheduler, 1);
}

inline void go_on(Fiber& fiber) {
    now = &fiber;
    if (_setjmp(scheduler)) return;
    if (fiber.begun) _longjmp(fiber.point, 1);
    fiber.begun = true;
    setcontext(&fiber.start);
}

inline void backoff() { give_way(); }

inline bool wait(Barrier& barrier) {
    const int round = barrier.round;
    if (++barrier.arrived == barrier.size) {
        barrier.arrived = 0;
        ++barrier.round;
        return true;  // the last one
    }
    while (barrier.round == round) backoff();
    return false;
}

inline void __syncthreads() {
    Block& block = *now->block;
    if (wait(block.barrier)) {
        block.asleep[draw() % (THREADS / 32)] = turn + draw() % 4 * 500;
        give_way();
    }
}

template <typename Piece> Piece load_relaxed(const Piece* place) { return *place; }
inline void store_relaxed(real* place, real value) { *place = value; }

inline void init(Arrivals* place) { *place = Arrivals{}; }

// What was sent comes when all of it is there, as late as it may.
inline void check(Block& block, Arrivals* own) {
    if (!own->expected || own->bytes) return;
    int kept = 0;
    for (int i = 0; i < block.sent; ++i) {
        const Parcel& parcel = block.parcels[i];
        if (parcel.arrivals == own) {
            *parcel.place = parcel.value;
        } else {
            block.parcels[kept++] = parcel;
        }
    }
    block.sent = kept;
    own->expected = false;
    own->odd = !own->odd;
}

inline void expect(Arrivals* place, int bytes) {
    if (place->expected) abort();
    place->bytes += bytes;
    place->expected = true;
    check(*now->block, place);
}

inline void await(Arrivals* place, int odd) {
    while (place->odd == bool(odd)) backoff();
}

template <typename Thing> Thing* in_block(Thing* place, Block* block) {
    return reinterpret_cast<Thing*>(block->memory + (reinterpret_cast<char*>(place) - now->block->memory));
}

inline void send(real* place, real value, Arrivals* arrivals, int block) {
    Block* own = now->block;
    Block* other = own - own->number % BLOCKS_PER_GROUP + block;
    if (other->sent == PARCELS) abort();
    Arrivals* there = in_block(arrivals, other);
    other->parcels[other->sent++] = Parcel{in_block(place, other), value, there};
    there->bytes -= sizeof(real);
    check(*other, there);
}

inline void cluster_barrier() {
    Block* first = now->block - now->block->number % BLOCKS_PER_GROUP;
    if (wait(first->cluster)) {
        now->block->asleep[draw() % (THREADS / 32)] = turn + draw() % 4 * 500;
        give_way();
    }
}

inline real __shfl_xor_sync(unsigned, real value, int offset, int) {
    Barrier& warp = now->block->warps[now->number / 32];
    now->block->slots[now->number] = value;
    wait(warp);
    const real other = real(now->block->slots[now->number ^ offset]);
    wait(warp);
    return other;
}

static void enter() {
    kernel();
    now->done = true;
    give_way();
}

// Whether all threads came to their end, and all that was sent.
inline bool launch(int blocks, int bytes, void (*body)()) {
    kernel = body;
    drawn = 1;
    const int threads = blocks * THREADS;
    Block* all = static_cast<Block*>(calloc(blocks, sizeof(Block)));
    Fiber* fibers = static_cast<Fiber*>(calloc(threads, sizeof(Fiber)));
    char* stacks = static_cast<char*>(malloc(size_t(threads) * STACK));
    for (int b = 0; b < blocks; ++b) {
        all[b].number = b;
        all[b].barrier.size = THREADS;
        all[b].cluster.size = THREADS * BLOCKS_PER_GROUP;
        for (Barrier& warp : all[b].warps) warp.size = 32;
        all[b].memory = static_cast<char*>(aligned_alloc(16, (bytes + 15) / 16 * 16));
        all[b].parcels = static_cast<Parcel*>(malloc(sizeof(Parcel) * PARCELS));
        memset(all[b].memory, 0x7f, bytes);  // large numbers: what is read before it is written shows
    }
    for (int i = 0; i < threads; ++i) {
        fibers[i].block = &all[i / THREADS];
        fibers[i].number = i % THREADS;
        getcontext(&fibers[i].start);
        fibers[i].start.uc_stack.ss_sp = stacks + size_t(i) * STACK;
        fibers[i].start.uc_stack.ss_size = STACK;
        makecontext(&fibers[i].start, enter, 0);
    }
    int left = threads;
    for (turn = 0; left && turn < 200000L * blocks; ++turn) {
        const int warp = draw() % (threads / 32);
        if (turn < fibers[warp * 32].block->asleep[warp % (THREADS / 32)]) continue;
        const int start = draw() % 32;
        for (int i = 0; i < 32; ++i) {
            Fiber& fiber = fibers[warp * 32 + (start + i) % 32];
            if (fiber.done) continue;
            go_on(fiber);
            left -= fiber.done;
        }
    }
    for (int b = 0; b < blocks; ++b) {
        left += all[b].sent;  // what was sent to a block that has ended
        free(all[b].parcels);
        free(all[b].memory);
    }
    free(all);
    free(fibers);
    free(stacks);
    return left == 0;
}
