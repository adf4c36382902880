/* conv_tiles: convolutions of bf16 pictures on the tensor cores of sm_90a, with what is added in the same kernel.
 *
 * A block is 64 pixels of y: 8 x 8 of one picture, or "flat", 64 one after the other of all pictures. A tile is some
 * blocks times N channels of y. Of 64 channels of x and one column of the kernel, a square block's pixels come to shared
 * memory once, with the rows above and below that the column reaches: a tap is the same memory a row of pixels later. A
 * flat block's come for every tap, but no pixel is wasted where pictures are no multiples of 8. Outside a picture the
 * copies write zeros.
 *
 * One warp copies, two warpgroups multiply: as a team, BLOCKS blocks of a tile each (TEAM 2), or in turns, a tile each
 * (TEAM 1): then one writes its sums, and reads what the next ones begin with, while the other multiplies. A
 * multiprocessor takes tile after tile.
 *
 * A sum begins as bias, row_bias and residual. Terms are added 64 channels by 64, within these column by column of the
 * kernel, within these row by row, 16 channels an instruction: in every tile, so that the bytes of y are the same
 * whichever is taken. A picture of twice the size (nearest) before a kernel of 3 x 3 is four kernels of 2 x 2 over the
 * small one (weights.c), a phase for each parity of y's rows and columns: 4/9 of the products, and no picture between. */
#ifndef WEIR_KERNELS_CUDA_CONV_TILES_CUH
#define WEIR_KERNELS_CUDA_CONV_TILES_CUH

#include "kernels/cuda/kernel.cuh"
#include "kernels/cuda/tiles.cuh"

#define CHANNELS 64 /* of x at a time: a row of a tile */
#define SIDE 8      /* of a block */
#define PIXELS 64   /* of a block */
#define FLAT 0      /* instead of the rows of a kernel */
#define MULTIPLIERS 2
#define TILE_THREADS (128 * (MULTIPLIERS + 1))
#define SHARED_BYTES_MAX (227 * 1024)
#define SHARED_BYTES_KEPT 2048 /* for barriers, and what is lost by beginning at a multiple of 1024 */

struct tiling {
    uint32_t chunks, taps_x, taps_y;            /* of x's channels; columns and rows of the kernel */
    uint32_t stride;                            /* of flat blocks */
    uint32_t blocks_x, blocks_y, images;        /* blocks of a picture */
    uint32_t tiles, tiles_n, phases;            /* tiles: of pixels, times tiles_n, times phases */
    int32_t height, width, pad_y, pad_x;        /* of the sums of a phase */
    uint32_t out, frames;                       /* channels of y; pictures a row */
    uint64_t image_step, line_step, pixel_step; /* of y, in numbers, from one of a phase to the next */
    uint64_t phase_line, phase_pixel;           /* and of a phase */
};

template <int N, int BLOCKS, int TEAM, int TAPS_Y> struct sizes {
    static constexpr int rows = TAPS_Y == FLAT ? SIDE : SIDE + TAPS_Y - 1; /* of pixels */
    static constexpr int block_bytes = SIDE * rows * WEIR_TILE_ROW_BYTES;
    static constexpr int x_bytes = block_bytes * BLOCKS * TEAM, w_bytes = N * WEIR_TILE_ROW_BYTES;
    static constexpr int room = SHARED_BYTES_MAX - SHARED_BYTES_KEPT;
    static constexpr int w_wanted = (TAPS_Y > 1 ? 5 : 3) * w_bytes;
    static constexpr int x_slots_most = (room - w_wanted) / x_bytes;
    static constexpr int x_slots = x_slots_most > 5 ? 5 : x_slots_most;
    static constexpr int w_slots_most = (room - x_slots * x_bytes) / w_bytes;
    static constexpr int w_slots = w_slots_most > 12 ? 12 : w_slots_most;
    static constexpr int bytes = x_slots * x_bytes + w_slots * w_bytes + SHARED_BYTES_KEPT;
};

