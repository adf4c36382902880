/* linear_attention of heads of 32 channels in bf16, on the tensor cores, in one launch: S = sum_j relu(k_j) [v_j; 1]^T
 * of HEADS heads, then S applied to their queries. The tokens of a frame are cut by shape alone into as many chunks as
 * a cluster has blocks; of a chunk two warps a head add every second 32 tokens, and warps and chunks are added in their
 * order: each block of a cluster adds a slice of S for all. The first queries are on their way meanwhile. S is applied
 * as the sum of two bf16 numbers, so that nothing but the products' operands, which are bf16 anyway, is rounded to 8
 * bits. Where there are no clusters (before sm_90), a frame is one chunk.
 *
 * Fragments as PTX has them for mma.m16n8k16: lane = 4 g + t has rows g and g + 8, columns 2 t and 2 t + 1 (and + 8).
 * Channels of q and of y stand in another order there, so that a lane reads and writes 8 that lie side by side. */
#include "kernels/cuda/linear_attention.cuh"
#include "kernels/cuda/mma.cuh"

#define DIM 32
#define HEADS 2 /* of a block: 128 bytes of a token where heads lie side by side */
#define WARPS (2 * HEADS)
#define TILE 64 /* tokens in shared memory at a time, 32 a warp */
#define STAGES 2
#define PART (TILE * DIM)        /* numbers: k or v of a head */
#define STAGE (2 * HEADS * PART) /* k of each head, then v of each */
#define QUERIES 16               /* of a warp at a time */
#define AHEAD 4                  /* as often are on their way */
#define CLUSTER_MAX 8
#define CHUNK_MIN 128
#define SUMS (DIM * (DIM + 1)) /* of a head: S^T [k][v], then the sums of relu(k) */
#define ROW (DIM + 1)          /* in shared memory: [k][v and 1] */

/* Both halves at once; a NaN stays one. */
static __device__ __forceinline__ uint32_t relu_2(uint32_t two)
{
    uint32_t kept;
    asm("max.NaN.bf16x2 %0, %1, %2;\n" : "=r"(kept) : "r"(two), "r"(0u));
    return kept;
}

/* --- clusters ----------------------------------------------------------------------------------------------------- */

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define HAS_CLUSTERS 1
#endif

/* All blocks' threads have come so far, and see what the others wrote. */
static __device__ __forceinline__ void cluster_wait(void)
{
#ifdef HAS_CLUSTERS
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;\n" ::: "memory");
#else
    __syncthreads();
#endif
}

static __device__ __forceinline__ float4 cluster_read(const float4 *p, uint32_t block)
{
#ifdef HAS_CLUSTERS
    float4 v;
    asm volatile("{\n.reg .b32 there;\n"
                 "mapa.shared::cluster.u32 there, %4, %5;\n"
                 "ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [there];\n}"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "r"(weir_shared_address(p)), "r"(block)
                 : "memory");
    return v;
#else
    (void)block;
    return *p;
#endif
}
static __device__ __forceinline__ void cluster_write(float4 *p, uint32_t block, float4 v)
{
#ifdef HAS_CLUSTERS
    asm volatile("{\n.reg .b32 there;\n"
                 "mapa.shared::cluster.u32 there, %0, %1;\n"
                 "st.shared::cluster.v4.f32 [there], {%2, %3, %4, %5};\n}" ::"r"(weir_shared_address(p)),
                 "r"(block), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w)
                 : "memory");
#else
    (void)block;
    *p = v;
#endif
}

/* --- keys and values ---------------------------------------------------------------------------------------------- */

/* Where 8 channels lie in a part: rows of 64 bytes, their quarters swapped so that 8 rows are read at once. */
static __device__ __forceinline__ uint32_t place_of(uint32_t token, uint32_t eighth)
{
    return token * DIM + (eighth ^ (token / 2 % 4)) * 8;
}

/* Tokens of k and v of the block's heads to a stage, on their way; zeros from `end` on. */
static __device__ __forceinline__ void bring(const struct weir_linear_attention &s, bf16 *stage, const bf16 *x,
                                             uint32_t head, uint32_t first, uint32_t end)
{
    constexpr uint32_t wide = 4 * HEADS, together = 32 * WARPS / wide; /* threads of a token; tokens at a time */
    const uint32_t eighth = threadIdx.x % 4, h = threadIdx.x / 4 % HEADS, token = threadIdx.x / wide;
    const bool there = head + h < s.heads;
    const bf16 *from = x + (uint64_t)(there ? head + h : 0) * s.head_step + eighth * 8;
#pragma unroll
    for (uint32_t what = 0; what < 2; what++) {
        const bf16 *of = from + (what ? s.v_channel : s.k_channel);
        bf16 *to = stage + (what * HEADS + h) * PART;
#pragma unroll
        for (uint32_t i = token; i < TILE; i += together) {
            const bool real = there && first + i < end;
            asm volatile(
                "cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(weir_shared_address(to + place_of(i, eighth))),
                "l"(real ? of + (uint64_t)(first + i) * s.stride : of), "r"(real ? 16 : 0)
                : "memory");
        }
    }
}

