/* linear_attention: one pass over K and V makes S = sum_j [v_j; 1] relu(k_j)^T of every head, one over Q applies it.
 * The tokens are cut into chunks by shape alone; of a chunk each warp adds every 8th token's terms, and warps and
 * chunks are added in their order. */
#include "kernels/cuda/linear_attention.cuh"

#define CHUNK_TOKENS 256
#define TILE 32  /* tokens in shared memory at a time, and channels of a block of S */
#define GROUPS 8 /* warps, of which each adds the terms of every 8th token */

static __host__ __device__ __forceinline__ uint32_t sums_of_head(const struct weir_linear_attention &s)
{
    return (s.head_dim + 1) * s.head_dim;
}

static uint32_t chunks_of(const struct weir_linear_attention *s)
{
    return (s->pixels + CHUNK_TOKENS - 1) / CHUNK_TOKENS;
}

static __host__ __device__ __forceinline__ uint32_t blocks_of(uint32_t dim)
{
    return (dim + TILE - 1) / TILE;
}

/* f32: S of each head; then, where there are chunks, each chunk's. */
enum weir_status weir_cuda_prepare_linear_attention(struct weir_cuda *cuda, struct weir_cuda_plan *plan,
                                                    struct weir_error *error)
{
    const struct weir_linear_attention *s = &plan->shape.linear_attention;
    const uint64_t heads = (uint64_t)s->rows * s->frames * s->heads, chunks = chunks_of(s);
    (void)cuda;
    (void)error;
    if (weir_linear_attention_bf16_takes(s)) return WEIR_OK;
    plan->workspace_bytes = heads * sums_of_head(*s) * (chunks > 1 ? chunks + 1 : 1) * sizeof(float);
    return WEIR_OK;
}

/* Channels first.. of TILE tokens from `token`, 0 where there are none. */
template <bool RELU, typename T>
static __device__ __forceinline__ void load_tile(const T *from, uint64_t stride, uint32_t token, uint32_t end,
                                                 uint32_t first, uint32_t dim, float tile[TILE][TILE + 4])
{
    for (uint32_t i = threadIdx.x; i < TILE * TILE; i += THREADS) {
        const uint32_t j = i / TILE, c = i % TILE;
        const bool inside = token + j < end && first + c < dim;
        const float value = inside ? weir_read(from + (uint64_t)(token + j) * stride + first + c) : 0.0f;
        tile[j][c] = RELU ? weir_act(WEIR_ACT_RELU, value) : value;
    }
}

/* Block: TILE x TILE of S of one head's chunk; those of the first channels of v also the row of the 1. A lane has 4
 * rows (channels of v) and 8 columns (of k). */
template <typename T>
__global__ void __launch_bounds__(THREADS)
    keys_and_values(struct weir_linear_attention s, uint32_t chunks, const T *x, float *out)
{
    __shared__ __align__(16) float keys[TILE][TILE + 4], values[TILE][TILE + 4];
    __shared__ float parts[GROUPS][TILE + 1][TILE];
    const uint32_t dim = s.head_dim, blocks = blocks_of(dim), block = blockIdx.x % (blocks * blocks);
    const uint32_t v_first = block / blocks * TILE, k_first = block % blocks * TILE;
    const uint32_t chunk = blockIdx.x / (blocks * blocks) % chunks;
    const uint64_t head = blockIdx.x / (blocks * blocks) / chunks; /* of all rows and frames */
    const T *from = x + head / s.heads * s.pixels * s.stride + head % s.heads * s.head_step;
    const uint32_t begin = chunk * CHUNK_TOKENS;
    const uint32_t end = begin + CHUNK_TOKENS < s.pixels ? begin + CHUNK_TOKENS : s.pixels;
    const uint32_t group = threadIdx.x / 32, v = threadIdx.x % 32 / 4 * 4, k = threadIdx.x % 4 * 8;
    float sums[4][8], ones[8];
    for (int b = 0; b < 8; b++) {
        ones[b] = 0;
        for (int a = 0; a < 4; a++) sums[a][b] = 0;
    }
    for (uint32_t token = begin; token < end; token += TILE) {
        load_tile<true>(from + s.k_channel, s.stride, token, end, k_first, dim, keys);
        load_tile<false>(from + s.v_channel, s.stride, token, end, v_first, dim, values);
        __syncthreads();
        for (uint32_t j = group; j < TILE; j += GROUPS) { /* keys beyond the end are 0 */
            const float4 of_v = *reinterpret_cast<const float4 *>(&values[j][v]);
            const float4 low = *reinterpret_cast<const float4 *>(&keys[j][k]);
            const float4 high = *reinterpret_cast<const float4 *>(&keys[j][k + 4]);
            const float a[4] = { of_v.x, of_v.y, of_v.z, of_v.w };
            const float b[8] = { low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w };
#pragma unroll
            for (int n = 0; n < 8; n++) {
                ones[n] += b[n];
#pragma unroll
                for (int m = 0; m < 4; m++) sums[m][n] = fmaf(a[m], b[n], sums[m][n]);
            }
        }
        __syncthreads();
    }
    for (int n = 0; n < 8; n++) {
        for (int m = 0; m < 4; m++) parts[group][v + m][k + n] = sums[m][n];
        if (v == 0) parts[group][TILE][k + n] = ones[n];
    }
    __syncthreads();
    float *to = out + (head * chunks + chunk) * sums_of_head(s);
    for (uint32_t i = threadIdx.x; i < (TILE + 1) * TILE; i += THREADS) {
        const uint32_t r = i / TILE, c = i % TILE, row = r < TILE ? v_first + r : dim;
        if (k_first + c >= dim || (r < TILE ? row >= dim : v_first > 0)) continue;
        float sum = 0;
        for (int g = 0; g < GROUPS; g++) sum += parts[g][r][c];
        to[row * dim + k_first + c] = sum;
    }
}