/* Where a block lies in a picture of a phase's sums; of a flat one only its first pixel. */
struct place {
    uint32_t image;
    int32_t x, y;
};
static __device__ __forceinline__ struct place place_of(const struct tiling &t, uint32_t block)
{
    const uint32_t line = block / t.blocks_x;
    struct place p;
    p.x = (int32_t)(block % t.blocks_x) * SIDE;
    p.y = (int32_t)(line % t.blocks_y) * SIDE;
    p.image = line / t.blocks_y;
    return p;
}
static __device__ __forceinline__ struct place pixel_of(const struct tiling &t, uint32_t pixel)
{
    const uint32_t line = pixel / (uint32_t)t.width;
    struct place p;
    p.x = (int32_t)(pixel % (uint32_t)t.width);
    p.y = (int32_t)(line % (uint32_t)t.height);
    p.image = line / (uint32_t)t.height;
    return p;
}
/* Of the pixel whose sums are a block's row. */
template <int TAPS_Y>
static __device__ __forceinline__ struct place place_in(const struct tiling &t, uint32_t block, uint32_t row)
{
    if (TAPS_Y == FLAT) return pixel_of(t, block * PIXELS + row);
    struct place p = place_of(t, block);
    p.x += (int32_t)(row % SIDE);
    p.y += (int32_t)(row / SIDE);
    return p;
}

struct tile {
    uint32_t n, phase, block; /* number of its channels, of its phase; its first block */
};
template <int TOGETHER> static __device__ __forceinline__ struct tile tile_of(const struct tiling &t, uint32_t number)
{
    struct tile tile;
    tile.n = number % t.tiles_n;
    tile.phase = number / t.tiles_n % t.phases;
    tile.block = number / t.tiles_n / t.phases * TOGETHER;
    return tile;
}

struct following {
    const float *bias;
    const bf16 *row_bias, *residual;
    bf16 *y;
    bool silu;
};

/* Where the sums of a lane's row of a block go, in numbers of y; nowhere beyond the pictures. */
struct target {
    uint64_t at;
    uint32_t row;
    bool there;
};
template <int TAPS_Y>
static __device__ __forceinline__ struct target target_of(const struct tiling &t, uint64_t phase, uint32_t block,
                                                          uint32_t row)
{
    const struct place p = place_in<TAPS_Y>(t, block, row);
    struct target to;
    to.there = p.image < t.images && p.x < t.width && p.y < t.height;
    to.row = (to.there ? p.image : 0) / t.frames;
    to.at = p.image * t.image_step + (uint64_t)p.y * t.line_step + (uint64_t)p.x * t.pixel_step + phase;
    return to;
}

/* How a warpgroup's sums lie: of every block a lane has two rows, eight apart, and of each row two channels of every
 * eight. Four lanes have a row; by exchange each comes to eight channels of one eight of four, or back.
 * Line i of a lane: row i % 2 of block i / 2. */
template <int N, int BLOCKS> struct lines {
    static constexpr int count = 2 * BLOCKS;
    static __device__ __forceinline__ uint32_t row(uint32_t thread, int i)
    {
        return thread / 32 * 16 + (uint32_t)i % 2 * 8 + thread % 32 / 4;
    }
};

/* Two neighbours, the first even; 0 from `count` on, which is even where tiles are wide. */
template <int N> static __device__ __forceinline__ float2 pair_of(const float *from, uint32_t at, uint32_t count)
{
    const float2 none = { 0, 0 };
    if (N >= 32) return at < count ? __ldg(reinterpret_cast<const float2 *>(from + at)) : none;
    return float2{ at < count ? from[at] : 0.0f, at + 1 < count ? from[at + 1] : 0.0f };
}
template <int N> static __device__ __forceinline__ float2 pair_of(const bf16 *from, uint32_t at, uint32_t count)
{
    if (N >= 32) {
        const uint32_t word = at < count ? *reinterpret_cast<const uint32_t *>(from + at) : 0;
        return float2{ weir_low(word), weir_high(word) };
    }
    return float2{ at < count ? weir_read(from + at) : 0.0f, at + 1 < count ? weir_read(from + at + 1) : 0.0f };
}