/* A warp's rows are channels of k, its columns those of v, and one more of ones; 16 tokens from `row` on. */
static __device__ __forceinline__ void add_tokens(float (&sums)[2][5][4], const bf16 *keys, const bf16 *values,
                                                  uint32_t row)
{
    const uint32_t lane = threadIdx.x % 32, ones = 0x3f803f80u; /* two of 1.0 */
    uint32_t a[2][4], b[2][4];
#pragma unroll
    for (uint32_t m = 0; m < 2; m++) { /* K^T: rows are channels, columns tokens */
        weir_load_4_turned(a[m], keys + place_of(row + lane / 16 * 8 + lane % 8, m * 2 + lane / 8 % 2));
#pragma unroll
        for (int i = 0; i < 4; i++) a[m][i] = relu_2(a[m][i]);
    }
#pragma unroll
    for (uint32_t n = 0; n < 2; n++) weir_load_4_turned(b[n], values + place_of(row + lane % 16, n * 2 + lane / 16));
#pragma unroll
    for (int m = 0; m < 2; m++) {
#pragma unroll
        for (int n = 0; n < 2; n++) {
            weir_multiply(sums[m][2 * n], a[m], b[n][0], b[n][1]);
            weir_multiply(sums[m][2 * n + 1], a[m], b[n][2], b[n][3]);
        }
        weir_multiply(sums[m][4], a[m], ones, ones);
    }
}

static __device__ __forceinline__ void put_sums(float *to, const float (&sums)[2][5][4])
{
    const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (uint32_t m = 0; m < 2; m++) {
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) {
            float *row = to + (m * 16 + g + i / 2 * 8) * ROW;
#pragma unroll
            for (uint32_t n = 0; n < 4; n++) row[n * 8 + t * 2 + i % 2] = sums[m][n][i];
            if (t == 0 && i % 2 == 0) row[DIM] = sums[m][4][i];
        }
    }
}

/* --- queries ------------------------------------------------------------------------------------------------------ */

/* 8 channels of two rows of each 16 tokens; zeros from `end` on. */
static __device__ __forceinline__ void fetch(uint4 (&to)[QUERIES / 16][2], const bf16 *from, uint32_t stride,
                                             uint32_t first, uint32_t end)
{
    const uint32_t g = threadIdx.x % 32 / 4;
#pragma unroll
    for (uint32_t i = 0; i < QUERIES / 8; i++) {
        const uint32_t token = first + i * 8 + g;
        to[i / 2][i % 2] =
            token < end ? *reinterpret_cast<const uint4 *>(from + (uint64_t)token * stride) : make_uint4(0, 0, 0, 0);
    }
}

/* S of a head as B fragments, each number as a large and a small part: words 0 and 1 of a lane are the large parts of
 * its two pairs of rows, 2 and 3 the small ones. Row r of step c is channel 8 t + 4 c + 2 (r / 8) + r % 2 of q, t = r %
 * 8 / 2; column j of tile n channel 8 (j / 2) + 2 n + j % 2 of v; all of the fifth tile's are the denominator. */
#define TILES_OF_V 5
#define FRAGMENTS (2 * TILES_OF_V * 32) /* uint4 of a head */

/* This block's slice of S, summed over the chunks, to all blocks. */
static __device__ __forceinline__ void add_chunks(const float *parts, float *whole, uint32_t chunk, uint32_t chunks)
{
    const uint32_t slice = HEADS * SUMS / 4 / chunks; /* chunks is a power of two up to 8: nothing is left */
    for (uint32_t i = chunk * slice + threadIdx.x; i < (chunk + 1) * slice; i += 32 * WARPS) {
        const float4 *at = reinterpret_cast<const float4 *>(parts + i / (SUMS / 4) * 2 * SUMS) + i % (SUMS / 4);
        float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll 8
        for (uint32_t n = 0; n < chunks; n++) {
            const float4 more = cluster_read(at, n);
            sum.x += more.x, sum.y += more.y, sum.z += more.z, sum.w += more.w;
        }
#pragma unroll 8
        for (uint32_t n = 0; n < chunks; n++) cluster_write(reinterpret_cast<float4 *>(whole) + i, n, sum);
    }
}