__global__ void add_chunks(uint64_t all, uint32_t count, uint32_t chunks, const float *parts, float *out)
{
    WEIR_EACH(i, all)
    {
        const float *from = parts + i / count * chunks * count + i % count;
        float sum = 0;
        for (uint32_t n = 0; n < chunks; n++) sum += from[(uint64_t)n * count];
        out[i] = sum;
    }
}

/* Block: TILE tokens x TILE channels of one head. A thread has 4 channels of one token, and with them the sum that they
 * are divided by. */
template <typename T>
__global__ void __launch_bounds__(THREADS)
    queries(struct weir_linear_attention s, uint32_t tiles, const T *x, const float *sums, T *y)
{
    __shared__ __align__(16) float tokens[TILE][TILE + 4], rows[TILE][TILE + 4]; /* rows[k][v]: S, transposed */
    __shared__ float ones[TILE];
    const uint32_t dim = s.head_dim, blocks = blocks_of(dim), v_first = blockIdx.x % blocks * TILE;
    const uint32_t first = blockIdx.x / blocks % tiles * TILE;
    const uint64_t head = blockIdx.x / blocks / tiles, frame = head / s.heads, h = head % s.heads;
    const T *from = x + frame * s.pixels * s.stride + h * s.head_step + s.q_channel;
    const float *of_head = sums + head * sums_of_head(s);
    const uint32_t token = threadIdx.x / 8, v = threadIdx.x % 8 * 4;
    float results[4] = { 0, 0, 0, 0 }, total = 0;
    for (uint32_t k_first = 0; k_first < dim; k_first += TILE) {
        load_tile<true>(from, s.stride, first, s.pixels, k_first, dim, tokens);
        for (uint32_t i = threadIdx.x; i < TILE * TILE; i += THREADS) {
            const uint32_t r = i / TILE, c = i % TILE;
            const bool inside = v_first + r < dim && k_first + c < dim;
            rows[c][r] = inside ? of_head[(v_first + r) * dim + k_first + c] : 0.0f;
        }
        if (threadIdx.x < TILE) {
            const uint32_t c = k_first + threadIdx.x;
            ones[threadIdx.x] = c < dim ? of_head[dim * dim + c] : 0.0f;
        }
        __syncthreads();
#pragma unroll 8
        for (uint32_t e = 0; e < TILE; e++) {
            const float q = tokens[token][e];
            const float4 row = *reinterpret_cast<const float4 *>(&rows[e][v]);
            total = fmaf(ones[e], q, total);
            results[0] = fmaf(row.x, q, results[0]);
            results[1] = fmaf(row.y, q, results[1]);
            results[2] = fmaf(row.z, q, results[2]);
            results[3] = fmaf(row.w, q, results[3]);
        }
        __syncthreads();
    }
    if (first + token >= s.pixels) return;
    T *to = y + ((frame * s.pixels + first + token) * s.heads + h) * dim + v_first + v;
    for (int n = 0; n < 4; n++) {
        if (v_first + v + n < dim) weir_write(to + n, results[n] / (total + s.eps));
    }
}

template <typename T> static void launch(const struct weir_cuda_run *run)
{
    const struct weir_linear_attention *s = &run->plan->shape.linear_attention;
    const T *x = (const T *)run->operands[WEIR_LINEAR_ATTENTION_X];
    T *y = (T *)run->operands[WEIR_LINEAR_ATTENTION_Y];
    cudaStream_t stream = run->stream->stream;
    const uint64_t heads = (uint64_t)s->rows * s->frames * s->heads;
    const uint32_t count = sums_of_head(*s), chunks = chunks_of(s);
    const uint32_t tiles = (s->pixels + TILE - 1) / TILE, blocks = blocks_of(s->head_dim);
    float *sums = (float *)run->workspace, *parts = chunks > 1 ? sums + heads * count : sums;
    keys_and_values<T><<<(unsigned)(heads * chunks * blocks * blocks), THREADS, 0, stream>>>(*s, chunks, x, parts);
    if (chunks > 1) {
        add_chunks<<<weir_blocks(heads * count, THREADS), THREADS, 0, stream>>>(heads * count, count, chunks, parts,
                                                                                sums);
    }
    queries<T><<<(unsigned)(heads * tiles * blocks), THREADS, 0, stream>>>(*s, tiles, x, sums, y);
}

enum weir_status weir_cuda_run_linear_attention(const struct weir_cuda_run *run)
{
    if (weir_linear_attention_bf16_takes(&run->plan->shape.linear_attention))
        return weir_linear_attention_bf16_run(run);
    WEIR_BY_TYPE(run->plan->shape.linear_attention.dtype, T, (launch<T>(run)));
    return weir_launched();
}