/* The residual of a line, before the exchange. */
template <int N>
static __device__ __forceinline__ void fetch(const struct tiling &t, const struct following &f, const struct target &to,
                                             uint32_t channel, uint4 *more)
{
    const uint4 none = { 0, 0, 0, 0 };
#pragma unroll
    for (int c = 0; c < N; c += 32) {
        const bool reads = to.there && channel + c < t.out;
        more[c / 32] = reads ? *reinterpret_cast<const uint4 *>(f.residual + to.at + channel + c) : none;
    }
}
template <int N> static __device__ __forceinline__ void add(float *line, const uint4 *more, uint32_t lane)
{
#pragma unroll
    for (int c = 0; c < N; c += 32) {
        uint32_t w[4] = { more[c / 32].x, more[c / 32].y, more[c / 32].z, more[c / 32].w };
        weir_transpose_4(w, lane);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            line[(c / 8 + j) * 4] += weir_low(w[j]);
            line[(c / 8 + j) * 4 + 1] += weir_high(w[j]);
        }
    }
}

/* What is added to the products is where the sums begin. */
template <int N, int BLOCKS, int TAPS_Y>
static __device__ __forceinline__ void begin(const struct tiling &t, const struct following &f,
                                             float (&sums)[BLOCKS][N / 2], const struct tile &tile, uint32_t block,
                                             uint32_t thread)
{
    using L = lines<N, BLOCKS>;
    const uint64_t phase = tile.phase / 2 * t.phase_line + tile.phase % 2 * t.phase_pixel;
    const uint32_t lane = thread % 32, first = tile.n * N, channel = first + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < N / 8; j++) {
        const uint32_t o = channel + j * 8;
        const float2 bias = f.bias ? pair_of<N>(f.bias, o, t.out) : float2{ 0, 0 };
#pragma unroll
        for (int i = 0; i < L::count; i++) {
            sums[i / 2][j * 4 + i % 2 * 2] = bias.x;
            sums[i / 2][j * 4 + i % 2 * 2 + 1] = bias.y;
        }
    }
    if (f.row_bias) {
#pragma unroll
        for (int i = 0; i < L::count; i++) {
            const struct target to = target_of<TAPS_Y>(t, phase, block + i / 2, L::row(thread, i));
            const bf16 *from = f.row_bias + (uint64_t)to.row * t.out;
#pragma unroll
            for (int j = 0; j < N / 8; j++) {
                const uint32_t o = channel + j * 8;
                float *sum = sums[i / 2] + j * 4 + i % 2 * 2;
                const float2 both = pair_of<N>(from, o, t.out);
                sum[0] += both.x, sum[1] += both.y;
            }
            if (N * BLOCKS > 256) asm volatile("" ::: "memory"); /* the next ones after these */
        }
    }
    if (!f.residual) return;
    if constexpr (N < 32) {
#pragma unroll
        for (int i = 0; i < L::count; i++) {
            const struct target to = target_of<TAPS_Y>(t, phase, block + i / 2, L::row(thread, i));
            float *sum = sums[i / 2] + i % 2 * 2;
            if (!to.there) continue;
            const float2 both = pair_of<N>(f.residual + to.at, channel, t.out);
            sum[0] += both.x, sum[1] += both.y;
        }
    } else {
        constexpr int together = N * BLOCKS <= 256 ? L::count : 2; /* lines under way: as registers allow */
#pragma unroll
        for (int from = 0; from < L::count; from += together) {
            uint4 more[together][N / 32];
#pragma unroll
            for (int i = 0; i < together; i++) {
                const struct target to = target_of<TAPS_Y>(t, phase, block + (from + i) / 2, L::row(thread, from + i));
                fetch<N>(t, f, to, first + lane % 4 * 8, more[i]);
            }
#pragma unroll
            for (int i = 0; i < together; i++) add<N>(sums[(from + i) / 2] + (from + i) % 2 * 2, more[i], lane);
            asm volatile("" ::: "memory"); /* the next ones after these */
        }
    }
}

