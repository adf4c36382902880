/* low_rank: x through the first matrix into the workspace, in f32; through the second, and onto y. Both matrices are thin,
 * so the ops are bound by reading x and y, and our own loops lose nothing to a library's. A value's terms are added in an
 * order that the shape of a row decides: of the first product each lane of a warp has every 32nd input, of the second one
 * thread has all. */
#include "kernels/cuda/kernel.cuh"

#define TOKENS 4  /* of a warp, and of a thread of the second product: a matrix is read once for so many */
#define RANKS 8   /* of a warp */
#define WARPS 4   /* of a block */

template <typename T>
__global__ void narrow(struct weir_low_rank s, uint64_t tokens, const T *x, const float *a, float *thin)
{
    const uint32_t chunks = (s.rank + RANKS - 1) / RANKS, lane = threadIdx.x % 32;
    const uint64_t warps = (tokens + TOKENS - 1) / TOKENS * chunks;
    for (uint64_t w = (uint64_t)blockIdx.x * WARPS + threadIdx.x / 32; w < warps; w += (uint64_t)gridDim.x * WARPS) {
        const struct weir_split at = weir_split_by(w, chunks);
        const uint64_t token = at.quotient * TOKENS;
        const uint32_t first = at.rest * RANKS, count = s.rank - first < RANKS ? s.rank - first : RANKS;
        const uint32_t here = tokens - token < TOKENS ? (uint32_t)(tokens - token) : TOKENS;
        float sums[TOKENS][RANKS] = { { 0 } };
        for (uint32_t i = lane; i < s.in; i += 32) {
            float column[RANKS];
            for (uint32_t k = 0; k < RANKS; k++) column[k] = k < count ? a[(uint64_t)i * s.rank + first + k] : 0.0f;
            for (uint32_t n = 0; n < TOKENS; n++) {
                const float value = n < here ? weir_read(x + (token + n) * s.in + i) : 0.0f;
                for (uint32_t k = 0; k < RANKS; k++) sums[n][k] = fmaf(value, column[k], sums[n][k]);
            }
        }
        for (uint32_t n = 0; n < TOKENS; n++) {
            for (uint32_t k = 0; k < RANKS; k++) {
                const float sum = weir_warp_sum(sums[n][k]);
                if (lane == 0 && n < here && k < count) thin[(token + n) * s.rank + first + k] = sum;
            }
        }
    }
}

template <typename T>
__global__ void widen(struct weir_low_rank s, uint64_t tokens, const float *thin, const float *b, const T *gate, T *y)
{
    WEIR_EACH(i, (tokens + TOKENS - 1) / TOKENS * s.out)
    {
        const struct weir_split at = weir_split_by(i, s.out);
        const uint64_t token = at.quotient * TOKENS;
        const uint32_t here = tokens - token < TOKENS ? (uint32_t)(tokens - token) : TOKENS;
        const float *rows = thin + token * s.rank;
        float sums[TOKENS] = { 0 };
        for (uint32_t k = 0; k < s.rank; k++) {
            const float value = b[(uint64_t)k * s.out + at.rest];
            for (uint32_t n = 0; n < TOKENS; n++) {
                if (n < here) sums[n] = fmaf(rows[n * s.rank + k], value, sums[n]);
            }
        }
        for (uint32_t n = 0; n < here; n++) {
            const uint32_t c = s.channel + at.rest;
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

enum weir_status weir_cuda_prepare_low_rank(struct weir_cuda *cuda, struct weir_cuda_plan *plan, struct weir_error *error)
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
    const uint64_t warps = groups * ((s->rank + RANKS - 1) / RANKS);
    float *thin = (float *)run->workspace;
    WEIR_BY_TYPE(s->dtype, T,
                 (narrow<T><<<weir_blocks(warps, WARPS), 32 * WARPS, 0, run->stream->stream>>>(
                     *s, tokens, (const T *)run->operands[WEIR_LOW_RANK_X],
                     (const float *)run->operands[WEIR_LOW_RANK_A], thin)));
    WEIR_BY_TYPE(s->dtype, T,
                 (widen<T><<<weir_blocks(groups * s->out, THREADS), THREADS, 0, run->stream->stream>>>(
                     *s, tokens, thin, (const float *)run->operands[WEIR_LOW_RANK_B],
                     (const T *)run->operands[WEIR_LOW_RANK_GATE], (T *)run->operands[WEIR_LOW_RANK_Y])));
    return weir_launched();
}
