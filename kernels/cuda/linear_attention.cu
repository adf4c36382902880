/* linear_attention: one pass over K and V makes S = sum_j [v_j; 1] relu(k_j)^T of every head, one over Q applies it.
 * The tokens are cut into chunks by shape alone; a chunk's sums are one thread's, token after token, and chunks are
 * added in their order. */
#include "kernels/cuda/kernel.cuh"

#define CHUNK_TOKENS 256
#define TILE_TOKENS 16        /* in shared memory at a time */
#define SUMS 8                /* of a thread */
#define HEAD_DIM_MAX 256

static __host__ __device__ __forceinline__ uint32_t sums_of_head(const struct weir_linear_attention &s)
{
    return (s.head_dim + 1) * s.head_dim;
}

static uint32_t chunks_of(const struct weir_linear_attention *s)
{
    return (s->pixels + CHUNK_TOKENS - 1) / CHUNK_TOKENS;
}

/* f32: S of each head; then, where there are chunks, each chunk's. */
enum weir_status weir_cuda_prepare_linear_attention(struct weir_cuda *cuda, struct weir_cuda_plan *plan,
                                                    struct weir_error *error)
{
    const struct weir_linear_attention *s = &plan->shape.linear_attention;
    const uint64_t heads = (uint64_t)s->rows * s->frames * s->heads, chunks = chunks_of(s);
    (void)cuda;
    if (s->head_dim > HEAD_DIM_MAX) {
        return weir_fail(error, WEIR_UNSUPPORTED, "device cuda: linear_attention takes heads of up to %d channels, not %u",
                         HEAD_DIM_MAX, s->head_dim);
    }
    plan->workspace_bytes = heads * sums_of_head(*s) * (chunks > 1 ? chunks + 1 : 1) * sizeof(float);
    return WEIR_OK;
}

/* Block: a slice of SUMS * THREADS sums of one head's chunk. */
template <typename T>
__global__ void keys_and_values(struct weir_linear_attention s, uint32_t chunks, uint32_t slices, const T *x, float *out)
{
    extern __shared__ float tile[]; /* keys [TILE_TOKENS][dim], values [TILE_TOKENS][dim] */
    const uint32_t dim = s.head_dim, count = sums_of_head(s);
    const uint32_t slice = blockIdx.x % slices;
    const uint32_t chunk = blockIdx.x / slices % chunks;
    const uint64_t head = blockIdx.x / slices / chunks; /* of all rows and frames */
    const T *from = x + head / s.heads * s.pixels * s.stride + head % s.heads * s.head_step;
    float *keys = tile, *values = tile + TILE_TOKENS * dim;
    const uint32_t begin = chunk * CHUNK_TOKENS;
    const uint32_t end = begin + CHUNK_TOKENS < s.pixels ? begin + CHUNK_TOKENS : s.pixels;
    float sums[SUMS];
    uint32_t v_of[SUMS], k_of[SUMS];
    for (int n = 0; n < SUMS; n++) {
        const uint32_t i = slice * (SUMS * THREADS) + n * THREADS + threadIdx.x;
        sums[n] = 0;
        v_of[n] = i < count ? i / dim : 0;
        k_of[n] = i % dim;
    }
    for (uint32_t j0 = begin; j0 < end; j0 += TILE_TOKENS) {
        const uint32_t tokens = end - j0 < TILE_TOKENS ? end - j0 : TILE_TOKENS;
        for (uint32_t i = threadIdx.x; i < tokens * dim; i += THREADS) {
            const T *token = from + (uint64_t)(j0 + i / dim) * s.stride + i % dim;
            const float key = weir_read(token + s.k_channel);
            keys[i] = weir_act(WEIR_ACT_RELU, key);
            values[i] = weir_read(token + s.v_channel);
        }
        __syncthreads();
        for (uint32_t j = 0; j < tokens; j++) {
            for (int n = 0; n < SUMS; n++) {
                const float value = v_of[n] < dim ? values[j * dim + v_of[n]] : 1.0f;
                sums[n] = fmaf(value, keys[j * dim + k_of[n]], sums[n]);
            }
        }
        __syncthreads();
    }
    float *to = out + (head * chunks + chunk) * count;
    for (int n = 0; n < SUMS; n++) {
        const uint32_t i = slice * (SUMS * THREADS) + n * THREADS + threadIdx.x;
        if (i < count) to[i] = sums[n];
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

/* Block: TILE_TOKENS tokens of one head. */
template <typename T>
__global__ void queries(struct weir_linear_attention s, uint32_t tiles, const T *x, const float *sums, T *y)
{
    extern __shared__ float tile[]; /* queries [TILE_TOKENS][dim], results [TILE_TOKENS][dim + 1] */
    const uint32_t dim = s.head_dim, first = blockIdx.x % tiles * TILE_TOKENS;
    const uint64_t head = blockIdx.x / tiles, frame = head / s.heads, h = head % s.heads;
    const T *from = x + frame * s.pixels * s.stride + h * s.head_step + s.q_channel;
    const float *of_head = sums + head * sums_of_head(s);
    float *results = tile + TILE_TOKENS * dim;
    const uint32_t tokens = s.pixels - first < TILE_TOKENS ? s.pixels - first : TILE_TOKENS;
    for (uint32_t i = threadIdx.x; i < tokens * dim; i += THREADS) {
        tile[i] = weir_act(WEIR_ACT_RELU, weir_read(from + (uint64_t)(first + i / dim) * s.stride + i % dim));
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < tokens * (dim + 1); i += THREADS) {
        const uint32_t token = i % tokens, d = i / tokens; /* neighbours share the row of S that they read */
        float sum = 0;
        for (uint32_t e = 0; e < dim; e++) sum = fmaf(of_head[d * dim + e], tile[token * dim + e], sum);
        results[token * (dim + 1) + d] = sum;
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < tokens * dim; i += THREADS) {
        const uint32_t token = i / dim, d = i % dim;
        const float *result = results + token * (dim + 1);
        weir_write(y + ((frame * s.pixels + first + token) * s.heads + h) * dim + d, result[d] / (result[dim] + s.eps));
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
    const uint32_t slices = (count + SUMS * THREADS - 1) / (SUMS * THREADS);
    const uint32_t tiles = (s->pixels + TILE_TOKENS - 1) / TILE_TOKENS;
    const size_t shared = TILE_TOKENS * (2 * (size_t)s->head_dim + 1) * sizeof(float);
    float *sums = (float *)run->workspace, *parts = chunks > 1 ? sums + heads * count : sums;
    keys_and_values<T><<<(unsigned)(heads * chunks * slices), THREADS, shared, stream>>>(*s, chunks, slices, x, parts);
    if (chunks > 1) {
        add_chunks<<<weir_blocks(heads * count, THREADS), THREADS, 0, stream>>>(heads * count, count, chunks, parts, sums);
    }
    queries<T><<<(unsigned)(heads * tiles), THREADS, shared, stream>>>(*s, tiles, x, sums, y);
}

enum weir_status weir_cuda_run_linear_attention(const struct weir_cuda_run *run)
{
    WEIR_BY_TYPE(run->plan->shape.linear_attention.dtype, T, (launch<T>(run)));
    return weir_launched();
}
