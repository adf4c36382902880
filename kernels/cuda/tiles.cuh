/* tiles: the instructions of sm_90a by which tiles come to shared memory and are multiplied there: barriers that count
 * bytes, copies by a tensor's map, products of a warpgroup (PTX ISA 8.x: mbarrier, cp.async.bulk.tensor, wgmma). Tiles
 * lie as 128 bytes a row, their 16-byte parts swapped by the row's number (CU_TENSOR_MAP_SWIZZLE_128B), and begin at
 * multiples of 1024 bytes. */
#ifndef WEIR_KERNELS_CUDA_TILES_CUH
#define WEIR_KERNELS_CUDA_TILES_CUH

#include <cuda.h>
#include <stdint.h>

#define WEIR_TILE_ROW_BYTES 128

/* --- barriers, by their shared addresses -------------------------------------------------------------------------- */

static __device__ __forceinline__ void weir_barrier_init(uint32_t barrier, uint32_t arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

static __device__ __forceinline__ void weir_barrier_arrive(uint32_t barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/* Arrives, and lets the barrier wait for that many bytes besides. */
static __device__ __forceinline__ void weir_barrier_expect(uint32_t barrier, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

/* Until the phase of that parity has ended. */
static __device__ __forceinline__ void weir_barrier_wait(uint32_t barrier, uint32_t parity)
{
    uint32_t done;
    do {
        asm volatile("{\n.reg .pred done;\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, done;\n}"
                     : "=r"(done)
                     : "r"(barrier), "r"(parity)
                     : "memory");
    } while (!done);
}

#define WEIR_BARRIER_BYTES 8

/* A place in a ring of barriers and what their parity is there. */
struct weir_ring {
    uint32_t slot, parity;
};
template <int SLOTS> static __device__ __forceinline__ void weir_ring_next(struct weir_ring *ring)
{
    if (++ring->slot == SLOTS) {
        ring->slot = 0;
        ring->parity ^= 1;
    }
}

template <int SLOTS> static __device__ __forceinline__ void weir_ring_skip(struct weir_ring *ring, uint32_t count)
{
    const uint32_t slot = ring->slot + count;
    ring->slot = slot % SLOTS;
    ring->parity ^= slot / SLOTS & 1;
}

/* --- copies ------------------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ void weir_tile_load(uint32_t to, const CUtensorMap *map, uint32_t barrier, int c0,
                                                      int c1, int c2)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, "
                 "%5}], [%2];" ::"r"(to),
                 "l"(map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2)
                 : "memory");
}
static __device__ __forceinline__ void weir_tile_load(uint32_t to, const CUtensorMap *map, uint32_t barrier, int c0,
                                                      int c1, int c2, int c3)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, "
                 "%6}], [%2];" ::"r"(to),
                 "l"(map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
                 : "memory");
}

/* Pixels one after the other of the box that the map has within a picture, then of the next picture's. */
static __device__ __forceinline__ void weir_tile_load_pixels(uint32_t to, const CUtensorMap *map, uint32_t barrier,
                                                             int channel, int x, int y, int image, uint32_t right,
                                                             uint32_t below)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%0], [%1, {%3, "
                 "%4, %5, %6}], [%2], {%7, %8};" ::"r"(to),
                 "l"(map), "r"(barrier), "r"(channel), "r"(x), "r"(y), "r"(image), "h"((uint16_t)right),
                 "h"((uint16_t)below)
                 : "memory");
}

/* --- products ----------------------------------------------------------------------------------------------------- */

/* Of rows of 64 numbers of bf16, eight rows after eight, at a shared address: the lower half of what the instruction
 * wants, in which a step of 16 bytes is 1. */
static __device__ __forceinline__ uint32_t weir_tile_descriptor(uint32_t address)
{
    return address >> 4 | 1u << 16;
}
static __device__ __forceinline__ uint64_t weir_whole_descriptor(uint32_t lower)
{
    return (uint64_t)(1024 >> 4 | 1u << 30) << 32 | lower; /* 1024 bytes from eight rows to eight; swapped */
}

static __device__ __forceinline__ void weir_products_begin(void)
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
static __device__ __forceinline__ void weir_products_commit(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/* Until at most `left` groups are under way. */
template <int LEFT> static __device__ __forceinline__ void weir_products_wait(void)
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}

#define WEIR_TEN(tens)                                                                                                 \
    "%" #tens "0,%" #tens "1,%" #tens "2,%" #tens "3,%" #tens "4,%" #tens "5,%" #tens "6,%" #tens "7,%" #tens          \
    "8,%" #tens "9"
#define WEIR_SUMS_4(d, i) "+f"((d)[i]), "+f"((d)[(i) + 1]), "+f"((d)[(i) + 2]), "+f"((d)[(i) + 3])
#define WEIR_SUMS_16(d, i) WEIR_SUMS_4(d, i), WEIR_SUMS_4(d, (i) + 4), WEIR_SUMS_4(d, (i) + 8), WEIR_SUMS_4(d, (i) + 12)
#define WEIR_NEW_4(d, i) "=f"((d)[i]), "=f"((d)[(i) + 1]), "=f"((d)[(i) + 2]), "=f"((d)[(i) + 3])
#define WEIR_NEW_16(d, i) WEIR_NEW_4(d, i), WEIR_NEW_4(d, (i) + 4), WEIR_NEW_4(d, (i) + 8), WEIR_NEW_4(d, (i) + 12)
/* `sums` names the registers, A and B the numbers of what follows them. */
#define WEIR_WGMMA(n, sums, A, B)                                                                                      \
    "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" sums "}, %" #A ", %" #B ", 1, 1, 1, 0, 0;"
#define WEIR_WGMMA_NEW(n, sums, A, B)                                                                                  \
    "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" sums "}, %" #A ", %" #B ", 0, 1, 1, 0, 0;"

/* sums [64, N] += a [64, 16] b [N, 16]^T, both from shared memory; row l / 4 (+ 8) and columns 2 (l % 4) + {0, 1} of
 * each eight belong to lane l of a warp of 16 rows. */
template <int N> struct weir_product;
template <> struct weir_product<8> {
    static __device__ __forceinline__ void run(float *d, uint32_t a, uint32_t b)
    {
        asm volatile(WEIR_WGMMA(8, "%0,%1,%2,%3", 4, 5)
                     : WEIR_SUMS_4(d, 0)
                     : "l"(weir_whole_descriptor(a)), "l"(weir_whole_descriptor(b)));
    }
};
template <> struct weir_product<64> {
    static __device__ __forceinline__ void run(float *d, uint32_t a, uint32_t b)
    {
        asm volatile(WEIR_WGMMA(64, WEIR_TEN() "," WEIR_TEN(1) "," WEIR_TEN(2) ",%30,%31", 32, 33)
                     : WEIR_SUMS_16(d, 0), WEIR_SUMS_16(d, 16)
                     : "l"(weir_whole_descriptor(a)), "l"(weir_whole_descriptor(b)));
    }
};
template <> struct weir_product<80> {
    static __device__ __forceinline__ void run(float *d, uint32_t a, uint32_t b)
    {
        asm volatile(WEIR_WGMMA(80, WEIR_TEN() "," WEIR_TEN(1) "," WEIR_TEN(2) "," WEIR_TEN(3), 40, 41)
                     : WEIR_SUMS_16(d, 0), WEIR_SUMS_16(d, 16), WEIR_SUMS_4(d, 32), WEIR_SUMS_4(d, 36)
                     : "l"(weir_whole_descriptor(a)), "l"(weir_whole_descriptor(b)));
    }
    /* The same with = for +=. */
    static __device__ __forceinline__ void begin(float *d, uint32_t a, uint32_t b)
    {
        asm volatile(WEIR_WGMMA_NEW(80, WEIR_TEN() "," WEIR_TEN(1) "," WEIR_TEN(2) "," WEIR_TEN(3), 40, 41)
                     : WEIR_NEW_16(d, 0), WEIR_NEW_16(d, 16), WEIR_NEW_4(d, 32), WEIR_NEW_4(d, 36)
                     : "l"(weir_whole_descriptor(a)), "l"(weir_whole_descriptor(b)));
    }
};
template <> struct weir_product<128> {
    static __device__ __forceinline__ void run(float *d, uint32_t a, uint32_t b)
    {
        asm volatile(WEIR_WGMMA(128,
                                WEIR_TEN() "," WEIR_TEN(1) "," WEIR_TEN(2) "," WEIR_TEN(3) "," WEIR_TEN(4) "," WEIR_TEN(
                                    5) ",%60,%61,%62,%63",
                                64, 65)
                     : WEIR_SUMS_16(d, 0), WEIR_SUMS_16(d, 16), WEIR_SUMS_16(d, 32), WEIR_SUMS_16(d, 48)
                     : "l"(weir_whole_descriptor(a)), "l"(weir_whole_descriptor(b)));
    }
};
template <> struct weir_product<160> {
    static __device__ __forceinline__ void run(float *d, uint32_t a, uint32_t b)
    {
        asm volatile(WEIR_WGMMA(160,
                                WEIR_TEN() "," WEIR_TEN(1) "," WEIR_TEN(2) "," WEIR_TEN(3) "," WEIR_TEN(4) "," WEIR_TEN(
                                    5) "," WEIR_TEN(6) "," WEIR_TEN(7),
                                80, 81)
                     : WEIR_SUMS_16(d, 0), WEIR_SUMS_16(d, 16), WEIR_SUMS_16(d, 32), WEIR_SUMS_16(d, 48),
                       WEIR_SUMS_16(d, 64)
                     : "l"(weir_whole_descriptor(a)), "l"(weir_whole_descriptor(b)));
    }
};

#define WEIR_WGMMA_TURNED(n, sums, A0, A1, A2, A3, B)                                                                  \
    "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" sums "}, {%" #A0 ",%" #A1 ",%" #A2 ",%" #A3 "}, %" #B \
    ", 1, 1, 1, 1;"
#define WEIR_KEPT(a, b) "r"((a)[0]), "r"((a)[1]), "r"((a)[2]), "r"((a)[3]), "l"(b)

/* The lower half of a descriptor of what is turned: tiles of 16 or more rows of k, 64 columns of n; `step` bytes from
 * one to that of the next 64 columns. */
static __device__ __forceinline__ uint32_t weir_turned_descriptor(uint32_t address, uint32_t step)
{
    return address >> 4 | step >> 4 << 16;
}

/* sums [64, N] += a [64, 16] b [16, N]: a in registers, which hold it as they would hold sums, in pairs; b turned. */
template <int N> struct weir_product_turned;
template <> struct weir_product_turned<64> {
    static __device__ __forceinline__ void run(float *d, const uint32_t a[4], uint32_t b)
    {
        asm volatile(WEIR_WGMMA_TURNED(64, WEIR_TEN() "," WEIR_TEN(1) "," WEIR_TEN(2) ",%30,%31", 32, 33, 34, 35, 36)
                     : WEIR_SUMS_16(d, 0), WEIR_SUMS_16(d, 16)
                     : WEIR_KEPT(a, weir_whole_descriptor(b)));
    }
};
template <> struct weir_product_turned<112> {
    static __device__ __forceinline__ void run(float *d, const uint32_t a[4], uint32_t b)
    {
        asm volatile(
            WEIR_WGMMA_TURNED(
                112,
                WEIR_TEN() "," WEIR_TEN(1) "," WEIR_TEN(2) "," WEIR_TEN(3) "," WEIR_TEN(4) ",%50,%51,%52,%53,%54,%55",
                56, 57, 58, 59, 60)
            : WEIR_SUMS_16(d, 0), WEIR_SUMS_16(d, 16), WEIR_SUMS_16(d, 32), WEIR_SUMS_4(d, 48), WEIR_SUMS_4(d, 52)
            : WEIR_KEPT(a, weir_whole_descriptor(b)));
    }
};

/* Four words a lane, of four lanes: word i of lane k becomes word k of lane i. */
static __device__ __forceinline__ void weir_transpose_4(uint32_t w[4], uint32_t lane)
{
    const bool odd = lane & 1, high = lane & 2;
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        const uint32_t got = __shfl_xor_sync(0xffffffffu, odd ? w[i] : w[i + 1], 1);
        if (odd)
            w[i] = got;
        else
            w[i + 1] = got;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint32_t got = __shfl_xor_sync(0xffffffffu, high ? w[i] : w[i + 2], 2);
        if (high)
            w[i] = got;
        else
            w[i + 2] = got;
    }
}

template <int REGISTERS> static __device__ __forceinline__ void weir_registers_more(void)
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}
template <int REGISTERS> static __device__ __forceinline__ void weir_registers_fewer(void)
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

#endif