static __device__ __forceinline__ void prepare(uint4 *fragments, const float *whole)
{
    for (uint32_t i = threadIdx.x; i < HEADS * FRAGMENTS; i += 32 * WARPS) {
        const uint32_t g = i / 4 % 8, t = i % 4, n = i / 32 % TILES_OF_V, c = i / 32 / TILES_OF_V % 2;
        const float *at =
            whole + i / FRAGMENTS * SUMS + (8 * t + 4 * c) * ROW + (n < 4 ? g / 2 * 8 + 2 * n + g % 2 : DIM);
        uint32_t large[2], small[2];
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
            const float low = at[2 * half * ROW], high = at[(2 * half + 1) * ROW];
            large[half] = weir_pair(low, high);
            small[half] =
                weir_pair(low - __uint_as_float(large[half] << 16), high - __uint_as_float(large[half] & 0xffff0000u));
        }
        fragments[i] = make_uint4(large[0], large[1], small[0], small[1]);
    }
}

/* QUERIES queries of a head. */
static __device__ __forceinline__ void apply(const uint4 *s, const uint4 (&q)[QUERIES / 16][2], float eps, bf16 *to,
                                             uint64_t step, uint32_t first, uint32_t end)
{
    constexpr uint32_t parts = QUERIES / 16;
    const uint32_t lane = threadIdx.x % 32, g = lane / 4;
    float out[parts][TILES_OF_V][4] = {};
    uint32_t a[parts][2][4];
#pragma unroll
    for (uint32_t m = 0; m < parts; m++) {
#pragma unroll
        for (uint32_t i = 0; i < 2; i++) {
            a[m][0][i] = relu_2(q[m][i].x), a[m][0][i + 2] = relu_2(q[m][i].y);
            a[m][1][i] = relu_2(q[m][i].z), a[m][1][i + 2] = relu_2(q[m][i].w);
        }
    }
#pragma unroll
    for (uint32_t c = 0; c < 2; c++) {
#pragma unroll
        for (uint32_t n = 0; n < TILES_OF_V; n++) {
            const uint4 b = s[(c * TILES_OF_V + n) * 32 + lane];
#pragma unroll
            for (uint32_t m = 0; m < parts; m++) {
                weir_multiply(out[m][n], a[m][c], b.x, b.y);
                weir_multiply(out[m][n], a[m][c], b.z, b.w);
            }
        }
    }
#pragma unroll
    for (uint32_t i = 0; i < 2 * parts; i++) {
        const float *row = &out[i / 2][0][i % 2 * 2];
        const float inverse = 1.0f / (row[4 * 4] + eps); /* all columns of the fifth tile are alike */
        const uint32_t token = first + i * 8 + g;
        uint32_t words[4];
#pragma unroll
        for (int n = 0; n < 4; n++) words[n] = weir_pair(row[n * 4] * inverse, row[n * 4 + 1] * inverse);
        if (token < end)
            *reinterpret_cast<uint4 *>(to + token * step) = make_uint4(words[0], words[1], words[2], words[3]);
    }
}

