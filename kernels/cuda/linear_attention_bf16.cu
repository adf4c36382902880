/* linear_attention of heads of 32 channels in bf16, on the tensor cores. One pass over K and V makes S = sum_j
 * relu(k_j) [v_j; 1]^T of every head, one over Q applies it. Tokens are cut into chunks by shape alone; of a chunk
 * each warp adds every 4th tile of 16 tokens, and warps and chunks are added in their order. S is applied as the sum
 * of two bf16 numbers, so that nothing but the products' operands, which are bf16 anyway, is rounded to 8 bits.
 *
 * Fragments as PTX has them for mma.m16n8k16: lane = 4 g + t has rows g and g + 8, columns 2 t and 2 t + 1 (and +
 * 8). */
#include "kernels/cuda/linear_attention.cuh"

#define DIM 32
#define CHUNK_TOKENS 512
#define SHORT_CHUNK_TOKENS 128 /* where there are no more than SHORT_TOKENS */
#define SHORT_TOKENS 2048
#define WARPS 4
#define TILE 64 /* tokens in shared memory at a time: 16 a warp */
#define STRIDE (DIM + 8)
#define QUERIES 128 /* a block of the second pass: 32 a warp */

static __device__ __forceinline__ uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

static __device__ __forceinline__ void load_4(uint32_t r[4], const bf16 *from)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(from)));
}

static __device__ __forceinline__ void load_4_turned(uint32_t r[4], const bf16 *from)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(from)));
}

static __device__ __forceinline__ void multiply(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};\n"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Both halves at once; a NaN stays one. */
static __device__ __forceinline__ uint32_t relu_2(uint32_t two)
{
    const uint32_t low = two & 0xffffu, high = two >> 16;
    const uint32_t kept_low = (low & 0x8000u) && (low & 0x7fffu) <= 0x7f80u ? 0 : low;
    const uint32_t kept_high = (high & 0x8000u) && (high & 0x7fffu) <= 0x7f80u ? 0 : high;
    return kept_high << 16 | kept_low;
}

static __device__ __forceinline__ uint32_t pair(float low, float high)
{
    const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t *>(&both);
}

bool weir_linear_attention_bf16_takes(const struct weir_linear_attention *s)
{
    return s->dtype == WEIR_BF16 && s->head_dim == DIM && s->stride % 8 == 0 && s->head_step % 8 == 0 &&
           s->q_channel % 8 == 0 && s->k_channel % 8 == 0 && s->v_channel % 8 == 0;
}

static uint32_t chunk_of(const struct weir_linear_attention *s)
{
    return s->pixels <= SHORT_TOKENS ? SHORT_CHUNK_TOKENS : CHUNK_TOKENS;
}

static uint32_t chunks_of(const struct weir_linear_attention *s)
{
    return (s->pixels + chunk_of(s) - 1) / chunk_of(s);
}

#define SUMS (DIM * (DIM + 1)) /* of a head: S^T [k][v], then the sums of relu(k) */

/* Of each head; then, where there are chunks, of each chunk. */
size_t weir_linear_attention_bf16_workspace(const struct weir_linear_attention *s)
{
    const uint32_t chunks = chunks_of(s);
    return (uint64_t)s->rows * s->frames * s->heads * (chunks > 1 ? chunks + 1 : 1) * SUMS * sizeof(float);
}

/* `count` tokens' 32 channels to rows of STRIDE, zeros from `end` on. */
template <bool RELU>
static __device__ __forceinline__ void bring(bf16 *to, const bf16 *from, uint64_t stride, uint32_t first,
                                             uint32_t count, uint32_t end)
{
    for (uint32_t n = threadIdx.x; n < count * 4; n += 32 * WARPS) {
        const uint32_t j = n / 4, c = n % 4 * 8;
        uint4 bits = make_uint4(0, 0, 0, 0);
        if (first + j < end) bits = *reinterpret_cast<const uint4 *>(from + (uint64_t)(first + j) * stride + c);
        if (RELU) bits = make_uint4(relu_2(bits.x), relu_2(bits.y), relu_2(bits.z), relu_2(bits.w));
        *reinterpret_cast<uint4 *>(to + j * STRIDE + c) = bits;
    }
}

#define PIECES (TILE * 4 / (32 * WARPS)) /* of 8 channels, of a thread */

/* The same of TILE tokens in two steps. */
static __device__ __forceinline__ void fetch(uint4 pieces[PIECES], const bf16 *from, uint64_t stride, uint32_t first,
                                             uint32_t end)
{
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
        const uint32_t n = threadIdx.x + i * 32 * WARPS, j = n / 4, c = n % 4 * 8;
        pieces[i] = make_uint4(0, 0, 0, 0);
        if (first + j < end) pieces[i] = *reinterpret_cast<const uint4 *>(from + (uint64_t)(first + j) * stride + c);
    }
}