template <int N, int BLOCKS, int TAPS_Y>
static __device__ __forceinline__ void finish(const struct tiling &t, const struct following &f,
                                              float (&sums)[BLOCKS][N / 2], const struct tile &tile, uint32_t block,
                                              uint32_t thread)
{
    using L = lines<N, BLOCKS>;
    const uint64_t phase = tile.phase / 2 * t.phase_line + tile.phase % 2 * t.phase_pixel;
    const uint32_t lane = thread % 32, first = tile.n * N;
    if (f.silu) {
#pragma unroll
        for (int i = 0; i < BLOCKS * (N / 2); i++) {
            float *sum = sums[i / (N / 2)] + i % (N / 2);
            *sum = weir_act_fast<WEIR_ACT_SILU>(*sum);
        }
    }
#pragma unroll
    for (int i = 0; i < L::count; i++) {
        const struct target to = target_of<TAPS_Y>(t, phase, block + i / 2, L::row(thread, i));
        const float *line = sums[i / 2] + i % 2 * 2;
        if (N * BLOCKS > 256) asm volatile("" ::: "memory"); /* one line after the other: as registers allow */
        if constexpr (N < 32) {
            const uint32_t channel = first + lane % 4 * 2;
            if (to.there && channel < t.out) weir_write(f.y + to.at + channel, line[0]);
            if (to.there && channel + 1 < t.out) weir_write(f.y + to.at + channel + 1, line[1]);
        } else {
            bf16 *y = f.y + to.at + first + lane % 4 * 8;
#pragma unroll
            for (int c = 0; c < N; c += 32) {
                uint32_t w[4];
#pragma unroll
                for (int j = 0; j < 4; j++) w[j] = weir_pair(line[(c / 8 + j) * 4], line[(c / 8 + j) * 4 + 1]);
                weir_transpose_4(w, lane);
                if (to.there && first + lane % 4 * 8 + c < t.out)
                    *reinterpret_cast<uint4 *>(y + c) = make_uint4(w[0], w[1], w[2], w[3]);
            }
        }
    }
}

#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HAS_TILES 1
#endif

/* 64 channels of a tile's pixels under a column of the kernel, or if they are flat under one tap, on their way. */
template <typename S, uint32_t TOGETHER, int TAPS_Y>
static __device__ __forceinline__ void load_x(const struct tiling &t, const struct tile &tile, const CUtensorMap &map,
                                              uint32_t to, uint32_t barrier, int channel, uint32_t kx, uint32_t ky)
{
    const uint32_t right = tile.phase % 2 + kx, below = tile.phase / 2 + ky;
    if constexpr (TAPS_Y == FLAT) {
        const struct place p = pixel_of(t, tile.block * PIXELS);
        weir_tile_load_pixels(to, &map, barrier, channel, p.x * (int32_t)t.stride - t.pad_x,
                              p.y * (int32_t)t.stride - t.pad_y, (int)p.image, right, below);
    } else {
#pragma unroll
        for (uint32_t i = 0; i < TOGETHER; i++) {
            const struct place p = place_of(t, tile.block + i);
            weir_tile_load(to + i * S::block_bytes, &map, barrier, channel, p.x - t.pad_x + (int)right,
                           p.y - t.pad_y + (int)below, (int)p.image);
        }
    }
}

/* One tap: the products of all blocks, on their way. x and w: descriptors. */
template <int N, int BLOCKS, typename S>
static __device__ __forceinline__ void multiply(float (&sums)[BLOCKS][N / 2], uint32_t x, uint32_t w)
{
    weir_products_begin();
#pragma unroll
    for (uint32_t k = 0; k < CHANNELS / 16; k++) {
#pragma unroll
        for (uint32_t i = 0; i < BLOCKS; i++) {
            weir_product<N>::run(sums[i], x + i * (S::block_bytes / 16) + k * 2, w + k * 2);
        }
    }
    weir_products_commit();
}

