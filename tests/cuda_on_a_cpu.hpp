// What recurrence.cu needs of CUDA, on a CPU: threads take turns, and give way only where they wait for each other.
//
// Every thread of every block has a stack of its own (ucontext). One that comes to a barrier, a shuffle or a waiting loop hands
// over to the next, so that a program with a barrier too few, or one that only some threads reach, goes wrong or is noticed.

#include <ucontext.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(threads, blocks)
#define __ldcg(place) (*(place))
#define __threadfence()

struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };

struct Index { int x; };

struct Barrier {
    int size, arrived = 0, round = 0;
};

struct Warp {
    Barrier barrier{32};
    double slots[32];
};

struct Block {
    int number;
    Barrier barrier{THREADS};
    std::vector<Warp> warps = std::vector<Warp>(THREADS / 32);
    std::vector<char> memory;
};

struct Fiber {
    ucontext_t context;
    Block* block;
    int number;
    bool done = false;
    std::vector<char> stack = std::vector<char>(1 << 16);
};

static ucontext_t scheduler;
static Fiber* now;
static std::function<void()> kernel;
static long idle_turns;

#define threadIdx (Index{now->number})
#define blockIdx (Index{now->block->number})
#define shared (now->block->memory.data())

inline void give_way() { swapcontext(&now->context, &scheduler); }

inline void idle() {
    if (++idle_turns > 100000000) {
        std::fprintf(stderr, "blocks wait for each other for ever\n");
        std::abort();
    }
    give_way();
}

inline void wait(Barrier& barrier) {
    const int round = barrier.round;
    if (++barrier.arrived == barrier.size) {
        barrier.arrived = 0;
        ++barrier.round;
    }
    while (barrier.round == round) idle();
}

inline void __syncthreads() { wait(now->block->barrier); }

inline void atomicAdd(unsigned* place, unsigned value) { *place += value; }

inline real __shfl_xor_sync(unsigned, real value, int offset, int) {
    Warp& warp = now->block->warps[now->number / 32];
    warp.slots[now->number % 32] = value;
    wait(warp.barrier);
    const real other = real(warp.slots[(now->number % 32) ^ offset]);
    wait(warp.barrier);
    return other;
}

static void enter() {
    kernel();
    now->done = true;
    swapcontext(&now->context, &scheduler);
}

inline void launch(int blocks, int bytes, std::function<void()> body) {
    kernel = std::move(body);
    idle_turns = 0;
    std::vector<Block> all(blocks);
    std::vector<Fiber> fibers(blocks * THREADS);
    for (int b = 0; b < blocks; ++b) {
        all[b].number = b;
        all[b].memory.assign(bytes, char(0x7f));  // large numbers: what is read before it is written shows
    }
    for (size_t i = 0; i < fibers.size(); ++i) {
        Fiber& fiber = fibers[i];
        fiber.block = &all[i / THREADS];
        fiber.number = int(i % THREADS);
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = fiber.stack.size();
        fiber.context.uc_link = &scheduler;
        makecontext(&fiber.context, enter, 0);
    }
    for (bool left = true; left;) {
        left = false;
        for (Fiber& fiber : fibers) {
            if (fiber.done) continue;
            left = true;
            now = &fiber;
            swapcontext(&scheduler, &fiber.context);
        }
    }
}
