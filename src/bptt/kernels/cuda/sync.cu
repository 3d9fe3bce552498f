// How blocks hand each other numbers, and wait for them.
//
// Macros: real, BLOCKS_PER_GROUP (blocks of a group), CLUSTER (1 where groups are clusters).

template <int size> struct Pick { using Wide = float4; using Bits = unsigned; };  // 16 bytes; an integer of the same size
template <> struct Pick<8> { using Wide = double2; using Bits = unsigned long long; };
using Wide = Pick<sizeof(real)>::Wide;
using Bits = Pick<sizeof(real)>::Bits;
constexpr Bits EMPTY = ~Bits(0);  // in global memory; as a number a NaN, which is never written

template <typename Piece> __device__ __forceinline__ bool not_ready(const Piece& piece) {
    bool found = false;
#pragma unroll
    for (int i = 0; i < int(sizeof(Piece) / sizeof(Bits)); ++i) found |= reinterpret_cast<const Bits*>(&piece)[i] == EMPTY;
    return found;
}

#ifdef __CUDACC__
#define NOT_A_NUMBER __int_as_float(0x7fffffff)
extern __shared__ __align__(16) char shared[];

__device__ __forceinline__ void backoff() {}

// Read what other blocks write to global memory meanwhile, or write what they read.
__device__ __forceinline__ float4 load_relaxed(const float4* place) {
    float4 v;
    asm volatile("ld.relaxed.gpu.global.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "l"(place)
                 : "memory");
    return v;
}
__device__ __forceinline__ double2 load_relaxed(const double2* place) {
    double2 v;
    asm volatile("ld.relaxed.gpu.global.v2.f64 {%0, %1}, [%2];" : "=d"(v.x), "=d"(v.y) : "l"(place) : "memory");
    return v;
}
__device__ __forceinline__ real load_relaxed(const real* place) { return *reinterpret_cast<const volatile real*>(place); }
__device__ __forceinline__ void store_relaxed(real* place, real value) { *reinterpret_cast<volatile real*>(place) = value; }

#if CLUSTER
#define GROUPED __cluster_dims__(BLOCKS_PER_GROUP, 1, 1)
using Arrivals = unsigned long long;  // an mbarrier in shared memory: how many bytes are awaited, and in which round

__device__ __forceinline__ unsigned shared_address(const void* place) { return unsigned(__cvta_generic_to_shared(place)); }

__device__ __forceinline__ void init(Arrivals* place) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;\nfence.mbarrier_init.release.cluster;" ::"r"(shared_address(place)) : "memory");
}

// In this round so many bytes come in all.
__device__ __forceinline__ void expect(Arrivals* place, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(place)), "r"(bytes) : "memory");
}

// Wait for the end of a round, even or odd, and see what was sent in it. (Its `acquire` is that of a block, as in CUTLASS; what
// is sent comes before it is counted.)
__device__ __forceinline__ void await(Arrivals* place, int odd) {
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n"
                 "}" ::"r"(shared_address(place)), "r"(odd)
                 : "memory");
}

// Write into the shared memory of a block of the cluster, and have it counted there.
__device__ __forceinline__ void send(real* place, real value, Arrivals* arrivals, int block) {
    unsigned to, count;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(to) : "r"(shared_address(place)), "r"(block));
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(count) : "r"(shared_address(arrivals)), "r"(block));
    if constexpr (sizeof(real) == 4) {
        asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(to),
                     "r"(__float_as_uint(value)), "r"(count)
                     : "memory");
    } else {
        asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.b64 [%0], %1, [%2];" ::"r"(to),
                     "l"(__double_as_longlong(value)), "r"(count)
                     : "memory");
    }
}

// Wait for all threads of the cluster, and see what they wrote.
__device__ __forceinline__ void cluster_barrier() {
    asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}
#endif
#endif

#ifndef GROUPED
#define GROUPED
#endif
