/* low_rank: x through the first matrix into the workspace, in f32; through the second, and onto y. The matrices are
 * thin and f32, so these are our own loops: what is read again and again lies in shared memory, and each number that is
 * read serves eight tokens. A value's terms are added in an order that the shape of a row decides. */
#include "kernels/cuda/kernel.cuh"

#define TOKENS 8 /* of a block */
#define RANKS 16 /* of a block of the first product: half a warp */
#define WARPS (THREADS / 32)
#define SHARE 8                    /* inputs that a half warp multiplies, one after the other */
#define INPUTS (WARPS * 2 * SHARE) /* of a tile */
#define KEPT 64                    /* ranks that the second product holds at once */

/* thin = x a. Each half warp has its inputs of every tile; the warps' sums are added in the order of the warps. */
template <typename T>
__global__ void __launch_bounds__(THREADS)
    narrow(struct weir_low_rank s, uint64_t tokens, uint64_t blocks, const T *x, const float *a, float *thin)
{
    __shared__ __align__(16) float tile[TOKENS][INPUTS];
    __shared__ float parts[WARPS][TOKENS][RANKS];
    const uint32_t chunks = (s.rank + RANKS - 1) / RANKS;
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, k = lane % RANKS;
    const uint32_t from = (warp * 2 + lane / RANKS) * SHARE;
    for (uint64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
        const struct weir_split at = weir_split_by(block, chunks);
        const uint64_t token = at.quotient * TOKENS;
        const uint32_t rank = at.rest * RANKS + k;
        float sums[TOKENS] = { 0 };
        for (uint32_t first = 0; first < s.in; first += INPUTS) {
            __syncthreads(); /* the last tile has been read */
            for (uint32_t i = threadIdx.x; i < TOKENS * INPUTS; i += THREADS) {
                const uint32_t n = i / INPUTS, c = first + i % INPUTS;
                tile[n][i % INPUTS] = token + n < tokens && c < s.in ? weir_read(x + (token + n) * s.in + c) : 0.0f;
            }
            float column[SHARE];
            for (uint32_t i = 0; i < SHARE; i++) {
                const uint32_t c = first + from + i;
                column[i] = rank < s.rank && c < s.in ? a[(uint64_t)c * s.rank + rank] : 0.0f;
            }
            __syncthreads();
            for (uint32_t n = 0; n < TOKENS; n++) {
                const float4 *row = (const float4 *)&tile[n][from];
                for (uint32_t i = 0; i < SHARE / 4; i++) {
                    const float4 four = row[i];
                    sums[n] = fmaf(four.x, column[4 * i], sums[n]);
                    sums[n] = fmaf(four.y, column[4 * i + 1], sums[n]);
                    sums[n] = fmaf(four.z, column[4 * i + 2], sums[n]);
                    sums[n] = fmaf(four.w, column[4 * i + 3], sums[n]);
                }
            }
        }
        for (uint32_t n = 0; n < TOKENS; n++) {
            const float sum = sums[n] + __shfl_xor_sync(0xffffffffu, sums[n], RANKS);
            if (lane < RANKS) parts[warp][n][k] = sum;
        }
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < TOKENS * RANKS; i += THREADS) {
            const uint32_t n = i / RANKS, to = at.rest * RANKS + i % RANKS;
            float sum = 0;
            for (uint32_t w = 0; w < WARPS; w++) sum += parts[w][n][i % RANKS];
            if (token + n < tokens && to < s.rank) thin[(token + n) * s.rank + to] = sum;
        }
    }
}

/* y += gate * (thin b), from `channel` on. A thread has one channel of eight tokens. */
template <typename T>
__global__ void __launch_bounds__(THREADS) widen(struct weir_low_rank s, uint64_t tokens, uint64_t blocks,
                                                 const float *thin, const float *b, const T *gate, T *y)
{
    __shared__ __align__(16) float kept[KEPT][TOKENS];
    const uint32_t tiles = (s.out + THREADS - 1) / THREADS;
    for (uint64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
        const struct weir_split at = weir_split_by(block, tiles);
        const uint64_t token = at.quotient * TOKENS;
        const uint32_t o = at.rest * THREADS + threadIdx.x;
        float sums[TOKENS] = { 0 };
        for (uint32_t first = 0; first < s.rank; first += KEPT) {
            const uint32_t count = s.rank - first < KEPT ? s.rank - first : KEPT;
            __syncthreads(); /* the last ones have been read */
            for (uint32_t i = threadIdx.x; i < count * TOKENS; i += THREADS) {
                const uint32_t n = i / count, k = i % count;
                kept[k][n] = token + n < tokens ? thin[(token + n) * s.rank + first + k] : 0.0f;
            }
            __syncthreads();
            for (uint32_t k = 0; k < count && o < s.out; k++) {
                const float value = b[(uint64_t)(first + k) * s.out + o];
                for (uint32_t n = 0; n < TOKENS; n++) sums[n] = fmaf(kept[k][n], value, sums[n]);
            }
        }
        for (uint32_t n = 0; n < TOKENS && o < s.out && token + n < tokens; n++) {
            const uint32_t c = s.channel + o;
            T *to = y + (token + n) * s.y_channels + c;
            float sum = sums[n];
            if (s.gate_vectors) {
                const uint64_t row = weir_split_by(token + n, s.tokens).quotient;
                sum *= weir_read(gate + (row * s.gate_vectors + s.gate_vector) * s.y_channels + c);
            }
            weir_write(to, weir_read(to) + sum);
        }
    }
}

enum weir_status weir_cuda_prepare_low_rank(struct weir_cuda *cuda, struct weir_cuda_plan *plan,
                                            struct weir_error *error)
{
    const struct weir_low_rank *s = &plan->shape.low_rank;
    (void)cuda, (void)error;
    plan->workspace_bytes = (size_t)s->rows * s->tokens * s->rank * sizeof(float);
    return WEIR_OK;
}

enum weir_status weir_cuda_run_low_rank(const struct weir_cuda_run *run)
{
    const struct weir_low_rank *s = &run->plan->shape.low_rank;
    const uint64_t tokens = (uint64_t)s->rows * s->tokens, groups = (tokens + TOKENS - 1) / TOKENS;
    const uint64_t first = groups * ((s->rank + RANKS - 1) / RANKS),
                   second = groups * ((s->out + THREADS - 1) / THREADS);
    float *thin = (float *)run->workspace;
    WEIR_BY_TYPE(s->dtype, T,
                 (narrow<T><<<weir_blocks(first, 1), THREADS, 0, run->stream->stream>>>(
                     *s, tokens, first, (const T *)run->operands[WEIR_LOW_RANK_X],
                     (const float *)run->operands[WEIR_LOW_RANK_A], thin)));
    WEIR_BY_TYPE(s->dtype, T,
                 (widen<T><<<weir_blocks(second, 1), THREADS, 0, run->stream->stream>>>(
                     *s, tokens, second, thin, (const float *)run->operands[WEIR_LOW_RANK_B],
                     (const T *)run->operands[WEIR_LOW_RANK_GATE], (T *)run->operands[WEIR_LOW_RANK_Y])));
    return weir_launched();
}