/* A cluster: all tokens of HEADS heads of a frame. A block: a chunk of them. */
__global__ void __launch_bounds__(32 * WARPS, 5)
    linear_attention_32(struct weir_linear_attention s, uint32_t size, uint32_t chunks, const bf16 *x, bf16 *y)
{
    __shared__ __align__(16) unsigned char memory[STAGES * STAGE * sizeof(bf16)];
    bf16 *stages = reinterpret_cast<bf16 *>(memory);
    float *parts = reinterpret_cast<float *>(memory), *whole = parts + WARPS * SUMS; /* when the stages were read */
    uint4 *fragments = reinterpret_cast<uint4 *>(memory);                            /* when the parts were */
    const uint32_t chunk = blockIdx.x % chunks, pairs = (s.heads + HEADS - 1) / HEADS;
    const uint32_t head = blockIdx.x / chunks % pairs * HEADS;
    const uint64_t frame = blockIdx.x / chunks / pairs;
    const uint32_t warp = threadIdx.x / 32, h = warp / 2, side = warp % 2, t = threadIdx.x % 4;
    const uint32_t begin = chunk * size < s.pixels ? chunk * size : s.pixels;
    const uint32_t end = s.pixels - begin < size ? s.pixels : begin + size;
    const bf16 *from = x + frame * s.pixels * s.stride;
    const bool mine = head + h < s.heads;

    static_assert((WARPS + HEADS) * SUMS * sizeof(float) <= sizeof memory, "they are as large as the stages");
    static_assert(HEADS * FRAGMENTS * sizeof(uint4) <= WARPS * SUMS * sizeof(float), "fragments are as large as parts");
#pragma unroll
    for (uint32_t i = 0; i < STAGES; i++) {
        bring(s, stages + i * STAGE, from, head, begin + i * TILE, end);
        asm volatile("cp.async.commit_group;\n" ::: "memory");
    }
    uint4 queries[AHEAD][QUERIES / 16][2];
    const bf16 *q_from = from + (uint64_t)(mine ? head + h : 0) * s.head_step + s.q_channel + t * 8;
    const uint32_t limit = mine ? end : 0;
#pragma unroll
    for (uint32_t i = 0; i < AHEAD / 2; i++)
        fetch(queries[i], q_from, s.stride, begin + (2 * i + side) * QUERIES, limit);

    float sums[2][5][4] = {};
    uint32_t stage = 0;
    for (uint32_t token = begin; token < end; token += TILE) {
        asm volatile("cp.async.wait_group %0;\n" ::"n"(STAGES - 1) : "memory");
        __syncthreads();
        const bf16 *keys = stages + stage * STAGE + h * PART, *values = keys + HEADS * PART;
#pragma unroll
        for (uint32_t i = 0; i < TILE / 32; i++) add_tokens(sums, keys, values, side * (TILE / 2) + i * 16);
        __syncthreads();
        if (token + STAGES * TILE < end) bring(s, stages + stage * STAGE, from, head, token + STAGES * TILE, end);
        asm volatile("cp.async.commit_group;\n" ::: "memory"); /* one a tile, if it is empty */
        if (++stage == STAGES) stage = 0;
    }
    asm volatile("cp.async.wait_group 0;\n" ::: "memory");
    __syncthreads();
    put_sums(parts + warp * SUMS, sums);
#pragma unroll
    for (uint32_t i = AHEAD / 2; i < AHEAD; i++)
        fetch(queries[i], q_from, s.stride, begin + (2 * i + side) * QUERIES, limit);
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < HEADS * SUMS; i += 32 * WARPS) {
        float *at = parts + i / SUMS * 2 * SUMS + i % SUMS;
        at[0] += at[SUMS];
    }
    cluster_wait();
    add_chunks(parts, whole, chunk, chunks);
    cluster_wait();
    prepare(fragments, whole);
    __syncthreads();

    bf16 *to = y + (frame * s.pixels * s.heads + head + h) * DIM + t * 8;
    for (uint32_t token = begin + side * QUERIES; token < limit; token += 2 * AHEAD * QUERIES) {
#pragma unroll
        for (uint32_t i = 0; i < AHEAD; i++) {
            const uint32_t first = token + i * 2 * QUERIES, next = first + 2 * AHEAD * QUERIES;
            apply(fragments + h * FRAGMENTS, queries[i], s.eps, to, (uint64_t)s.heads * DIM, first, limit);
            if (next < limit) fetch(queries[i], q_from, s.stride, next, limit);
        }
    }
}

#define EPS_MIN 1e-30f /* has an inverse */

bool weir_linear_attention_bf16_takes(const struct weir_linear_attention *s)
{
    return s->dtype == WEIR_BF16 && s->head_dim == DIM && s->eps >= EPS_MIN && s->stride % 8 == 0 &&
           s->head_step % 8 == 0 && s->q_channel % 8 == 0 && s->k_channel % 8 == 0 && s->v_channel % 8 == 0;
}

#define GENERATION_OF_CLUSTERS 90

enum weir_status weir_linear_attention_bf16_run(const struct weir_cuda_run *run)
{
    const struct weir_linear_attention *s = &run->plan->shape.linear_attention;
    const struct weir_cuda *cuda = (const struct weir_cuda *)run->plan->head.device;
    const bf16 *x = (const bf16 *)run->operands[WEIR_LINEAR_ATTENTION_X];
    bf16 *y = (bf16 *)run->operands[WEIR_LINEAR_ATTENTION_Y];
    uint32_t chunks = 1;
    while (cuda->generation >= GENERATION_OF_CLUSTERS && chunks < CLUSTER_MAX && s->pixels > chunks * CHUNK_MIN)
        chunks *= 2;
    const uint32_t tiles = (s->pixels + TILE - 1) / TILE, size = (tiles + chunks - 1) / chunks * TILE;
    const uint64_t blocks = (uint64_t)s->rows * s->frames * ((s->heads + HEADS - 1) / HEADS) * chunks;
    if (blocks > 0x7fffffffu) return WEIR_DEVICE;
    cudaLaunchAttribute cluster = {};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = chunks;
    cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
    cudaLaunchConfig_t launch = {};
    launch.gridDim = dim3((unsigned)blocks);
    launch.blockDim = dim3(32 * WARPS);
    launch.stream = run->stream->stream;
    launch.attrs = &cluster;
    launch.numAttrs = chunks > 1 ? 1 : 0;
    if (cudaLaunchKernelEx(&launch, linear_attention_32, *s, size, chunks, x, y) != cudaSuccess) return WEIR_DEVICE;
    return weir_launched();
}