/* Warpgroups that take tiles in turns begin one when the other has seen the last copies of the one before: a barrier
 * tells the end of a phase only from that of the next. */
static __device__ __forceinline__ void wait_for_turn(uint32_t group)
{
    asm volatile("bar.sync %0, 256;" ::"r"(group + 1) : "memory");
}
static __device__ __forceinline__ void give_turn(uint32_t group)
{
    asm volatile("bar.arrive %0, 256;" ::"r"(group + 1) : "memory");
}

template <int N, int BLOCKS, int TEAM, int TAPS_Y>
__global__ void __launch_bounds__(TILE_THREADS, 1)
    convolve(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap w_map,
             const __grid_constant__ struct tiling t, const __grid_constant__ struct following f)
{
#ifdef HAS_TILES
    using S = sizes<N, BLOCKS, TEAM, TAPS_Y>;
    constexpr uint32_t together = BLOCKS * TEAM;
    constexpr uint32_t taps = TAPS_Y == FLAT ? 1 : TAPS_Y; /* of one tile of x */
    extern __shared__ uint8_t raw[];
    /* Shared addresses: tiles of x, of the weight, and for each a barrier that it is there and one that it is free. */
    const uint32_t xs = (weir_shared_address(raw) + 1023) / 1024 * 1024, ws = xs + S::x_slots * S::x_bytes;
    const uint32_t x_full = ws + S::w_slots * S::w_bytes, x_empty = x_full + S::x_slots * WEIR_BARRIER_BYTES;
    const uint32_t w_full = x_empty + S::x_slots * WEIR_BARRIER_BYTES;
    const uint32_t w_empty = w_full + S::w_slots * WEIR_BARRIER_BYTES;
    const uint32_t group = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0); /* alike in a warp, as the compiler sees */
    const uint32_t steps = t.chunks * t.taps_x * (TAPS_Y == FLAT ? t.taps_y : 1);
    if (threadIdx.x == 0) {
        for (uint32_t i = 0; i < S::x_slots; i++) {
            weir_barrier_init(x_full + i * WEIR_BARRIER_BYTES, 1);
            weir_barrier_init(x_empty + i * WEIR_BARRIER_BYTES, 4 * TEAM);
        }
        for (uint32_t i = 0; i < S::w_slots; i++) {
            weir_barrier_init(w_full + i * WEIR_BARRIER_BYTES, 1);
            weir_barrier_init(w_empty + i * WEIR_BARRIER_BYTES, 4 * TEAM);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        asm volatile("fence.proxy.async;" ::: "memory");
    }
    __syncthreads();
    struct weir_ring x = { 0, 0 }, w = { 0, 0 };
    if (group == MULTIPLIERS) {
        weir_registers_fewer<24>();
        if (threadIdx.x % 128 != 0) return;
        const uint32_t columns = t.taps_x, lines = TAPS_Y == FLAT ? t.taps_y : TAPS_Y;
        for (uint32_t number = blockIdx.x; number < t.tiles; number += gridDim.x) {
            const struct tile tile = tile_of<together>(t, number);
            const int rows = (int)(tile.phase * t.out + tile.n * N);
            for (uint32_t tap = 0; tap < t.chunks * columns * lines; tap++) {
                const uint32_t ky = tap % lines, kx = tap / lines % columns;
                const int channel = (int)(tap / lines / columns) * CHANNELS;
                if (TAPS_Y == FLAT || ky == 0) {
                    const uint32_t full = x_full + x.slot * WEIR_BARRIER_BYTES;
                    weir_barrier_wait(x_empty + x.slot * WEIR_BARRIER_BYTES, x.parity ^ 1);
                    weir_barrier_expect(full, S::x_bytes);
                    load_x<S, together, TAPS_Y>(t, tile, x_map, xs + x.slot * S::x_bytes, full, channel, kx, ky);
                    weir_ring_next<S::x_slots>(&x);
                }
                const uint32_t full = w_full + w.slot * WEIR_BARRIER_BYTES;
                weir_barrier_wait(w_empty + w.slot * WEIR_BARRIER_BYTES, w.parity ^ 1);
                weir_barrier_expect(full, S::w_bytes);
                weir_tile_load(ws + w.slot * S::w_bytes, &w_map, full, channel, (int)(ky * columns + kx), rows);
                weir_ring_next<S::w_slots>(&w);
            }
        }
    } else {
        weir_registers_more<240>();
        float sums[BLOCKS][N / 2];
        const bool speaks = threadIdx.x % 32 == 0;
        const uint32_t thread = threadIdx.x % 128;
        const uint32_t mine = weir_tile_descriptor(xs + group % TEAM * BLOCKS * S::block_bytes);
        const uint32_t weights = weir_tile_descriptor(ws);
        const uint32_t products = steps * taps;
        uint32_t turn = 0;
        for (uint32_t number = blockIdx.x; number < t.tiles; number += gridDim.x) {
            if (TEAM == 1 && (turn++ & 1) != group) { /* the other's */
                weir_ring_skip<S::x_slots>(&x, steps);
                weir_ring_skip<S::w_slots>(&w, products);
                continue;
            }
            const bool first = number == blockIdx.x, last = number + gridDim.x >= t.tiles;
            const struct tile tile = tile_of<together>(t, number);
            const uint32_t block = tile.block + group % TEAM * BLOCKS;
            uint32_t ky = 0;
            begin<N, BLOCKS, TAPS_Y>(t, f, sums, tile, block, thread);
            if (TEAM == 1 && !first) wait_for_turn(group);
            weir_barrier_wait(x_full + x.slot * WEIR_BARRIER_BYTES, x.parity);
            weir_barrier_wait(w_full + w.slot * WEIR_BARRIER_BYTES, w.parity);
            multiply<N, BLOCKS, S>(sums, mine + x.slot * (S::x_bytes / 16), weights + w.slot * (S::w_bytes / 16));
            if (TEAM == 1 && !last && products == 1) give_turn(1 - group);
            for (uint32_t n = 1; n < products; n++) {
                const uint32_t x_before = x.slot, w_before = w.slot;
                const bool next = ++ky == taps;
                if (next) {
                    ky = 0;
                    weir_ring_next<S::x_slots>(&x);
                    weir_barrier_wait(x_full + x.slot * WEIR_BARRIER_BYTES, x.parity);
                }
                weir_ring_next<S::w_slots>(&w);
                weir_barrier_wait(w_full + w.slot * WEIR_BARRIER_BYTES, w.parity);
                multiply<N, BLOCKS, S>(sums, mine + x.slot * (S::x_bytes / 16) + ky * (SIDE * WEIR_TILE_ROW_BYTES / 16),
                                       weights + w.slot * (S::w_bytes / 16));
                if (TEAM == 1 && !last && n + 1 == products) give_turn(1 - group);
                weir_products_wait<1>(); /* those before are done, and their tiles free */
                if (speaks) weir_barrier_arrive(w_empty + w_before * WEIR_BARRIER_BYTES);
                if (speaks && next) weir_barrier_arrive(x_empty + x_before * WEIR_BARRIER_BYTES);
            }
            weir_products_wait<0>();
            if (speaks) weir_barrier_arrive(w_empty + w.slot * WEIR_BARRIER_BYTES);
            if (speaks) weir_barrier_arrive(x_empty + x.slot * WEIR_BARRIER_BYTES);
            weir_ring_next<S::x_slots>(&x);
            weir_ring_next<S::w_slots>(&w);
            uint32_t again = thread; /* places are computed anew: there are no registers to keep them in */
            asm volatile("" : "+r"(again));
            finish<N, BLOCKS, TAPS_Y>(t, f, sums, tile_of<together>(t, number), block, again);
        }
    }
#endif
}

#endif