template <bool RELU> static __device__ __forceinline__ void put(bf16 *to, const uint4 pieces[PIECES])
{
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
        const uint32_t n = threadIdx.x + i * 32 * WARPS, j = n / 4, c = n % 4 * 8;
        uint4 bits = pieces[i];
        if (RELU) bits = make_uint4(relu_2(bits.x), relu_2(bits.y), relu_2(bits.z), relu_2(bits.w));
        *reinterpret_cast<uint4 *>(to + j * STRIDE + c) = bits;
    }
}

/* A block: a chunk of a head. A warp's rows are channels of k, its columns those of v, and one more of ones. */
__global__ void __launch_bounds__(32 * WARPS)
    keys_and_values_32(struct weir_linear_attention s, uint32_t size, uint32_t chunks, const bf16 *x, float *out)
{
    __shared__ __align__(16) bf16 keys[TILE * STRIDE], values[TILE * STRIDE];
    __shared__ float parts[WARPS][DIM][DIM + 1];
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    /* Neighbouring heads share what memory gives at once: they are the nearest blocks. */
    const uint32_t chunk = blockIdx.x / s.heads % chunks;
    const uint64_t head = (uint64_t)(blockIdx.x / s.heads / chunks) * s.heads + blockIdx.x % s.heads;
    const bf16 *from = x + head / s.heads * s.pixels * s.stride + head % s.heads * s.head_step;
    const uint32_t begin = chunk * size;
    const uint32_t end = begin + size < s.pixels ? begin + size : s.pixels;
    const uint32_t ones = 0x3f803f80u; /* two of 1.0 */
    float sums[2][5][4];
#pragma unroll
    for (int m = 0; m < 2; m++) {
#pragma unroll
        for (int n = 0; n < 5; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) sums[m][n][i] = 0;
        }
    }
    uint4 next[2][PIECES]; /* the next tile, on its way while this one is used */
    fetch(next[0], from + s.k_channel, s.stride, begin, end);
    fetch(next[1], from + s.v_channel, s.stride, begin, end);
    for (uint32_t token = begin; token < end; token += TILE) {
        put<true>(keys, next[0]);
        put<false>(values, next[1]);
        __syncthreads();
        fetch(next[0], from + s.k_channel, s.stride, token + TILE, end);
        fetch(next[1], from + s.v_channel, s.stride, token + TILE, end);
        uint32_t a[2][4], b[2][4];
        const bf16 *k_tile = keys + (warp * 16 + lane / 16 * 8 + lane % 8) * STRIDE + lane / 8 % 2 * 8;
        const bf16 *v_tile = values + (warp * 16 + lane % 16) * STRIDE + lane / 16 * 8;
#pragma unroll
        for (int m = 0; m < 2; m++) load_4_turned(a[m], k_tile + m * 16); /* K^T: rows are channels, columns tokens */
#pragma unroll
        for (int n = 0; n < 2; n++) load_4_turned(b[n], v_tile + n * 16);
#pragma unroll
        for (int m = 0; m < 2; m++) {
#pragma unroll
            for (int n = 0; n < 2; n++) {
                multiply(sums[m][2 * n], a[m], b[n][0], b[n][1]);
                multiply(sums[m][2 * n + 1], a[m], b[n][2], b[n][3]);
            }
            multiply(sums[m][4], a[m], ones, ones);
        }
        __syncthreads();
    }
#pragma unroll
    for (int m = 0; m < 2; m++) {
#pragma unroll
        for (int n = 0; n < 4; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) parts[warp][m * 16 + g + i / 2 * 8][n * 8 + t * 2 + i % 2] = sums[m][n][i];
        }
        if (t == 0) {
            parts[warp][m * 16 + g][DIM] = sums[m][4][0];
            parts[warp][m * 16 + g + 8][DIM] = sums[m][4][2];
        }
    }
    __syncthreads();
    float *to = out + (head * chunks + chunk) * SUMS;
    for (uint32_t i = threadIdx.x; i < SUMS; i += 32 * WARPS) {
        const uint32_t k = i < DIM * DIM ? i / DIM : i - DIM * DIM, v = i < DIM * DIM ? i % DIM : DIM;
        float sum = 0;
        for (int w = 0; w < WARPS; w++) sum += parts[w][k][v];
        to[i] = sum;
    }
}

__global__ void add_chunks_32(uint64_t all, uint32_t chunks, const float *parts, float *out)
{
    WEIR_EACH(i, all)
    {
        const struct weir_split at = weir_split_by(i, SUMS);
        const float *from = parts + at.quotient * chunks * SUMS + at.rest;
        float sum = 0;
        for (uint32_t n = 0; n < chunks; n++) sum += from[(uint64_t)n * SUMS];
        out[i] = sum;
    }
}

/* A block: QUERIES tokens of one head; a warp has two times 16 of them. */
__global__ void __launch_bounds__(32 * WARPS)
    queries_32(struct weir_linear_attention s, uint32_t tiles, const bf16 *x, const float *of_heads, bf16 *y)
{
    __shared__ __align__(16) bf16 tokens[QUERIES * STRIDE];
    __shared__ float sums[DIM][DIM + 1]; /* [k][v], and the sum of relu(k) */
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const uint32_t first = blockIdx.x / s.heads % tiles * QUERIES;
    const uint64_t frame = blockIdx.x / s.heads / tiles, h = blockIdx.x % s.heads, head = frame * s.heads + h;
    const bf16 *from = x + frame * s.pixels * s.stride + h * s.head_step + s.q_channel;
    const float *of_head = of_heads + head * SUMS;
    bring<true>(tokens, from, s.stride, first, QUERIES, s.pixels);
    for (uint32_t i = threadIdx.x; i < SUMS; i += 32 * WARPS) {
        sums[i < DIM * DIM ? i / DIM : i - DIM * DIM][i < DIM * DIM ? i % DIM : DIM] = of_head[i];
    }
    __syncthreads();
    /* B fragments of S, as a large and a small part; column 32 is the denominator, in the first column of its tile. */
    float out[2][5][4];
#pragma unroll
    for (int m = 0; m < 2; m++) {
#pragma unroll
        for (int n = 0; n < 5; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) out[m][n][i] = 0;
        }
    }
#pragma unroll
    for (int c = 0; c < 2; c++) {
        uint32_t a[2][4];
#pragma unroll
        for (int m = 0; m < 2; m++)
            load_4(a[m], tokens + (warp * 32 + m * 16 + lane % 16) * STRIDE + c * 16 + lane / 16 * 8);
#pragma unroll
        for (int n = 0; n < 5; n++) {
            uint32_t large[2], small[2];
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const uint32_t k = c * 16 + half * 8 + t * 2, v = n < 4 ? n * 8 + g : DIM;
                const bool there = n < 4 || g == 0;
                const float low = there ? sums[k][v] : 0.0f, high = there ? sums[k + 1][v] : 0.0f;
                large[half] = pair(low, high);
                small[half] =
                    pair(low - __uint_as_float(large[half] << 16), high - __uint_as_float(large[half] & 0xffff0000u));
            }
#pragma unroll
            for (int m = 0; m < 2; m++) {
                multiply(out[m][n], a[m], large[0], large[1]);
                multiply(out[m][n], a[m], small[0], small[1]);
            }
        }
    }
#pragma unroll
    for (int m = 0; m < 2; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            /* The lane with t = 0 of a row has its denominator. */
            const float total = __shfl_sync(0xffffffffu, out[m][4][2 * half], lane & ~3u) + s.eps;
            const uint32_t token = first + warp * 32 + m * 16 + g + half * 8;
            if (token >= s.pixels) continue;
            bf16 *to = y + ((frame * s.pixels + token) * s.heads + h) * DIM;
#pragma unroll
            for (int n = 0; n < 4; n++) {
                *reinterpret_cast<uint32_t *>(to + n * 8 + t * 2) =
                    pair(out[m][n][2 * half] / total, out[m][n][2 * half + 1] / total);
            }
        }
    }
}

enum weir_status weir_linear_attention_bf16_run(const struct weir_cuda_run *run)
{
    const struct weir_linear_attention *s = &run->plan->shape.linear_attention;
    const bf16 *x = (const bf16 *)run->operands[WEIR_LINEAR_ATTENTION_X];
    bf16 *y = (bf16 *)run->operands[WEIR_LINEAR_ATTENTION_Y];
    const uint64_t heads = (uint64_t)s->rows * s->frames * s->heads;
    const uint32_t chunks = chunks_of(s), tiles = (s->pixels + QUERIES - 1) / QUERIES;
    float *sums = (float *)run->workspace, *parts = chunks > 1 ? sums + heads * SUMS : sums;
    cudaStream_t stream = run->stream->stream;
    keys_and_values_32<<<(unsigned)(heads * chunks), 32 * WARPS, 0, stream>>>(*s, chunk_of(s), chunks, x, parts);
    if (chunks > 1) {
        add_chunks_32<<<weir_blocks(heads * SUMS, THREADS), THREADS, 0, stream>>>(heads * SUMS, chunks, parts, sums);
    }
    queries_32<<<(unsigned)(heads * tiles), 32 * WARPS, 0, stream>>>(*s, tiles, x, sums, y);
    return weir_launched();
}
